"""Intervals, size table, ROC and the answers for what is undefined."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pinglow.metrics import PROTOCOLS, Report, Scorer

KEYS = ["iou", "niou", "pd", "fa", "precision", "recall", "f1", "false_alarms_per_image"]


def make_images(count: int, seed: int = 0) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Images with 0 to 3 square targets of 1 to 81 pixels, some missed, and false blobs."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        mask = np.zeros((48, 64), dtype=bool)
        probability = np.zeros((48, 64), dtype=np.float32)
        for column in generator.permutation([2, 22, 42])[: generator.integers(0, 4)]:
            side = generator.integers(1, 10)
            mask[20 : 20 + side, column : column + side] = True
            if generator.random() < 0.8:
                grown = side + generator.integers(0, 2)
                probability[20 : 20 + grown, column : column + grown] = generator.uniform(0.4, 1)
        if generator.random() < 0.5:
            probability[2:5, 5 : 5 + generator.integers(1, 9)] = generator.uniform(0.3, 1)
        images.append((probability, mask))
    return images


def report_of(
    images: list[tuple[NDArray[Any], NDArray[Any]]], protocol: str = "strict", **options: Any
) -> Report:
    scorer = Scorer(PROTOCOLS[protocol], **options)
    for probability, mask in images:
        scorer.update(probability, mask)
    return scorer.compute()


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


EMPTY = np.zeros((8, 8), dtype=np.float32)
FULL = np.ones((8, 8), dtype=np.float32)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "images",
    [
        [],
        [(EMPTY, EMPTY > 0)],
        [(EMPTY, FULL > 0)],
        [(FULL, EMPTY > 0)],
        [(FULL, FULL > 0)],
        [(np.zeros((0, 5)), np.zeros((0, 5), dtype=bool))],
        [(EMPTY, EMPTY > 0), (FULL, FULL > 0)],
        make_images(5),
    ],
)
def test_there_is_never_a_nan(protocol: str, images: list[Any]) -> None:
    scores = report_of(images, protocol).to_dict()
    assert all(math.isfinite(number) for number in numbers(scores))
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_no_images_leave_every_score_undefined() -> None:
    report = report_of([])
    assert (report.images, report.targets) == (0, 0)
    assert all(getattr(report, key) is None and report.ci95[key] is None for key in KEYS)
    assert report.roc.area is None


def test_nothing_there_and_nothing_found() -> None:
    report = report_of([(EMPTY, EMPTY > 0)])
    assert (report.niou, report.fa, report.false_alarms_per_image) == (1, 0, 0)
    assert (report.iou, report.pd, report.recall, report.precision, report.f1) == (None,) * 5
    assert report.ci95["niou"] == (1, 1)
    assert report.ci95["pd"] is None


def test_nothing_there_and_something_found() -> None:
    report = report_of([(FULL, EMPTY > 0)])
    assert (report.iou, report.niou, report.fa, report.false_alarms_per_image) == (0, 0, 1, 1)
    assert (report.pd, report.precision, report.f1) == (None, 0, 0)


def test_something_there_and_nothing_found() -> None:
    report = report_of([(EMPTY, FULL > 0)])
    assert (report.iou, report.niou, report.pd, report.fa, report.f1) == (0, 0, 0, 0, 0)
    assert report.precision is None


def test_keys_of_the_json() -> None:
    scores = report_of(make_images(4)).to_dict()
    assert list(scores) == [
        "protocol", "threshold", "images", "targets", *KEYS, "ci95", "per_size", "roc",
    ]  # fmt: skip
    assert list(scores["ci95"]) == KEYS
    assert [len(scores["ci95"][key]) for key in KEYS] == [2] * len(KEYS)
    assert list(scores["per_size"][0]) == ["size", "targets", "detected", "pd", "iou"]
    assert list(scores["roc"]) == ["thresholds", "pd", "fa", "area", "limit"]


# --- bootstrap ---------------------------------------------------------------------------------


def test_interval_contains_the_score_and_shrinks_with_more_images() -> None:
    widths = []
    for count in (20, 80, 320):
        report = report_of(make_images(count))
        for key in KEYS:
            low, high = report.ci95[key]
            assert 0 <= low <= getattr(report, key) <= high
        widths.append([report.ci95[key][1] - report.ci95[key][0] for key in KEYS])
    # Four times the images: about half the width.
    assert np.all(np.array(widths[1]) < np.array(widths[0]))
    assert np.array(widths[2]) / widths[1] == pytest.approx(0.5, abs=0.2)


def test_interval_is_that_of_scipys_bootstrap() -> None:
    images = make_images(60)
    both = np.array([np.sum((p > 0.5) & m) for p, m in images])
    either = np.array([np.sum((p > 0.5) | m) for p, m in images])
    theirs = stats.bootstrap(
        (both, either),
        lambda b, e, axis: b.sum(axis) / e.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high = report_of(images).ci95["iou"]
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.08 * width)
    assert high == pytest.approx(theirs.high, abs=0.08 * width)


def test_interval_depends_on_the_seed_only() -> None:
    scorer = Scorer(PROTOCOLS["strict"])
    for image in make_images(30):
        scorer.update(*image)
    assert scorer.compute(seed=1) == scorer.compute(seed=1)
    assert scorer.compute(seed=1).ci95 != scorer.compute(seed=2).ci95


def test_resampling_in_blocks_bounds_memory_and_stays_right() -> None:
    scorer = Scorer(PROTOCOLS["strict"], thresholds=())
    for image in make_images(10):
        scorer.update(*image)
    once = scorer.compute()
    for _ in range(9):  # 512 times the images, each as often: sqrt(512) times narrower
        scorer.merge(scorer_copy(scorer))
    many = scorer.compute()
    assert many.images == 5120
    assert many.iou == once.iou
    narrower = (many.ci95["iou"][1] - many.ci95["iou"][0]) / (
        once.ci95["iou"][1] - once.ci95["iou"][0]
    )
    assert narrower == pytest.approx(512**-0.5, rel=0.3)


def scorer_copy(scorer: Scorer) -> Scorer:
    copy = Scorer(PROTOCOLS["strict"], thresholds=())
    copy.merge(scorer)
    return copy


# --- size table --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sizes_add_up_to_the_whole(protocol: str) -> None:
    report = report_of(make_images(100), protocol)
    assert sum(row.targets for row in report.per_size) == report.targets
    assert all(row.targets > 0 for row in report.per_size)
    detected = sum(row.detected for row in report.per_size)
    assert report.pd == detected / report.targets


def test_size_rows_of_a_known_image() -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[2:5, 2:5] = True  # 9 pixels, found exactly
    mask[2:7, 12:14] = True  # 10 pixels, found as 5 of them
    mask[12:17, 2:7] = True  # 25 pixels, missed
    mask[20:27, 2:9] = True  # 49 pixels, found as 56
    mask[20:30, 20:25] = True  # 50 pixels, missed: what is found there is too far away
    probability = np.zeros((32, 32))
    probability[2:5, 2:5] = probability[2:7, 12] = probability[20:27, 2:10] = 1
    probability[20, 20:25] = 1
    report = report_of([(probability, mask)])
    assert [(row.size, row.targets, row.detected, row.pd, row.iou) for row in report.per_size] == [
        ("1-9", 1, 1, 1, 1),
        ("10-25", 2, 1, 0.5, 5 / 10),
        ("26-49", 1, 1, 1, 49 / 56),
        ("50+", 1, 0, 0, None),
    ]


# --- ROC ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["strict", "greedy", "basicirstd"])
def test_roc_falls_where_every_component_is_of_one_value(protocol: str) -> None:
    # Whole components drop out as the threshold rises: then Pd and Fa can only fall. Not so for
    # mshnet256, whose Fa can rise when a match of the same area as a false component drops out.
    roc = report_of(make_images(60), protocol, thresholds=np.linspace(0, 0.99, 34)).roc
    assert np.all(np.diff(roc.pd) <= 0)
    assert np.all(np.diff(roc.fa) <= 0)
    assert roc.pd[0] > roc.pd[-1]


def test_roc_can_rise_when_a_component_shrinks_towards_a_target() -> None:
    mask = np.zeros((16, 32), dtype=bool)
    mask[8, 4:6] = True
    probability = np.where(np.arange(32) < 24, 0.3, 0.0) * (np.arange(16)[:, None] == 8)
    probability[8, 4:6] = 0.9
    roc = report_of([(probability, mask)], thresholds=(0.1, 0.5)).roc
    assert roc.pd == (0, 1)
    assert roc.fa == (24 / 512, 0)


def test_roc_area_of_a_known_curve() -> None:
    # 10^6 pixels, 2 targets. Above 0.9: 1 found, no false pixel; above 0.5: 2 found, 40 false;
    # above 0.1: 2 found, 340 false, which is beyond the limit of 100.
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[10, 10] = mask[10, 30] = True
    probability = np.zeros((1000, 1000), dtype=np.float32)
    probability[10, 10], probability[10, 30] = 0.95, 0.8
    probability[500, 100:140], probability[600, 100:400] = 0.6, 0.3
    roc = report_of([(probability, mask)], thresholds=(0.1, 0.5, 0.9)).roc
    assert roc.pd == (1, 1, 0.5)
    assert roc.fa == (340e-6, 40e-6, 0)
    assert roc.area == pytest.approx((40 * 0.5 + 60 * 1) / 100)


def test_roc_area_of_perfect_and_blind_predictions() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:8, 5:8] = True
    assert report_of([(mask.astype(float), mask)]).roc.area == 1
    assert report_of([(np.zeros((20, 20)), mask)]).roc.area == 0
    assert report_of([((~mask).astype(float), mask)]).roc.area == 0


def test_roc_area_counts_the_best_pd_that_fewer_false_pixels_reach() -> None:
    # At the lower threshold both targets are one component, with its center on neither.
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[10, 10] = mask[10, 30] = True
    probability = np.zeros((1000, 1000), dtype=np.float32)
    probability[10, 10:31] = 0.6
    probability[mask] = 0.95
    roc = report_of([(probability, mask)], thresholds=(0.5, 0.9)).roc
    assert roc.pd == (0, 1)
    assert roc.area == 1


# --- thresholds from the scores -----------------------------------------------------------------


def make_scored_images(low: float, high: float, count: int = 30) -> list[Any]:
    """Images whose scores all lie in a range; targets and false blobs overlap in it."""
    generator = np.random.default_rng(3)
    images = []
    for _ in range(count):
        logit = generator.normal(-8, 1, size=(64, 64))
        mask = np.zeros((64, 64), dtype=bool)
        for _ in range(generator.integers(0, 3)):
            y, x = generator.integers(4, 58, size=2)
            mask[y : y + 2, x : x + 2] = True
            logit[y : y + 2, x : x + 2] = generator.normal(2, 2)
        y, x = generator.integers(4, 58, size=2)
        logit[y, x] = generator.normal(-1, 2)
        images.append((low + (high - low) / (1 + np.exp(-logit)), mask))
    return images


def brute_force_area(images: list[Any]) -> float:
    """Area under the staircase of the best Pd, at every value that matters, on a fine grid."""
    values = np.unique(np.concatenate([image.ravel() for image, _ in images]))[-300:]
    roc = report_of(images, thresholds=values).roc
    fa, pd = np.array(roc.fa), np.array(roc.pd)
    grid = (np.arange(1000) + 0.5) / 1000 * roc.limit
    return float(np.mean([pd[fa <= point].max(initial=0) for point in grid]))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.999, 1), (0, 1e-3), (0.4, 0.6)])
def test_roc_area_is_that_of_every_threshold_wherever_the_scores_lie(
    low: float, high: float
) -> None:
    images = make_scored_images(low, high)
    roc = report_of(images).roc
    assert roc.area == pytest.approx(brute_force_area(images), abs=0.01)
    assert roc.area > 0.2
    assert len(roc.thresholds) <= 64
    assert 0.5 in roc.thresholds
    by_hand = report_of(images, thresholds=roc.thresholds).roc
    assert sum(fa < 1e-3 for fa in roc.fa) > 10
    assert (by_hand.pd, by_hand.fa) == (roc.pd, roc.fa)


def test_every_point_is_true_beside_a_map_that_is_high_everywhere() -> None:
    images = make_scored_images(0, 1, 5)
    noisy = np.random.default_rng(0).uniform(0.6, 0.95, (64, 64))
    images.append((noisy, images[0][1]))
    roc = report_of(images).roc
    by_hand = report_of(images, thresholds=roc.thresholds).roc
    assert (by_hand.pd, by_hand.fa) == (roc.pd, roc.fa)
    assert {0.0, 0.25, 0.5, 0.75} < set(roc.thresholds)
    assert roc.fa[roc.thresholds.index(0.5)] >= 1 / 6  # all of that map is false


def test_a_perfect_map_of_scores_next_to_1_has_the_whole_area() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[5:8, 5:8] = True
    image = np.where(mask, np.float32(1), np.nextafter(np.float32(1), np.float32(0)))
    report = report_of([(image, mask)])
    assert report.pd == 0  # at 0.5 the whole frame is one component
    assert report.roc.area == 1


def test_few_values_are_all_thresholds() -> None:
    images = make_images(4)
    values = {float(value) for image, _ in images for value in np.unique(image)}
    roc = report_of(images).roc
    assert roc.thresholds == tuple(sorted({0.0, 0.5} | {value for value in values if value < 1}))
    assert roc == report_of(images, thresholds=roc.thresholds).roc


def test_a_map_that_is_high_everywhere_is_false_at_every_threshold() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[5:8, 5:8] = True
    roc = report_of([(np.ones((64, 64)), mask)]).roc
    assert set(roc.fa) == {1}
    assert roc.area == 0
