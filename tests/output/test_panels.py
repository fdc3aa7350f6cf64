"""Panels: what is right and wrong is what the protocol says, and can be seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.metrics import PROTOCOLS, Scorer
from pinglow.output.panels import FALSE_ALARM, HIT, MISS, draw_panels, find_boxes, judge


def random_masks(seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A truth of a few targets, and a prediction that moves, loses and adds some."""
    random = np.random.default_rng(seed)
    truth, predicted = np.zeros((2, 60, 80), bool)
    for _ in range(random.integers(0, 6)):
        y, x = random.integers(0, 55), random.integers(0, 75)
        truth[y : y + 3, x : x + 2] = True
        if random.random() < 0.7:
            y, x = max(0, y + random.integers(-3, 4)), max(0, x + random.integers(-3, 4))
            predicted[y : y + 3, x : x + 2] = True
    for _ in range(random.integers(0, 3)):
        y, x = random.integers(0, 58), random.integers(0, 78)
        predicted[y : y + 2, x : x + 2] = True
    return truth, predicted


def test_a_judgement_counts_as_the_strict_protocol_does() -> None:
    hits = 0
    for seed in range(40):
        truth, predicted = random_masks(seed)
        scorer = Scorer(PROTOCOLS["strict"], thresholds=())
        scorer.update(predicted.astype(np.float32), truth)
        (counts,), judged = scorer.images, judge(truth, predicted)
        assert len(judged.hits) == sum(judged.found) == counts.matches
        assert len(judged.misses) == counts.targets - counts.matches
        assert len(judged.false_alarms) == counts.components - counts.matches
        assert judged.iou == (counts.intersection / counts.union if counts.union else 1)
        assert judged.wrong == counts.targets + counts.components - 2 * counts.matches
        hits += counts.matches
    assert hits > 20


def test_boxes_are_those_of_components_that_touch_at_a_corner() -> None:
    mask = np.zeros((9, 12), bool)
    mask[1, 2] = mask[2, 3] = mask[3, 2] = True  # one, by its corners
    mask[8, 10:] = True
    assert find_boxes(mask) == ((2, 1, 2, 3), (10, 8, 2, 1))
    assert find_boxes(np.zeros((3, 3), bool)) == ()


def colors(image: Image.Image) -> dict[str, int]:
    """Pixels of each color below the legend."""
    values = np.asarray(image)[60:]
    kinds = {"hit": HIT, "miss": MISS, "false": FALSE_ALARM}
    return {name: int(np.all(values == color, axis=-1).sum()) for name, color in kinds.items()}


def test_each_kind_has_its_color_in_the_panel_of_its_model() -> None:
    frame = np.random.default_rng(0).normal(100, 3, (64, 64))
    truth = np.zeros((64, 64), bool)
    truth[10:13, 10:13] = truth[40:43, 40:43] = True
    found_one = np.zeros_like(truth)
    found_one[10:13, 10:13] = True
    false = np.zeros_like(truth)
    false[50:52, 5:8] = True
    both = draw_panels(frame, truth, {"A": truth, "B": found_one | false}, title="frame")
    assert min(colors(both).values()) > 0
    all_right = colors(draw_panels(frame, truth, {"A": truth}, title="frame"))
    assert all_right["hit"] > 0
    assert all_right["miss"] == all_right["false"] == 0
    nothing = colors(draw_panels(frame, ~truth & truth, {"A": ~truth & truth}, title="frame"))
    assert not any(nothing.values())


def test_many_models_wrap_and_odd_frames_are_drawn() -> None:
    rows = {}
    for models in (2, 6):
        masks = {f"model {number}": np.zeros((32, 32), bool) for number in range(models)}
        rows[models] = draw_panels(np.zeros((32, 32)), np.zeros((32, 32), bool), masks).size
    assert rows[6][0] == rows[2][0]
    assert rows[6][1] > 1.8 * rows[2][1]
    broken = np.full((4, 700), np.nan)
    corner = np.zeros((4, 700), bool)
    corner[0, 0] = corner[3, 699] = True
    name = "a\x1b[31m" + "long" * 99
    drawn = draw_panels(broken, corner, {name: ~corner}, title=name)
    assert drawn.width < 2500
