"""Masks that tests make."""

from __future__ import annotations

import numpy as np

from pinglow.structures import BoolArray


def full_mask(shape: tuple[int, int], left: int, top: int, pixels: BoolArray) -> BoolArray:
    """(H, W) bool with pixels put in at a place."""
    mask = np.zeros(shape, dtype=np.bool_)
    mask[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return mask
