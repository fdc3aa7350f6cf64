from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import poisson

from pinglow.errors import OptionError
from pinglow.evaluation.operating_point import (
    LEVELS,
    LevelRate,
    Wish,
    burst_bound,
    check_wish,
    clip_bound,
    poisson_bound,
    try_levels,
    why_none,
)

Count = Callable[[float], NDArray[np.int64]]


@pytest.mark.parametrize("alarms", [0, 1, 3, 40])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_the_bound_is_the_rate_under_which_so_few_are_rare(alarms: int, confidence: float) -> None:
    bound = poisson_bound(alarms, 2.5, confidence)
    assert poisson.cdf(alarms, bound * 2.5) == pytest.approx(1 - confidence, rel=1e-6)


def test_without_alarms_it_is_the_rule_of_three() -> None:
    wish = Wish(0.7, "hour", 0.95)
    assert wish.needed == pytest.approx(-math.log(0.05) / 0.7)
    assert poisson_bound(0, wish.needed, 0.95) == pytest.approx(0.7)


def test_the_bound_of_bursts_is_the_exact_one_where_alarms_are_alone() -> None:
    alone, together = np.repeat([1, 0], [5, 30]), np.repeat([5, 0], [1, 34])
    assert burst_bound(alone, 7.0, 0.95) == pytest.approx(poisson_bound(5, 7.0, 0.95))
    # One burst, of five: as one event, each of weight five.
    assert burst_bound(together, 7.0, 0.95) == pytest.approx(5 * poisson_bound(1, 7.0, 0.95))


def test_bursts_are_bounded_where_the_exact_bound_is_too_low() -> None:
    random = np.random.default_rng(0)
    exact = bursts = 0
    for _ in range(300):
        alarms = random.poisson(5.0, 80) * (random.uniform(size=80) < 0.1)
        exact += poisson_bound(int(alarms.sum()), 80.0, 0.95) >= 0.5
        bursts += burst_bound(alarms, 80.0, 0.95) >= 0.5
    assert exact < 0.8 * 300
    assert bursts > 0.93 * 300


def test_one_clip_says_nothing_about_how_clips_differ() -> None:
    assert clip_bound(np.array([3]), np.array([2.0]), 0.95) == 1.5
    assert clip_bound(np.zeros(40, dtype=np.int64), np.ones(40), 0.95) == 0.0


def test_the_bound_by_clips_is_that_of_drawing_them_one_by_one() -> None:
    random = np.random.default_rng(1)
    alarms, exposure = random.poisson(2, 30), random.uniform(1, 3, 30)
    drawn = []
    for _ in range(4000):
        rows = random.integers(30, size=30)
        drawn.append(alarms[rows].sum() / exposure[rows].sum())
    found = clip_bound(alarms, exposure, 0.95)
    assert found == pytest.approx(float(np.quantile(drawn, 0.95)), rel=0.03)


def test_alarms_that_come_together_widen_it() -> None:
    alone, together = np.ones(40, dtype=np.int64), np.zeros(40, dtype=np.int64)
    together[:2] = 20
    hours = np.full(40, 0.5)
    assert clip_bound(together, hours, 0.95) > poisson_bound(40, 20.0, 0.95)
    assert clip_bound(alone, hours, 0.95) < poisson_bound(40, 20.0, 0.95)


def falling(random: np.random.Generator, rates: Callable[[float], float], hours: float) -> Count:
    """Alarms of ten clips at each level: a Poisson process whose rate the level thins."""
    most = rates(LEVELS[-1])
    scores = [random.uniform(0, most, random.poisson(most * hours)) for _ in range(10)]
    return lambda level: np.array([(each < rates(level)).sum() for each in scores], dtype=np.int64)


def test_the_chosen_level_keeps_the_wish_in_95_of_100_footages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pinglow.evaluation.operating_point._DRAWS", 100)
    monkeypatch.setattr("pinglow.evaluation.operating_point.LEVELS", LEVELS[::4])

    def rates(level: float) -> float:
        return 4 * (1 - level) ** 0.5

    wish, hours = Wish(1.0, "hour", 0.95), np.full(10, 2.0)
    missed = certified = 0
    for seed in range(100):
        count = falling(np.random.default_rng(seed), rates, 2.0)
        chosen = [each for each in try_levels(count, hours, wish) if each.certified]
        certified += bool(chosen)
        missed += bool(chosen) and rates(chosen[-1].level) > 1.0
    assert certified > 97  # it does choose
    assert missed <= 0.05 * 100 + 2.6 * math.sqrt(100 * 0.05 * 0.95)


def test_it_stops_at_the_first_level_that_fails() -> None:
    looser = LEVELS[10]

    def count(level: float) -> NDArray[np.int64]:  # many at one level, none below it
        return np.array([9 if level == looser else 0])

    rates = try_levels(count, np.array([10.0]), Wish(1.0, "hour"))
    assert [each.level for each in rates if each.certified] == list(LEVELS[:10])
    assert len(rates) == len(LEVELS)


def test_far_beyond_the_wish_nothing_is_counted() -> None:
    asked: list[float] = []

    def count(level: float) -> NDArray[np.int64]:
        asked.append(level)
        return np.array([5 * len(asked)])

    try_levels(count, np.array([1.0]), Wish(1.0, "frame"))
    assert len(asked) == 3


def test_levels_fall_and_are_between_0_and_1() -> None:
    assert np.all(np.diff(LEVELS) < 0)
    assert 0 < LEVELS[-1] < 0.1
    assert 0.999999 < LEVELS[0] < 1


def test_why_nothing_is_certified() -> None:
    wish = Wish(1.0, "hour", 0.95)
    short = why_none(LevelRate(LEVELS[0], 0, 0.0, 6.0, False), np.array([0.5]), wish)
    assert "0.5 hours" in short
    assert "3 hours" in short
    noisy = why_none(LevelRate(LEVELS[0], 12, 3.0, 5.0, False), np.array([4.0]), wish)
    assert "12 alarms" in noisy


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((None, None, 0.95), "--alarms-per-hour"),
        ((1.0, 1.0, 0.95), "--alarms-per-hour"),
        ((0.0, None, 0.95), "--alarms-per-hour is 0"),
        ((None, math.nan, 0.95), "--alarms-per-frame is nan"),
        ((1.0, None, 1.0), "--confidence is 1"),
    ],
)
def test_impossible_wishes(arguments: tuple[float | None, float | None, float], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        check_wish(*arguments)
