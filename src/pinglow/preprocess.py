"""From a frame's counts to the network's input: the same in training, evaluation and inference.

Ours; docs/decisions/normalization.md says why.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage, sparse

from pinglow.border import hide_border
from pinglow.structures import BoolArray, FloatArray

NORMALIZATION: Final = "median-spread-asinh"
"""Name of `normalize_frame`'s rule, as weights record it."""

Place = tuple[slice, slice]
"""Rows and columns of a frame."""

_Middle = tuple[float, float, bool]

_WHOLE: Final = slice(None), slice(None)
_GAUSSIAN_SPREAD: Final = 3.29  # 5th to 95th percentile of a Gaussian, in standard deviations
_MOST_PIXELS: Final = 2**20  # statistics of a larger frame come from an even grid of its pixels
_TOO_WIDE: Final = 5.0  # spreads of a region, from which on the frame's own hides its targets
_FAR_APART: Final = 4.5  # spreads between two regions' medians; nearer ones overlap
_QUICK_PIXELS: Final = 2**14  # are enough to see that a frame has one temperature
_LEAST_REGION: Final = 0.05  # of the frame; less does not move its middle 90 %
_LEAST_PART: Final = 0.01  # of the frame; a smaller part of a region may be a target


@dataclass(frozen=True)
class Normalization:
    """How the counts of one frame become a network's input, for the whole frame or any part of it.

    Attributes:
        median: Counts that become 0; NaN and infinite pixels are taken for it.
        spread: Counts that become 1; 0 for a constant frame, which becomes all 0.
        warm: The next warmer region of a frame of several temperatures, which has its own.
    """

    median: float
    spread: float
    warm: WarmRegion | None = None

    def __call__(self, frame: NDArray[Any], place: Place = _WHOLE) -> FloatArray:
        """asinh((counts - median) / spread) of the pixels (h, w) at a place; float32."""
        counts = frame[place]
        image = self._scale(counts)
        warm = self.warm
        while warm is not None:
            there = warm.covers(frame, place)
            image = np.where(there, warm.normalization._scale(counts), image)
            warm = warm.normalization.warm
        return image

    def _scale(self, counts: NDArray[Any]) -> FloatArray:
        if not self.spread > 0:
            return np.zeros(counts.shape, dtype=np.float32)
        # Above 16 bits, float32 would make neighboring counts equal.
        values = np.asarray(counts, dtype=np.result_type(counts.dtype, np.float32))
        if not np.issubdtype(counts.dtype, np.integer):
            values = np.where(np.isfinite(values), values, values.dtype.type(self.median))
        kind = values.dtype.type
        with np.errstate(over="ignore"):
            scaled = (values - kind(self.median)) / kind(self.spread)
        if not np.isfinite(scaled).all():  # a pixel near the end of its number type
            scaled = scaled.clip(np.finfo(kind).min, np.finfo(kind).max)
        return np.asarray(np.arcsinh(scaled), dtype=np.float32)


@dataclass(frozen=True)
class WarmRegion:
    """The warmer regions of a frame of several temperatures, such as ground under a sky.

    Attributes:
        normalization: For its counts; it has the next region, if there is one.
        threshold: Counts below it.
        cells: (ceil(H / cell), ceil(W / cell)) bool, those of the region and of warmer ones.
        cell: Side of a cell, pixels.
    """

    normalization: Normalization
    threshold: float
    cells: BoolArray
    cell: int

    def covers(self, frame: NDArray[Any], place: Place) -> BoolArray:
        """(h, w) bool: which pixels of a place are in the region."""
        if self.cell == 1:
            return self.cells[place]
        rows, columns = (
            np.arange(length)[part] // self.cell
            for length, part in zip(frame.shape, place, strict=True)
        )
        grid = np.ix_(rows, columns)
        # Cells at the region's border hold pixels of both.
        mixed = ndimage.maximum_filter(self.cells, 3) != ndimage.minimum_filter(self.cells, 3)
        return np.where(mixed[grid], frame[place] > self.threshold, self.cells[grid])


def measure_frame(frame: NDArray[Any]) -> tuple[Normalization, ...]:
    """Find a frame's normalization: the median and the spread of its middle 90 %.

    So neither a hot target nor a dead pixel moves it, nor do rows of telemetry. Two floors are for
    flat frames: a tenth of the standard deviation where those 90 % are one value, and half a
    count where all counts are whole numbers (flicker of the last bit is not signal). A frame of
    more than a million pixels is measured on an even grid. NaN and infinite pixels do not count.

    A frame of several temperatures, such as a sky over hot ground, has a spread in which dim
    targets vanish. Where it is more than five times that of one of its regions, which are far
    apart, there is a second normalization, each region's by itself.

    Args:
        frame: (H, W), any number type.

    Returns:
        The frame's normalization, and that by regions if there are several.
    """
    stride = max(1, int(np.ceil(np.sqrt(frame.size / _MOST_PIXELS))))
    grid = frame[::stride, ::stride]
    sample = np.asarray(grid, dtype=np.result_type(frame.dtype, np.float32))
    finite = sample[np.isfinite(sample)]
    if not finite.size:  # the grid missed the few that there are
        finite = frame[np.isfinite(frame)]
    if not finite.size:
        return (Normalization(0.0, 0.0),)
    floor = 0.5 if np.array_equal(finite, np.rint(finite)) else 0.0
    median, middle, _ = _middle(finite)
    with np.errstate(over="ignore"):
        spread = max(middle or float(finite.std(dtype=np.float64)) / 10, floor)
    whole = Normalization(median, spread)
    by_region = _find_regions(sample, spread, floor, stride)
    return (whole,) if by_region is None else (whole, by_region)


def _middle(values: NDArray[Any]) -> _Middle:
    """Median and spread of the middle 90 %, and whether the median is at an end of it."""
    low, median, high = np.percentile(values, [5, 50, 95])
    return float(median), float((high - low) / _GAUSSIAN_SPREAD), bool(median in (low, high))


def _find_regions(
    sample: NDArray[np.floating[Any]], spread: float, floor: float, cell: int
) -> Normalization | None:
    """The normalization by regions, or None where the frame is better normalized as one."""

    def normalize(parts: Sequence[NDArray[Any]]) -> list[Normalization] | None:
        middles = [_middle(part) for part in parts]
        if not all(itertools.starmap(_are_far_apart, itertools.pairwise(middles))):
            return None
        found = [  # of clipped counts nobody knows the spread
            Normalization(median, spread if clipped else max(middle, floor))
            for median, middle, clipped in middles
        ]
        return found if spread > _TOO_WIDE * min(each.spread for each in found) else None

    step = max(1, int(np.sqrt(sample.size / _QUICK_PIXELS)))
    few = sample[::step, ::step]
    few = few[np.isfinite(few)]
    thresholds = _find_gaps(few, _LEAST_REGION * few.size)
    if not thresholds or normalize(_parts(few, thresholds)) is None:
        return None
    known = np.isfinite(sample)
    regions = []  # each holds the next
    for threshold in thresholds:
        warm = sample > threshold
        for kind in (True, False):
            warm ^= _small_parts(warm == kind, _LEAST_PART * sample.size)
        regions.append(warm)
    numbers = np.sum(regions, axis=0)[known]
    parts = [sample[known][numbers == number] for number in range(len(regions) + 1)]
    if min(part.size for part in parts) <= _LEAST_REGION * numbers.size:
        return None
    found = normalize(parts)
    if found is None:
        return None
    normalization = found.pop()
    while regions:
        region = WarmRegion(normalization, thresholds.pop(), regions.pop(), cell)
        normalization = replace(found.pop(), warm=region)
    return normalization


def _find_gaps(values: NDArray[Any], least: float) -> list[float]:
    """Thresholds between temperatures that are far apart and have more than so many values each."""
    threshold = _otsu(values)
    cold, warm = values[values <= threshold], values[values > threshold]
    if min(cold.size, warm.size) <= least:
        return []
    middles = [_middle(cold), _middle(warm)]
    if not _apart(*middles) > _FAR_APART * min(middle for _, middle, _ in middles):
        return []  # neither side is of one temperature, as in ordinary frames
    below, above = _find_gaps(cold, least), _find_gaps(warm, least)
    if below:
        middles[0] = _middle(cold[cold > below[-1]])
    if above:
        middles[1] = _middle(warm[warm <= above[0]])
    narrow = min((middle for _, middle, clipped in middles if not clipped), default=np.inf)
    if not _are_far_apart(*middles) or not _middle(values)[1] > _TOO_WIDE * narrow:
        return []
    return [*below, threshold, *above]


def _apart(cold: _Middle, warm: _Middle) -> float:
    return warm[0] - cold[0]


def _are_far_apart(cold: _Middle, warm: _Middle) -> bool:
    return _apart(cold, warm) > _FAR_APART * max(cold[1], warm[1])


def _parts(values: NDArray[Any], thresholds: Sequence[float]) -> list[NDArray[Any]]:
    """The values up to the first of rising thresholds, up to the next, and so on."""
    numbers = np.sum([values > each for each in thresholds], axis=0, dtype=np.intp)
    return [values[numbers == number] for number in range(len(thresholds) + 1)]


def _small_parts(region: BoolArray, least: float) -> BoolArray:
    """The pixels of a region (H, W) that are in connected parts of less than so many pixels."""
    labels, count = ndimage.label(region)
    small = np.bincount(labels.ravel(), minlength=count + 1) < least
    small[0] = False
    return np.asarray(small[labels])


def _otsu(values: NDArray[Any]) -> float:
    """The threshold that leaves the least variance on both sides (Otsu, 1979)."""
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 0.0)
    if not high > low:
        return float(low)
    # From 0 on, since 256 edges may not differ near large counts.
    counts, edges = np.histogram(values.clip(low, high) - low, bins=256, range=(0, high - low))
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]  # never 0, nor all: both ends hold values
    sums = np.cumsum(counts * centers)[:-1]
    gap = (counts @ centers) / counts.sum() * below - sums
    between = gap**2 / (below * (counts.sum() - below))
    best = np.flatnonzero(between >= between.max())
    return float(low + edges[best[[0, -1]] + 1].mean())  # in the middle, where a gap is empty


def normalize_frame(frame: NDArray[Any]) -> FloatArray:
    """Counts of any bit depth to about unit spread: asinh((counts - median) / spread).

    asinh is linear for dim structure and logarithmic for bright structure: nothing is clipped, and
    within a region no two counts become equal, in contrast to a conversion to 8 bits. Of a frame
    of several temperatures each region is normalized by itself. NaN and infinite pixels are taken
    as the median, and so is a border that is no picture. See `measure_frame` and
    `pinglow.border.hide_border`.

    Args:
        frame: (H, W), any number type.

    Returns:
        (H, W) float32; all zero for a constant frame.
    """
    frame = hide_border(frame)
    return measure_frame(frame)[-1](frame)


class InputRule(BaseModel):
    """How much a frame is enlarged before the network; part of a model's metadata.

    The frame's longer side is brought to ``long_side``, but never enlarged more than
    ``max_scale`` times and never shrunk.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    long_side: int = Field(default=512, ge=32, description="pixels")
    max_scale: float = Field(default=2.0, ge=1, le=16)

    def scale(self, height: int, width: int) -> float:
        """Factor for a frame of this size, in [1, max_scale]."""
        return min(max(self.long_side / max(height, width), 1.0), self.max_scale)


def resample(images: FloatArray, size: tuple[int, int]) -> FloatArray:
    """(N, 1, H, W) to (N, 1, *size): bilinear where larger, means by a triangle where smaller.

    As torch.nn.functional.interpolate with mode "bilinear" and antialias.
    """
    if images.shape[-2:] == size:
        return images
    rows, columns = (_weights(*sides) for sides in zip(images.shape[-2:], size, strict=True))
    # A product is fast over lines that lie in memory one by one: (W, H), then (H, W').
    found = np.empty((len(images), 1, *size), dtype=np.float32)
    for image, resampled in zip(images[:, 0], found[:, 0], strict=True):
        across = columns @ np.ascontiguousarray(image.T)
        resampled[:] = rows @ np.ascontiguousarray(across.T)
    return found


def bring_back(probability: FloatArray, size: tuple[int, int]) -> FloatArray:
    """(N, 1, H, W) in [0, 1] to (N, 1, *size), by means over what becomes one pixel."""
    if probability.shape[-2:] == size:
        return probability
    # Weights add up to 1 only up to rounding.
    return resample(probability, size).clip(0, 1)


@functools.lru_cache(maxsize=64)
def _weights(length: int, wanted: int) -> sparse.csr_array:
    """(wanted, length), the share of each pixel of a line in each one of the wanted line."""
    step = length / wanted
    reach = max(step, 1.0)  # of the triangle around a pixel's center, to each side
    centers = (np.arange(wanted) + 0.5) * step
    first = np.floor(centers - reach).astype(int)
    taps = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)  # (wanted, taps)
    shares = np.maximum(1 - np.abs(taps + 0.5 - centers[:, None]) / reach, 0)
    shares[(taps < 0) | (taps >= length)] = 0
    shares /= shares.sum(axis=1, keepdims=True)
    row, tap = np.nonzero(shares)
    values = shares[row, tap].astype(np.float32)
    return sparse.csr_array((values, (row, taps[row, tap])), shape=(wanted, length))
