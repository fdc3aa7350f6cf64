"""Pd against Fa at thresholds that a set's own scores give.

A network may put all its scores between 0.9999 and 1, or none above 0.01: no fixed thresholds tell
its targets from its false alarms. So the highest pixels of each map are kept, and thresholds are
chosen among their values when all maps are there. Ours.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
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

Count = Callable[[Components, Pixels], tuple[int, int]]
"""Maps true components and predicted pixels to matches and false pixels."""


@dataclass(frozen=True, eq=False)
class HighPixels:
    """The highest pixels of one map.

    Attributes:
        pixels: Those above `floor`.
        floor: A value of the map, or 0: below it the map counts as just below it.
        below: Matches and false pixels there.
        true: The components of its mask.
        size: Pixels of the map.
    """

    pixels: Pixels
    floor: float
    below: tuple[int, int]
    true: Components
    size: int


def keep_high_pixels(probability: NDArray[Any], true: Components, count: Count) -> HighPixels:
    """Keep what a curve needs of an (H, W) map: its highest 64th, at least 1024 pixels.

    A threshold that as many pixels exceed is far from any use: most of them are false.

    Args:
        probability: (H, W) in [0, 1].
        true: The components of its mask.
        count: See `Count`.
    """
    pixels = pixels_above(probability, 0)
    most = max(_LEAST_KEPT, probability.size // _KEPT_SHARE) + 2 * len(true.number)
    if len(pixels) <= most:
        return HighPixels(pixels, 0.0, (0, 0), true, probability.size)
    floor = np.partition(pixels.value, -most)[-most]
    reached = pixels.value >= floor
    below = count(true, Pixels(pixels.position[reached], pixels.value[reached], pixels.shape))
    # A copy, so that the whole map can go.
    return HighPixels(pixels.above(float(floor)), float(floor), below, true, probability.size)


def trace_curve(
    maps: list[HighPixels], threshold: float, count: Count
) -> tuple[tuple[float, ...], IntArray]:
    """Choose thresholds for a set of maps and count at each.

    The first ones leave 1, 2, 4, 8 ... of the different values above them. Then the two neighbors
    between which most of the area is open get their middle value between them, until hardly any
    is open or there are `POINTS`.

    Args:
        maps: The set, in any order.
        threshold: One that is to be among them.
        count: See `Count`.

    Returns:
        Rising thresholds in [0, 1), and (K, 2) matches and false pixels summed over the maps.
    """
    values = [each.pixels.value.astype(np.float64) for each in maps]
    floors = [each.floor for each in maps]
    levels = np.unique(np.concatenate([*values, floors, [0.0, threshold]]))
    levels = levels[levels < 1]
    counts: dict[int, tuple[int, int]] = {}  # by the place of the threshold in levels
    memory: list[dict[int, tuple[int, int]]] = [{} for _ in maps]  # by the pixels above it
    places: list[int] = []

    def look(place: int) -> None:
        matches = false_pixels = 0
        for each, known in zip(maps, memory, strict=True):
            level = float(levels[place])
            if level < each.floor:
                found = each.below
            else:
                pixels = each.pixels.above(level)
                found = known.get(len(pixels)) or count(each.true, pixels)
                known[len(pixels)] = found
            matches, false_pixels = matches + found[0], false_pixels + found[1]
        counts[place] = matches, false_pixels
        insort(places, place)

    if len(levels) <= POINTS:
        first = set(range(len(levels)))
    else:
        last = len(levels) - 1
        first = {max(0, last - 2**power + 1) for power in range(last.bit_length() + 1)}
        first.add(bisect_left(levels, threshold))  # type: ignore[arg-type]
    for place in sorted(first):
        look(place)
    limit = ROC_LIMIT * sum(each.size for each in maps)
    targets = max(1, sum(len(each.true) for each in maps))
    while len(places) < POINTS:
        open_area, place = (
            max(
                (_open_area(counts[low], counts[high], limit, targets), (low + high) // 2)
                for low, high in zip(places, places[1:], strict=False)
                if high - low > 1
            )
            if any(b - a > 1 for a, b in zip(places, places[1:]))
            else (0.0, 0)
        )
        if open_area < _ENOUGH:
            break
        look(place)
    rows = np.array([counts[place] for place in places], dtype=np.int64).reshape(-1, 2)
    return tuple(float(levels[place]) for place in places), rows


def _open_area(low: tuple[int, int], high: tuple[int, int], limit: float, targets: int) -> float:
    """What thresholds between two may change of the area, in [0, 1]."""
    step = abs(min(low[1], limit) - min(high[1], limit)) / limit
    return step * abs(low[0] - high[0]) / targets
