"""From a frame's counts to the network's input: the same in training, evaluation and inference.

Ours; docs/decisions/normalization.md says why.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from pinglow.structures import FloatArray

NORMALIZATION: Final = "median-spread-asinh"
"""Name of `normalize_frame`'s rule, as weights record it."""

_GAUSSIAN_SPREAD: Final = 3.29  # 5th to 95th percentile of a Gaussian, in standard deviations
_MOST_PIXELS: Final = 2**20  # statistics of a larger frame come from an even grid of its pixels


@dataclass(frozen=True)
class Normalization:
    """How the counts of one frame become a network's input, for the whole frame or any part of it.

    Attributes:
        median: Counts that become 0.
        spread: Counts that become 1; 0 for a constant frame, which becomes all 0.
        fill: Counts that a NaN or infinite pixel is taken for.
    """

    median: float
    spread: float
    fill: float

    def __call__(self, counts: NDArray[Any]) -> FloatArray:
        """asinh((counts - median) / spread) of an array of any shape; float32."""
        if not self.spread > 0:
            return np.zeros(counts.shape, dtype=np.float32)
        # Above 16 bits, float32 would make neighboring counts equal.
        values = np.asarray(counts, dtype=np.result_type(counts.dtype, np.float32))
        if not np.issubdtype(counts.dtype, np.integer):
            values = np.where(np.isfinite(values), values, values.dtype.type(self.fill))
        kind = values.dtype.type
        with np.errstate(over="ignore"):
            scaled = (values - kind(self.median)) / kind(self.spread)
        if not np.isfinite(scaled).all():  # a pixel near the end of its number type
            scaled = scaled.clip(np.finfo(kind).min, np.finfo(kind).max)
        return np.asarray(np.arcsinh(scaled), dtype=np.float32)


def measure_frame(frame: NDArray[Any]) -> Normalization:
    """Find a frame's normalization: the median and the spread of its middle 90 %.

    So neither a hot target nor a dead pixel moves it, nor do rows of telemetry. Two floors are for
    flat frames: a tenth of the standard deviation where those 90 % are one value, and half a
    count where all counts are whole numbers (flicker of the last bit is not signal). A frame of
    more than a million pixels is measured on an even grid.

    Args:
        frame: (H, W), any number type.
    """
    stride = max(1, int(np.ceil(np.sqrt(frame.size / _MOST_PIXELS))))
    sample = frame[::stride, ::stride]
    sample = np.asarray(sample, dtype=np.result_type(frame.dtype, np.float32))
    fill = 0.0
    if not np.issubdtype(frame.dtype, np.integer):
        finite = sample[np.isfinite(sample)]
        if not finite.size:  # the grid missed the few that there are
            finite = frame[np.isfinite(frame)]
        fill = float(np.percentile(finite, 50, method="lower")) if finite.size else 0.0
        sample = np.where(np.isfinite(sample), sample, sample.dtype.type(fill))
    low, median, high = np.percentile(sample, [5, 50, 95])
    floor = 0.5 if np.array_equal(sample, np.rint(sample)) else 0.0
    middle = (high - low) / _GAUSSIAN_SPREAD or float(sample.std(dtype=np.float64)) / 10
    spread = max(middle, floor)
    return Normalization(float(median), float(spread), fill)


def normalize_frame(frame: NDArray[Any]) -> FloatArray:
    """Counts of any bit depth to about unit spread: asinh((counts - median) / spread).

    asinh is linear for dim structure and logarithmic for bright structure: nothing is clipped and
    no two counts become equal, in contrast to a conversion to 8 bits. NaN and infinite pixels are
    taken as the median. See `measure_frame`.

    Args:
        frame: (H, W), any number type.

    Returns:
        (H, W) float32; all zero for a constant frame.
    """
    return measure_frame(frame)(frame)


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
