"""Differences between arms against a bootstrap written out in loops."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from pinglow.errors import DataError
from pinglow.metrics import PROTOCOLS, Scorer
from pinglow.study.contrast import contrast_arms
from pinglow.study.report import _verdict
from pinglow.study.results import RunResult, SetResult

FRAMES = 30


def make_run(arm: str, seed: int, quality: float, sets: tuple[str, ...] = ("a", "b")) -> RunResult:
    """A run that finds each pixel of 2 x 2 targets with a probability of ``quality``.

    The set "empty" has no targets.
    """
    random = np.random.default_rng([seed, *arm.encode()])
    scored = {}
    for name in sets:
        scorer = Scorer(PROTOCOLS["strict"], thresholds=())
        for _ in range(FRAMES):
            found = random.random((2, 2)) < quality
            is_false = random.random() < 0.3
            target = () if name == "empty" else tuple(map(bool, found.flat))
            scorer.merge(score_frame(target, is_false))
        scored[name] = SetResult(
            frames=tuple(f"{number}" for number in range(FRAMES)),
            counts=scorer.images,
            report=scorer.compute().to_dict(),
        )
    return result_of(arm, seed, sets=scored)


@functools.cache
def score_frame(target: tuple[bool, ...], is_false: bool) -> Scorer:
    """The counts of a frame by what is found of its target, if it has one, and of a false pixel."""
    mask = np.zeros((16, 16), dtype=np.bool_)
    mask[5:7, 5:7] = bool(target)
    found = np.zeros((16, 16), dtype=np.float32)
    if target:
        found[5:7, 5:7] = np.reshape(target, (2, 2))
    found[12, 12] = is_false
    scorer = Scorer(PROTOCOLS["strict"], thresholds=())
    scorer.update(found, mask)
    return scorer


def result_of(arm: str, seed: int, **fields: Any) -> RunResult:
    return RunResult(
        arm=arm,
        seed=seed,
        loss="diff",
        attention="free",
        convolution="plain",
        steps=10,
        digest="d",
        **fields,
    )


def test_a_difference_is_that_of_the_reports() -> None:
    runs = [make_run(arm, seed, q) for arm, q in (("x", 0.9), ("y", 0.6)) for seed in range(3)]
    differences = contrast_arms(runs, {"x": 1.0, "y": -1.0})
    for key, difference in differences.items():
        by_seed = [runs[seed].figure(key) - runs[3 + seed].figure(key) for seed in range(3)]
        assert list(difference.by_seed.values()) == pytest.approx(by_seed)
        assert difference.value == pytest.approx(np.mean(by_seed))
        assert difference.interval[0] <= difference.value <= difference.interval[1]
    assert set(differences) == {"iou", "niou", "pd", "fa"}
    assert differences["iou"].shown
    assert not differences["fa"].shown  # both have the same rate of false pixels


def test_on_one_data_set_alone_a_difference_is_that_of_its_reports() -> None:
    runs = [make_run(arm, seed, q) for arm, q in (("x", 0.9), ("y", 0.6)) for seed in range(2)]
    difference = contrast_arms([run.on("b") for run in runs], {"x": 1.0, "y": -1.0})["iou"]
    ious = [run.sets["b"].report["iou"] for run in runs]
    assert difference.value == pytest.approx(np.mean(ious[:2]) - np.mean(ious[2:]))
    assert np.isnan(runs[0].on("another").figure("iou"))


def test_frames_without_targets_count_for_fa_alone() -> None:
    runs = [make_run(arm, 0, q, ("a", "empty")) for arm, q in (("x", 0.9), ("y", 0.6))]
    differences = contrast_arms(runs, {"x": 1.0, "y": -1.0})
    x, y = ([run.sets[name].report for name in ("a", "empty")] for run in runs)
    for key in ("iou", "niou", "pd"):
        assert differences[key].value == pytest.approx(x[0][key] - y[0][key])
    mean = (x[0]["fa"] - y[0]["fa"] + x[1]["fa"] - y[1]["fa"]) / 2
    assert differences["fa"].value == pytest.approx(mean)
    empty = [make_run(arm, 0, 0.5, ("empty",)) for arm in ("x", "y")]
    assert set(contrast_arms(empty, {"x": 1.0, "y": -1.0})) == {"fa"}


@pytest.mark.parametrize(
    ("others", "weights"),
    [
        (0, {"x": 1.0, "y": -1.0}),
        (3, {"x": 1.0, "y": -1.0}),
        (3, {"x": 1.0, "y": -1.0, "u": -1.0, "v": 1.0}),
    ],
)
def test_the_interval_is_that_of_a_bootstrap_in_loops(
    others: int, weights: dict[str, float]
) -> None:
    qualities = [("x", 0.8), ("y", 0.7), ("u", 0.5), ("v", 0.6), ("w", 0.9)][: 2 + others]
    runs = [make_run(arm, seed, q) for arm, q in qualities for seed in range(3)]
    # What a table of arms and seeds leaves of its figures: rows and columns taken out.
    table = np.array([run.figure("iou") for run in runs]).reshape(-1, 3)
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    freedom = (len(table) - 1) * (3 - 1)
    spread = np.sqrt((rest**2).sum() / freedom)
    tables = [{name: scored.table() for name, scored in run.sets.items()} for run in runs]
    random = np.random.default_rng(5)
    draws = []
    for _ in range(1500):
        images = {name: random.integers(FRAMES, size=FRAMES) for name in ("a", "b")}
        values = []
        for seed in range(3):
            ious = []
            for arm in range(len(weights)):
                of_sets = []
                for name, chosen in images.items():
                    counts = tables[3 * arm + seed][name][chosen]
                    of_sets.append(counts[:, 1].sum() / counts[:, 2].sum())
                ious.append(np.mean(of_sets))
            values.append(ious[0] - ious[1] + (ious[3] - ious[2] if len(ious) > 2 else 0))
        # The sum or difference of two or four means of three.
        error = spread * np.sqrt(len(weights) / 3)
        draws.append(np.mean(values) + error * random.standard_t(freedom))
    expected = np.percentile(draws, [2.5, 97.5])
    difference = contrast_arms(runs, weights)["iou"]
    assert difference.freedom == freedom
    np.testing.assert_allclose(difference.interval, expected, atol=0.015)


def test_an_arm_does_not_differ_from_itself() -> None:
    runs = [make_run("x", 0, 0.8), make_run("x", 0, 0.8).model_copy(update={"arm": "y"})]
    difference = contrast_arms(runs, {"x": 1.0, "y": -1.0})["iou"]
    assert difference.value == 0
    assert difference.interval == (0, 0)
    assert not difference.shown


def test_an_interaction_is_a_difference_of_differences() -> None:
    runs = [make_run(arm, 0, q) for arm, q in (("xy", 0.9), ("x", 0.8), ("y", 0.7), ("n", 0.4))]
    weights = {"xy": 1.0, "x": -1.0, "y": -1.0, "n": 1.0}
    xy, x, y, n = (run.figure("pd") for run in runs)
    assert contrast_arms(runs, weights)["pd"].value == pytest.approx((xy - y) - (x - n))


def test_only_common_seeds_count_and_failures_do_not() -> None:
    runs = [make_run("x", 0, 0.9), make_run("x", 1, 0.9), make_run("y", 1, 0.5)]
    failed = result_of("y", 0, failure="out of luck")
    assert set(contrast_arms([*runs, failed], {"x": 1, "y": -1})["iou"].by_seed) == {1}
    assert contrast_arms([runs[0], failed], {"x": 1, "y": -1}) == {}


def test_runs_on_other_frames_are_refused() -> None:
    with pytest.raises(DataError, match="y, seed 0 was scored on other frames than x"):
        contrast_arms([make_run("x", 0, 0.9), make_run("y", 0, 0.9, ("a", "c"))], {"x": 1, "y": -1})


def test_equal_arms_are_rarely_told_apart() -> None:
    def told_apart(number: int, seeds: int) -> bool:
        random = np.random.default_rng(number)
        runs = [
            make_run(arm, 100 * number + seed, random.normal(0.8, 0.03), ("a",))
            for arm in ("x", "y")
            for seed in range(seeds)
        ]
        return contrast_arms(runs, {"x": 1.0, "y": -1.0})["iou"].shown

    assert not any(told_apart(number, 1) for number in range(3))  # one seed tells nothing
    for seeds in (2, 3):
        assert sum(told_apart(number, seeds) for number in range(40)) <= 4


def test_a_figure_that_few_frames_have_still_gets_an_interval() -> None:
    def run_of(arm: str, found: float) -> RunResult:
        scorer = Scorer(PROTOCOLS["strict"])
        for number in range(4):
            mask = np.zeros((16, 16), dtype=np.bool_)
            mask[5, 5] = number == 0
            scorer.update(found * mask.astype(np.float32), mask)
        report = scorer.compute().to_dict()
        scored = SetResult(frames=tuple("abcd"), counts=scorer.images, report=report)
        return result_of(arm, 0, sets={"a": scored})

    difference = contrast_arms([run_of("x", 1), run_of("y", 0)], {"x": 1, "y": -1})["pd"]
    assert difference.value == 1
    assert difference.interval == (1, 1)


@pytest.mark.parametrize("qualities", [(0.8, 0.8), (0.0, 0.0)])
def test_arms_that_are_equal_in_every_frame_are_not_judged(qualities: tuple[float, float]) -> None:
    runs = [make_run("x", seed, qualities[0]) for seed in range(3)]
    runs += [result_of("y", run.seed, sets=run.sets) for run in runs]
    assert _verdict(contrast_arms(runs, {"x": 1.0, "y": -1.0})).startswith("equal in every frame")
    runs[0] = make_run("x", 0, 0.5)
    assert _verdict(contrast_arms(runs, {"x": 1.0, "y": -1.0})) == "no difference shown"


def test_each_data_set_is_drawn_by_itself() -> None:
    alone = [make_run(arm, 0, quality, sets=("a",)) for arm, quality in (("x", 0.8), ("y", 0.7))]
    twice = [result_of(r.arm, 0, sets={"a": r.sets["a"], "b": r.sets["a"]}) for r in alone]
    widths = [
        np.ptp(contrast_arms(runs, {"x": 1.0, "y": -1.0})["iou"].interval)
        for runs in (alone, twice)
    ]
    assert widths[1] / widths[0] == pytest.approx(0.5**0.5, abs=0.07)
