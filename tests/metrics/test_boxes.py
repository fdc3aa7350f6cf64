"""Box scores against pycocotools, and by centers against trying every permutation."""

from __future__ import annotations

import copy
import itertools
import json
import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pinglow.errors import DataError, MissingExtraError, OptionError
from pinglow.metrics import BoxReport, BoxScorer
from pinglow.metrics import boxes as module
from pinglow.metrics import report as report_module
from pinglow.metrics.report import draw_images

Array = NDArray[np.float64]
CENTER_KEYS = ["pd", "fa", "precision", "recall", "f1", "false_alarms_per_image"]
KEYS = ["ap50", "ap", *CENTER_KEYS]
NOTHING = np.zeros((0, 4))

# Average precision is the work of an optional package.
pytest.importorskip("faster_coco_eval", reason="faster-coco-eval needs pip install '.[detect]'")


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    """Draw 100 times instead of 2000, which these tests need not wait for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_module, "RESAMPLES", 100)
        yield


class Frame(NamedTuple):
    predicted: Array
    scores: Array
    true: Array
    shape: tuple[int, int] = (48, 64)


def make_frames(count: int, seed: int, extra: int = 6) -> list[Frame]:
    """Frames with 0 to 4 targets, found well, badly, twice or not at all, and false boxes."""
    generator = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        targets = generator.integers(0, 5)
        true = np.column_stack(
            [generator.uniform(0, 40, (targets, 2)), generator.uniform(2, 12, (targets, 2))]
        )
        near = np.repeat(true, generator.integers(0, 3, targets), axis=0)
        near = near + generator.normal(0, 1, near.shape)
        false = generator.integers(0, extra + 1)
        far = np.column_stack(
            [generator.uniform(-4, 62, (false, 2)), generator.uniform(0, 15, (false, 2))]
        )
        boxes = np.concatenate([near, far])
        boxes[:, 2:] = np.abs(boxes[:, 2:])
        frames.append(Frame(boxes, generator.uniform(0, 1, len(boxes)), true))
    return frames


def coarse_frame(seed: int) -> Frame:
    """A frame of up to 4 true and 5 predicted boxes with many ties in place, size and score.

    Some predicted boxes are true ones, twice as wide or not: overlaps of exactly 0.5 and 1.
    """
    generator = np.random.default_rng(seed)
    true, predicted = (
        np.column_stack([generator.integers(0, 7, (n, 2)), generator.integers(1, 4, (n, 2))])
        for n in (generator.integers(0, 5), generator.integers(0, 6))
    )
    for number, box in zip(range(len(predicted)), generator.permutation(true), strict=False):
        predicted[number] = box * [1, 1, generator.integers(1, 3), 1]
    scores = generator.integers(0, 5, len(predicted)) / 4
    return Frame(predicted.astype(float), scores, true.astype(float), (8, 9))


def scorer_of(frames: list[Frame]) -> BoxScorer:
    scorer = BoxScorer()
    for frame in frames:
        scorer.update(*frame)
    return scorer


def report_of(frames: list[Frame], **options: Any) -> BoxReport:
    return scorer_of(frames).compute(**options)


# --- average precision ---------------------------------------------------------------------------


def pycocotools_precisions(frames: list[Frame]) -> tuple[float, float]:
    """AP50 and AP as pycocotools' own summary has them, prints and all."""
    reason = "pycocotools is not installed: pip install pycocotools"
    coco = pytest.importorskip("pycocotools.coco", reason=reason)
    cocoeval = pytest.importorskip("pycocotools.cocoeval", reason=reason)
    images, true, found = [], [], []
    for number, frame in enumerate(frames, start=1):
        images.append({"id": number, "height": frame.shape[0], "width": frame.shape[1]})
        for box in frame.true.tolist():
            item = {"image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0}
            true.append({**item, "id": len(true) + 1, "area": box[2] * box[3]})
        for box, score in zip(frame.predicted.tolist(), frame.scores.tolist(), strict=True):
            found.append({"image_id": number, "category_id": 1, "bbox": box, "score": score})
    truth = coco.COCO()
    truth.dataset = {
        "info": {},
        "images": images,
        "annotations": true,
        "categories": [{"id": 1, "name": "target"}],
    }
    truth.createIndex()
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[1]), float(evaluation.stats[0])


@pytest.mark.parametrize("seed", range(30))
def test_average_precision_is_pycocotools(seed: int) -> None:
    frames = make_frames(12, seed, extra=150 if seed % 5 == 0 else 6)  # more than 100 a frame
    report = report_of(frames)
    assert (report.ap50, report.ap) == pytest.approx(pycocotools_precisions(frames), abs=1e-9)


def rounded(frames: list[Frame]) -> list[Frame]:
    """The same with many equal scores."""
    return [frame._replace(scores=np.round(frame.scores, 1)) for frame in frames]


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_pycocotools_with_ties_between_frames(seed: int) -> None:
    frames = rounded(make_frames(30, seed))
    report = report_of(frames)
    assert (report.ap50, report.ap) == pytest.approx(pycocotools_precisions(frames), abs=1e-9)


def test_average_precision_is_pycocotools_with_ties_in_a_frame() -> None:
    """Overlaps of exactly 0.5, equal boxes and equal scores; no two frames share a score."""
    frames = [coarse_frame(seed) for seed in range(60)]
    frames = [
        frame._replace(scores=frame.scores / 2 + number / 1000)
        for number, frame in enumerate(frames)
    ]
    report = report_of(frames)
    assert (report.ap50, report.ap) == pytest.approx(pycocotools_precisions(frames), abs=1e-9)


def distinct_scores(frames: list[Frame]) -> list[Frame]:
    generator = np.random.default_rng(0)
    return [frame._replace(scores=generator.uniform(0, 1, len(frame.scores))) for frame in frames]


@pytest.mark.parametrize(
    "frames",
    [
        make_frames(10, seed=0),
        make_frames(6, seed=1, extra=150),
        distinct_scores([coarse_frame(seed) for seed in range(60)]),
    ],
    ids=["spread", "crowded", "coarse"],
)
def test_drawn_precisions_are_pycocotools_of_the_drawn_frames(frames: list[Frame]) -> None:
    ordered = sorted(scorer_of(frames)._frames, key=lambda frame: frame.content)
    ours = module.resample_precisions(ordered, seed=2)[:4]
    expected = []
    for times in next(draw_images(len(frames), seed=2))[:4].astype(int):
        drawn = [frame for frame, count in zip(ordered, times, strict=True) for _ in range(count)]
        expected.append(
            pycocotools_precisions([Frame(f.boxes, f.scores, f.true, f.shape) for f in drawn])
        )
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    report_of(make_frames(5, seed=0))
    assert capfd.readouterr() == ("", "")


def test_a_frame_without_targets_adds_false_boxes() -> None:
    true = np.array([[10.0, 10, 5, 5]])
    good = Frame(true, np.array([0.6]), true)
    bad = Frame(true, np.array([0.9]), NOTHING)
    assert report_of([good]).ap == pytest.approx(1)
    assert report_of([good, bad]).ap == pytest.approx(0.5)  # COCO adds an epsilon


def test_without_faster_coco_eval_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtraError, match=r"average precision needs .*\.\[detect\]"):
        report_of(make_frames(5, seed=0))
    assert report_of([Frame(NOTHING, np.zeros(0), NOTHING)]).ap is None


# --- by centers ----------------------------------------------------------------------------------


def brute_force(frames: list[Frame], threshold: float) -> dict[str, float | None]:
    """Every pairing tried: most pairs, then least distance, then largest area of the matched."""
    targets = boxes = matches = pixels = 0
    false_area = 0.0
    for frame in frames:
        predicted = frame.predicted[frame.scores > threshold]
        best: tuple[float, ...] = (0, 0.0, 0.0)
        chosen: list[int] = []
        slots = [*range(len(predicted)), *[None] * len(frame.true)]
        for choice in set(itertools.permutations(slots, len(frame.true))):
            pairs = [(i, j) for i, j in enumerate(choice) if j is not None]
            distances = [math.dist(center(frame.true[i]), center(predicted[j])) for i, j in pairs]
            if any(distance >= 3 for distance in distances):
                continue
            area = sum(predicted[j, 2] * predicted[j, 3] for _, j in pairs)
            rank = (-len(pairs), round(sum(distances), 6), -area)
            if rank < best:
                best, chosen = rank, [j for _, j in pairs]
        height, width = frame.shape
        for number, (left, top, w, h) in enumerate(predicted.tolist()):
            if number not in chosen:
                inside = min(left + w, width) - max(left, 0), min(top + h, height) - max(top, 0)
                false_area += max(inside[0], 0) * max(inside[1], 0)
        targets, boxes = targets + len(frame.true), boxes + len(predicted)
        matches, pixels = matches + len(chosen), pixels + height * width

    def over(above: float, below: float) -> float | None:
        return above / below if below else None

    return {
        "pd": over(matches, targets),
        "fa": over(false_area, pixels),
        "precision": over(matches, boxes),
        "recall": over(matches, targets),
        "f1": over(2 * matches, targets + boxes),
        "false_alarms_per_image": over(boxes - matches, len(frames)),
    }


def center(box: Array) -> tuple[float, float]:
    return box[0] + box[2] / 2, box[1] + box[3] / 2


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 10**6), max_size=3), st.sampled_from([0.0, 0.25, 0.5]))
def test_scores_by_centers_equal_trying_all_permutations(
    seeds: list[int], threshold: float
) -> None:
    frames = [coarse_frame(seed) for seed in seeds]
    report = report_of(frames, threshold=threshold)
    expected = brute_force(frames, threshold)
    for key in CENTER_KEYS:
        wanted = expected[key]
        assert getattr(report, key) == (None if wanted is None else pytest.approx(wanted)), key


def test_three_pixels_are_too_far_and_the_threshold_is_not_above_itself() -> None:
    true = np.array([[10.0, 10, 4, 4]])
    for shift, pd in ((2.99, 1), (3.0, 0)):
        assert report_of([Frame(true + np.eye(4)[0] * shift, np.array([0.9]), true)]).pd == pd
    frame = Frame(true, np.array([0.5]), true)
    assert (report_of([frame]).pd, report_of([frame], threshold=0.49).pd) == (0, 1)


def test_false_area_is_cut_to_the_frame() -> None:
    boxes = np.array([[-3.0, 5, 5, 2], [60, 40, 10, 20], [100, 100, 5, 5], [1, 1, 0, 9]])
    report = report_of([Frame(boxes, np.full(4, 0.9), NOTHING)])
    assert report.fa == (2 * 2 + 4 * 8) / (48 * 64)
    assert report.false_alarms_per_image == 4


# --- the best threshold --------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_no_score_is_a_threshold_with_a_larger_f1(seeds: list[int]) -> None:
    frames = [coarse_frame(seed) for seed in seeds]
    levels = {0.0, *np.concatenate([frame.scores for frame in frames]).tolist()}
    f1 = {level: brute_force(frames, level)["f1"] or 0 for level in levels}
    best = max(level for level in levels if f1[level] == max(f1.values()))
    assert scorer_of(frames).best_threshold() == (best if f1[best] > 0 else 0.5)


def test_best_threshold_agrees_with_the_report() -> None:
    scorer = scorer_of(frames := make_frames(6, seed=1))
    best = scorer.compute(scorer.best_threshold()).f1
    others = [scorer.compute(level).f1 for frame in frames for level in frame.scores]
    assert best == max(others)


def test_nothing_to_choose() -> None:
    box = np.array([[5.0, 5, 3, 3]])
    assert BoxScorer().best_threshold() == 0.5
    assert scorer_of([Frame(NOTHING, np.zeros(0), box)]).best_threshold() == 0.5
    assert scorer_of([Frame(box, np.array([0.8]), NOTHING)]).best_threshold() == 0.5
    assert scorer_of([Frame(box, np.array([0.8]), box + 20)]).best_threshold() == 0.5
    # Of score 1, the highest there is, and of score 0, which no threshold takes.
    assert scorer_of([Frame(box, np.array([1.0]), box)]).best_threshold() == 0
    assert scorer_of([Frame(box, np.array([0.0]), box)]).best_threshold() == 0.5


# --- report --------------------------------------------------------------------------------------


def test_merging_in_any_order_is_exactly_one_scorer() -> None:
    frames = make_frames(20, seed=2)
    whole = scorer_of(frames)
    first, second, third = (scorer_of(frames[number::3]) for number in range(3))
    third.merge(first)
    third.merge(second)
    assert third.compute(seed=4) == whole.compute(seed=4)
    assert third.best_threshold() == whole.best_threshold()


def test_merging_in_turn_is_exactly_one_scorer_where_scores_are_equal() -> None:
    """COCO ranks equal scores of two frames as the frames come."""
    frames = rounded(make_frames(20, seed=2))
    whole = scorer_of(frames)
    first, second = scorer_of(frames[:8]), scorer_of(frames[8:])
    first.merge(second)
    assert first.compute(seed=4) == whole.compute(seed=4)


def test_intervals_hold_the_scores_and_shrink_with_more_images() -> None:
    few, many = report_of(make_frames(25, seed=3)), report_of(make_frames(400, seed=3))
    for key in KEYS:
        for report in (few, many):
            low, high = report.ci95[key]
            assert low <= getattr(report, key) <= high
        assert np.diff(many.ci95[key]) < np.diff(few.ci95[key])
    assert few == report_of(make_frames(25, seed=3))
    assert few.ci95 != report_of(make_frames(25, seed=3), seed=1).ci95


def test_no_images_leave_every_score_undefined() -> None:
    report = report_of([])
    assert (report.images, report.targets) == (0, 0)
    assert all(getattr(report, key) is None and report.ci95[key] is None for key in KEYS)


def test_nothing_there() -> None:
    report = report_of([Frame(NOTHING, np.zeros(0), NOTHING)])
    assert (report.fa, report.false_alarms_per_image) == (0, 0)
    assert (report.ap50, report.ap, report.pd, report.precision, report.f1) == (None,) * 5
    found = report_of([Frame(np.array([[0.0, 0, 64, 48]]), np.array([0.9]), NOTHING)])
    assert (found.ap50, found.pd, found.fa, found.precision, found.f1) == (None, None, 1, 0, 0)


def test_something_there_and_nothing_found() -> None:
    report = report_of([Frame(NOTHING, np.zeros(0), np.array([[1.0, 2, 3, 4]]))])
    assert (report.ap50, report.ap, report.pd, report.fa, report.f1) == (0, 0, 0, 0, 0)
    assert report.precision is None
    assert report.ci95["ap50"] == (0, 0)


def test_json() -> None:
    for frames in ([], make_frames(1, seed=0), make_frames(10, seed=0)):
        scores = report_of(frames).to_dict()
        assert json.loads(json.dumps(scores, allow_nan=False)) == scores
        assert list(scores) == ["protocol", "threshold", "images", "targets", *KEYS, "ci95"]
        assert list(scores["ci95"]) == KEYS
    assert scores["protocol"] == "boxes"


def test_input_is_left_as_it_was() -> None:
    frame = make_frames(3, seed=5)[2]
    before = copy.deepcopy(frame)
    report_of([frame])
    for array, same in zip(frame[:3], before[:3], strict=True):
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame(np.ones((2, 4)), np.ones(1), NOTHING), "one probability per box"),
        (Frame(np.ones((1, 4)), np.array([1.5]), NOTHING), "one probability per box"),
        (Frame(np.ones((1, 4)), np.array([np.nan]), NOTHING), "one probability per box"),
        (Frame(np.ones((1, 5)), np.ones(1), NOTHING), r"\(1, 5\)"),
        (Frame(np.ones(4), np.ones(1), NOTHING), r"\(4,\)"),
        (Frame(np.array([[5.0, 5, -1, 2]]), np.ones(1), NOTHING), "A predicted box"),
        (Frame(NOTHING, np.zeros(0), np.array([[5.0, 5, np.inf, 2]])), "A true box"),
        (Frame(NOTHING, np.zeros(0), np.array([[5.0, 5, 0, 2]])), "no area"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(frame: Frame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        BoxScorer().update(*frame)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, math.nan])
def test_thresholds_are_probabilities(threshold: float) -> None:
    with pytest.raises(OptionError, match="threshold"):
        BoxScorer().compute(threshold)
