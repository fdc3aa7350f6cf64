from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import pinglow
from pinglow.errors import MissingExtraError, OptionError
from pinglow.inference.tracking import Tracker
from pinglow.structures import Detections


def found(*places: tuple[float, float]) -> Detections:
    """Targets of 3 x 3 pixels around (x, y)."""
    boxes = np.array([(x - 1, y - 1, 3, 3) for x, y in places], float).reshape(-1, 4)
    return Detections(boxes, np.full(len(boxes), 0.9))


def test_moving_targets_keep_their_numbers() -> None:
    tracker = Tracker(25.0)
    random = np.random.default_rng(0)
    seen = []
    for step in range(20):
        # 4 and 3 pixels a frame: more than the targets are wide.
        places = [(10 + 4 * step, 50), (150 - 3 * step, 20 + step)]
        order = random.permutation(2)
        tracks = tracker.update(found(*(places[place] for place in order)))
        assert len(tracks) == 2
        seen.append([tracks[list(order).index(place)] for place in range(2)])
    assert seen[-1][0] != seen[-1][1]
    assert {tuple(row) for row in seen[3:]} == {tuple(seen[-1])}
    assert sorted(seen[-1]) == [1, 2]


def test_a_target_of_one_frame_is_no_track() -> None:
    tracker = Tracker(25.0)
    random = np.random.default_rng(0)
    for _ in range(30):
        x, y = random.uniform(0, 5000, 2)
        assert tracker.update(found((x, y))) == (None,)


def test_a_track_outlives_a_short_gap_and_not_a_long_one() -> None:
    tracker = Tracker(20.0)
    for step in range(6):
        before = tracker.update(found((100 + 2 * step, 50)))
    for _ in range(4):
        assert tracker.update(found()) == ()
    after = [tracker.update(found((100 + 2 * step, 50))) for step in range(10, 14)]
    assert before == after[-1] == (1,)
    for _ in range(40):
        tracker.update(found())
    later = [tracker.update(found((100 + 2 * step, 50))) for step in range(54, 60)]
    assert later[-1] == (2,)


def shaking(seed: int, reach: int) -> tuple[list[Any], list[Detections]]:
    """Frames of a camera that jumps at random, and the place of a target that stands still."""
    random = np.random.default_rng(seed)
    scene = 300 * ndimage.gaussian_filter(random.normal(size=(400, 440)), 2) + 8000
    frames, predictions = [], []
    for _ in range(30):
        left, top = 100 + reach * random.choice((-1, 1), 2)
        frame = scene[top : top + 200, left : left + 240] + random.normal(0, 2, (200, 240))
        x, y = 220 - left, 200 - top
        frame[y - 1 : y + 2, x - 1 : x + 2] += 200
        frames.append(frame.astype(np.uint16))
        predictions.append(found((x, y)))
    return frames, predictions


def test_tracks_hold_where_the_camera_shakes() -> None:
    frames, predictions = shaking(0, 22)
    still, steady = Tracker(30.0, compensate=False), pinglow.Tracker(rate=30)
    loose = [
        still.update(prediction, frame)
        for prediction, frame in zip(predictions, frames, strict=True)
    ]
    held = [
        steady.update(prediction, frame)
        for prediction, frame in zip(predictions, frames, strict=True)
    ]
    assert {tracks for tracks in held[2:]} == {(1,)}
    assert sum(tracks == (1,) for tracks in loose) < 20


def test_a_camera_that_stands_costs_nothing() -> None:
    frames, predictions = shaking(1, 0)
    plain, steady = Tracker(30.0, compensate=False), Tracker(30.0)
    for step, (prediction, frame) in enumerate(zip(predictions, frames, strict=True)):
        moved = found((100 + 2.3 * step, 90), *((t.x, t.y) for t in prediction.targets))
        assert plain.update(moved, frame) == steady.update(moved, frame)
    assert not steady._moved.any()


def test_without_the_library_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[video\]'"):
        Tracker(25.0)


def test_a_rate_is_above_0() -> None:
    with pytest.raises(OptionError, match="rate is 0"):
        Tracker(0)
