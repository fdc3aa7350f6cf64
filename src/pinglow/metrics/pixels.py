"""Pixels: one checked image as a sparse list, and its overlap with another.

Probability maps of small targets are almost empty, so everything after the first look at an image
works on the list of its pixels above the lowest threshold. Lists for higher thresholds are subsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pixels:
    """Some pixels of one map, in raster order.

    Attributes:
        position: (P,) ``row * W + column`` of each pixel, increasing.
        value: (P,) value of each pixel, in the map's own type.
        shape: (H, W) of the map.
    """

    position: IntArray
    value: NDArray[Any]
    shape: tuple[int, int]

    def __len__(self) -> int:
        """Return the number of pixels."""
        return len(self.position)

    def above(self, threshold: float) -> Pixels:
        """Return the pixels whose value is above a threshold; itself if that is all of them."""
        keep = _is_above(self.value, threshold)
        if keep.all():
            return self
        return Pixels(self.position[keep], self.value[keep], self.shape)


def pixels_above(values: NDArray[Any], threshold: float) -> Pixels:
    """List the pixels of an (H, W) map that are above a threshold."""
    position = np.flatnonzero(_is_above(values, threshold))
    height, width = values.shape
    return Pixels(position, values.ravel()[position], (height, width))


def _is_above(values: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Compare exactly but in the values' own type, which is fast.

    Where rounding to that type moves the threshold up, the rounded value is itself above it.
    """
    rounded = values.dtype.type(threshold)
    moved_up = float(rounded) > threshold  # float(): or the threshold is rounded once more here
    return np.asarray(values >= rounded if moved_up else values > rounded)


def shared_pixels(first: Pixels, second: Pixels) -> tuple[IntArray, IntArray]:
    """Find the pixels that two lists share, as indices into the first and into the second list.

    The first should be the shorter one: it is looked up in the second.
    """
    index = np.searchsorted(second.position, first.position)
    inside = np.flatnonzero(index < len(second))
    hit = inside[second.position[index[inside]] == first.position[inside]]
    return hit, index[hit]


def check_probability(probability: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a probability map as a floating (H, W) array if it fits its mask.

    Raises:
        DataError: Its shape is not the mask's, or a value is outside [0, 1] (logits, gray levels)
            or not a number.
    """
    if probability.shape != shape or probability.ndim != 2:
        raise DataError(
            f"A probability map of shape {probability.shape} does not fit its mask of shape "
            f"{shape}: both must be (H, W) of one size."
        )
    if not np.issubdtype(probability.dtype, np.floating):
        probability = probability.astype(np.float64)
    low, high = probability.min(initial=0), probability.max(initial=0)
    if not (low >= 0 and high <= 1):  # NaN lands here too
        raise DataError(
            f"A probability map holds values from {low:.4g} to {high:.4g}: bring it into [0, 1] "
            "(sigmoid of logits, gray levels / 255) before scoring."
        )
    return probability
