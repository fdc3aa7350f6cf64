"""Random numbers by their number: the same on every device, in any order, on any share of a batch.

A generator's state would have to be kept, moved and skipped ahead; here a draw is a function of the
seed and of what it is for. Integer arithmetic only, so that a CPU and a GPU agree to the bit.
Sources: splitmix64's finalizer (Steele, Lea and Flood 2014, https://doi.org/10.1145/2714064.2660195)
and lowbias32 (https://nullprogram.com/blog/2018/07/31/).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

_GOLDEN: Final = 0x9E3779B97F4A7C15 - 2**64
_MIX: Final = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_MIX_32: Final = ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32))


def mix(keys: Tensor, number: Tensor | int) -> Tensor:
    """Keys made of other keys and a number: int64, of the shape that the two broadcast to."""
    step = number * _GOLDEN
    if isinstance(step, int):  # wrapped, as tensors do by themselves
        step = (step + 2**63) % 2**64 - 2**63
    x = keys + step + _GOLDEN
    for bits, factor in _MIX:
        x = (x ^ _shift(x, bits)) * factor
    return x ^ _shift(x, 31)


def uniform(keys: Tensor, count: int) -> Tensor:
    """Draws from [0, 1): int64 keys (n,) to (n, count) float64."""
    numbers = torch.arange(count, device=keys.device)
    return _shift(mix(keys[:, None], numbers), 11).double() * 2.0**-53


def normal(keys: Tensor, count: int) -> Tensor:
    """Standard normal draws, none beyond 5.3: int64 keys (n,) to (n, count) float32.

    In 32 bits: of these there is one a pixel.
    """
    x = torch.arange(count, dtype=torch.int32, device=keys.device) + keys[:, None].int()
    other = (keys >> 32)[:, None].int()  # else all rows would be windows of one sequence
    for bits, factor in _MIX_32:
        x ^= _shift(x, bits)
        x *= factor
        x ^= other
    x ^= _shift(x, 16)
    share = _shift(x, 9).float().add_(0.5).mul_(2.0**-22).sub_(1)  # in (-1, 1), both ends out
    return share.erfinv_().mul_(math.sqrt(2))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift integers right, filling up with zeros."""
    width = 8 * x.element_size()
    return (x >> bits) & ((1 << (width - bits)) - 1)
