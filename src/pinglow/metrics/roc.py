"""Pd against Fa at thresholds that a set's own scores give.

A network may put all its scores between 0.9999 and 1, or none above 0.01: no fixed thresholds tell
its targets from its false alarms. So the highest pixels of each map are kept, and thresholds are
chosen among their values when all maps are there. What a map counts further down is known at a few
fixed thresholds, so that no point of the curve is a guess. Ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.metrics.matching import Components
from pinglow.metrics.pixels import IntArray, Pixels, pixels_above
from pinglow.metrics.report import ROC_LIMIT

POINTS: Final = 64
"""Most thresholds of a curve; all of the values where there are no more."""

_ENOUGH: Final = 1e-4  # of the area: what is left between neighbors is not looked at
_KEPT_SHARE: Final = 64  # one pixel of so many is kept, the highest ones
_LEAST_KEPT: Final = 1024
_LADDER: Final = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Thresholds at which a map is counted as a whole where it has more pixels than are kept."""

Counts = tuple[int, int, int]
"""Matches, false pixels, predicted components."""

Count = Callable[[Components, Pixels], Counts]
"""Maps true components and predicted pixels to their `Counts`."""


@dataclass(frozen=True, eq=False)
class HighPixels:
    """The highest pixels of one map.

    Attributes:
        pixels: Those above `floor`.
        floor: The highest value that is not kept, or 0.
        below: Matches and false pixels at each of the fixed thresholds below the floor.
        true: The components of its mask.
        size: Pixels of the map.
    """

    pixels: Pixels
    floor: float
    below: dict[float, Counts]
    true: Components
    size: int


def keep_high_pixels(
    probability: NDArray[Any], true: Components, threshold: float, count: Count
) -> HighPixels:
    """Keep what a curve needs of an (H, W) map: its highest 64th, at least 1024 pixels.

    A threshold that more pixels exceed is far from any use: most of them are false.

    Args:
        probability: (H, W) in [0, 1].
        true: The components of its mask.
        threshold: One that is to be on the curve, whatever lies above it.
        count: See `Count`.
    """
    pixels = pixels_above(probability, 0)
    most = max(_LEAST_KEPT, probability.size // _KEPT_SHARE) + 2 * len(true.number)
    if len(pixels) <= most:
        return HighPixels(pixels, 0.0, {}, true, probability.size)
    floor = float(np.partition(pixels.value, -most - 1)[-most - 1])
    below = {
        level: count(true, pixels.above(level)) for level in {*_LADDER, threshold} if level < floor
    }
    # A copy, so that the whole map can go.
    return HighPixels(pixels.above(floor), floor, below, true, probability.size)


def trace_curve(
    maps: list[HighPixels], threshold: float, count: Count
) -> tuple[tuple[float, ...], IntArray]:
    """Choose thresholds for a set of maps and count at each.

    The first ones leave 1, 4, 16, 64 ... of the different values above them. Then the two neighbors
    between which most of the area is open get their middle value between them, until hardly any
    is open or there are `POINTS`.

    Args:
        maps: The set, in any order.
        threshold: One that is to be among them.
        count: See `Count`.

    Returns:
        Rising thresholds in [0, 1), and (K, N, 3) `Counts` of each of the N maps.
    """
    base = max((each.floor for each in maps), default=0.0)  # from here on all is known of each
    values = [each.pixels.value.astype(np.float64) for each in maps]
    known = np.concatenate([*values, [base]])
    fixed = [level for level in _LADDER if level < base]
    levels = np.unique(np.concatenate([known[known >= base], fixed, [0.0, threshold]]))
    levels = levels[levels < 1]
    curve = _Curve(maps, levels, count)
    last = len(levels) - 1
    first = {max(0, last + 1 - 4**power) for power in range(last.bit_length() // 2 + 2)}
    if last < POINTS:
        first = set(range(last + 1))
    for place in first.union(np.searchsorted(levels, [*fixed, threshold]).tolist()):
        curve.look(place)
    while len(curve.counts) < POINTS:
        place = curve.widest_gap()
        if place is None:
            break
        curve.look(place)
    places = sorted(curve.counts)
    rows = np.array([curve.counts[place] for place in places], dtype=np.int64)
    return tuple(levels[places].tolist()), rows.reshape(len(places), len(maps), 3)


class _Curve:
    """Counts of maps at some of many levels, by the level's place among them."""

    def __init__(self, maps: list[HighPixels], levels: NDArray[np.float64], count: Count) -> None:
        self.counts: dict[int, list[Counts]] = {}
        self._sums: dict[int, tuple[int, int]] = {}  # matches and false pixels
        self._maps, self._levels, self._count = maps, levels, count
        self._known: list[dict[int, Counts]] = [{} for _ in maps]  # by number of pixels
        self._limit = ROC_LIMIT * sum(each.size for each in maps)
        self._targets = max(1, sum(len(each.true) for each in maps))

    def look(self, place: int) -> None:
        """Count at a level."""
        found = [*map(partial(self._count_map, float(self._levels[place])), range(len(self._maps)))]
        self.counts[place] = found
        self._sums[place] = sum(each[0] for each in found), sum(each[1] for each in found)

    def _count_map(self, level: float, number: int) -> Counts:
        one, known = self._maps[number], self._known[number]
        if level < one.floor:
            return one.below[level]
        pixels = one.pixels.above(level)
        if len(pixels) not in known:
            known[len(pixels)] = self._count(one.true, pixels)
        return known[len(pixels)]

    def widest_gap(self) -> int | None:
        """The place in the middle of the neighbors that leave most of the area open."""
        gaps = [
            (self._open_area(low, high), (low + high) // 2)
            for low, high in pairwise(sorted(self.counts))
            if high - low > 1
        ]
        area, place = max(gaps, default=(0.0, 0))
        return place if area > _ENOUGH else None

    def _open_area(self, low: int, high: int) -> float:
        """What levels between two may change of the area, in [0, 1]."""
        (matches, false_pixels), (others, fewer) = self._sums[low], self._sums[high]
        step = abs(min(false_pixels, self._limit) - min(fewer, self._limit))
        return step * abs(matches - others) / (self._limit * self._targets)
