"""From a frame's counts to the network's input: the same in training, evaluation and inference.

Ours; docs/decisions/normalisation.md says why.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pinglow.structures import FloatArray

NORMALISATION: Final = "median-spread-asinh"
"""Name of `normalize_frame`'s rule, as weights record it."""

_GAUSSIAN_SPREAD: Final = 3.29  # 5th to 95th percentile of a Gaussian, in standard deviations
_MOST_PIXELS: Final = 2**20  # statistics of a larger frame come from an even grid of its pixels


def normalize_frame(frame: NDArray[Any]) -> FloatArray:
    """Counts of any bit depth to about unit spread: asinh((counts - median) / spread).

    The spread is that of the middle 90 % of the pixels, so that neither a hot target nor a dead
    pixel moves it, with two floors for flat frames: a tenth of the standard deviation, and half a
    count where all counts are whole numbers (flicker of the last bit is not signal). asinh is
    linear for dim structure and logarithmic for bright structure: nothing is clipped and no two
    counts become equal, in contrast to a conversion to 8 bits. NaN and infinite pixels are taken
    as the median.

    Args:
        frame: (H, W), any number type.

    Returns:
        (H, W) float32; all zero for a constant frame.
    """
    # Above 16 bits, float32 would make neighbouring counts equal.
    counts = np.asarray(frame, dtype=np.result_type(frame.dtype, np.float32))
    if not np.issubdtype(frame.dtype, np.integer):
        finite = np.isfinite(counts)
        if not finite.all():
            middle = np.percentile(counts[finite], 50, method="lower") if finite.any() else 0
            counts = np.where(finite, counts, counts.dtype.type(middle))
    stride = max(1, int(np.ceil(np.sqrt(counts.size / _MOST_PIXELS))))
    sample = counts[::stride, ::stride]
    low, median, high = np.percentile(sample, [5, 50, 95])
    floor = 0.5 if np.array_equal(sample, np.rint(sample)) else 0.0
    spread = max((high - low) / _GAUSSIAN_SPREAD, float(sample.std(dtype=np.float64)) / 10, floor)
    if not spread > 0:
        return np.zeros(counts.shape, dtype=np.float32)
    scaled = (counts - counts.dtype.type(median)) / counts.dtype.type(spread)
    return np.asarray(np.arcsinh(scaled), dtype=np.float32)


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
