"""Which score keeps false alarms as rare as wished, and how sure that is: the statistics.

The levels are fixed before anything is seen, and are tested from the strictest on, up to the first
whose bound is above the wish. In such an order each test has the whole error probability, so that
the one level that is chosen needs no correction for how many were looked at.

Sources: the exact bound, Garwood, Fiducial limits for the Poisson distribution (Biometrika, 1936);
the order, Angelopoulos et al., Learn then test, arXiv 2110.01052, section 4; the bounds by clips,
Fay and Feuer (Statistics in Medicine, 1997), and Efron and Tibshirani, An introduction to the
bootstrap (1993), chapter 13.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaincinv

from pinglow.errors import OptionError

LEVELS: Final = tuple(round(float(expit(step / 4)), 8) for step in range(64, -18, -1))
"""The scores that are tried, strict to loose: even steps of log odds from 16 down to -4.25."""

FEWEST_CLIPS: Final = 40
"""Below so many, no bound by clips says much: those that have bursts of alarms may be missing."""

_DRAWS: Final = 4000
_SHOWN: Final = 10  # times the wish, up to which rates are counted: beyond, nobody looks

IntArray = NDArray[np.int64]
RealArray = NDArray[np.float64]


@dataclass(frozen=True)
class Wish:
    """How rare false alarms are to be.

    Attributes:
        alarms: A unit, at most; above 0.
        unit: An hour, or a frame.
        confidence: How sure that is to be, in (0, 1).
    """

    alarms: float
    unit: Literal["hour", "frame"]
    confidence: float = 0.95

    @property
    def needed(self) -> float:
        """Hours or frames without a single alarm that certify it."""
        return -math.log(1 - self.confidence) / self.alarms


@dataclass(frozen=True)
class LevelRate:
    """How often there is an alarm above a score.

    Attributes:
        level: The score, in (0, 1); what is above it is an alarm.
        alarms: Alarms in all of the footage.
        rate: Alarms a unit of exposure, which is an hour or a frame.
        bound: What the rate lies below, with the confidence asked for.
        certified: This level was tested and its bound is within the wish, as of all stricter ones.
    """

    level: float
    alarms: int
    rate: float
    bound: float
    certified: bool


def poisson_bound(alarms: int, exposure: float, confidence: float) -> float:
    """The exact one-sided upper bound of a rate of independent events.

    Args:
        alarms: Events seen, at least 0.
        exposure: Hours or frames in which they were, above 0.
        confidence: How often the bound is above the true rate, at least; in (0, 1).
    """
    return float(gammaincinv(alarms + 1, confidence)) / exposure  # half a quantile of chi-square


def burst_bound(alarms: IntArray, exposure: float, confidence: float) -> float:
    """The upper bound of a rate when events of a clip come together: clips are the events.

    The gamma interval of a sum of weighted Poisson counts; equal to `poisson_bound` where no two
    events share a clip. Source: Fay and Feuer, Statistics in Medicine 16 (1997).

    Args:
        alarms: (clips,) events in each.
        exposure: Hours or frames of all clips, above 0.
        confidence: As of `poisson_bound`; it is kept approximately.
    """
    largest = max(1, int(alarms.max(initial=0)))
    total = float(alarms.sum()) + largest
    spread = float((alarms**2).sum()) + largest**2
    return float(gammaincinv(total**2 / spread, confidence)) * spread / total / exposure


def clip_bound(alarms: IntArray, exposure: RealArray, confidence: float) -> float:
    """The upper bound of a rate when whole clips are drawn anew: events of a clip come together.

    Args:
        alarms: (clips,) events in each.
        exposure: (clips,) hours or frames of each, above 0.
        confidence: The quantile of the rates that are drawn.

    Returns:
        0 where nothing was seen, and for one clip its rate: a bound only beside `poisson_bound`.
    """
    if not alarms.any():
        return 0.0
    pairs = np.stack([alarms.astype(np.float64), exposure], axis=1)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)  # of stills there are a few
    random = np.random.default_rng(0)  # the same draws for each level: bounds fall smoothly
    drawn = random.multinomial(len(pairs), counts / len(pairs), size=_DRAWS) @ kinds
    return float(np.quantile(drawn[:, 0] / drawn[:, 1], confidence))


def try_levels(
    count: Callable[[float], IntArray], exposure: RealArray, wish: Wish
) -> list[LevelRate]:
    """Try `LEVELS` from the strictest on.

    Args:
        count: Alarms above a score in each clip, (clips,).
        exposure: (clips,) hours or frames of each, above 0.
        wish: What the rate is to be.

    Returns:
        The levels that were counted: all that are certified, and as many more as are of use to
        see where the rate goes.
    """
    rates: list[LevelRate] = []
    certified = True
    total = float(exposure.sum())
    before: IntArray | None = None
    bound = 0.0
    for level in LEVELS:
        alarms = count(level)
        seen = int(alarms.sum())
        if before is None or not np.array_equal(alarms, before):
            bound = max(
                poisson_bound(seen, total, wish.confidence),
                burst_bound(alarms, total, wish.confidence),
                clip_bound(alarms, exposure, wish.confidence),
            )
        before = alarms
        certified &= bound <= wish.alarms
        rates.append(LevelRate(level, seen, seen / total, bound, certified))
        if not certified and seen / total > _SHOWN * wish.alarms:
            break
    return rates


def why_none(strictest: LevelRate, exposure: RealArray, wish: Wish) -> str:
    """Why no level is certified, and what helps."""
    total = float(exposure.sum())
    unit = {"hour": "hours", "frame": "frames"}[wish.unit]
    if total < wish.needed:
        return (
            f"the footage has {total:.3g} {unit}, and {wish.needed:.3g} {unit} without a single "
            f"alarm are the least for a rate of {wish.alarms:g} at {100 * wish.confidence:g} % "
            "confidence; give more footage, or wish for less"
        )
    return (
        f"at the highest score there are {strictest.alarms} alarms in {total:.3g} {unit} (bound "
        f"{strictest.bound:.3g}, wished {wish.alarms:g}); see the pictures: what stands still can "
        "be left out with --ignore"
    )


def check_wish(per_hour: float | None, per_frame: float | None, confidence: float) -> Wish:
    """The one rate that is wished.

    Raises:
        OptionError: There are none or two of them, or a value is impossible.
    """
    wishes = {"alarms-per-hour": per_hour, "alarms-per-frame": per_frame}
    given = {name: value for name, value in wishes.items() if value is not None}
    if len(given) != 1:
        raise OptionError(
            "say how rare alarms are to be: give --alarms-per-hour for clips, or "
            "--alarms-per-frame for single frames, one of them"
        )
    [(name, wished)] = given.items()
    if not (math.isfinite(wished) and wished > 0):
        raise OptionError(f"--{name} is {wished}; use a number above 0")
    if not 0.5 <= confidence < 1:
        raise OptionError(f"--confidence is {confidence}; use a value from 0.5 to below 1")
    return Wish(wished, "hour" if per_hour is not None else "frame", confidence)
