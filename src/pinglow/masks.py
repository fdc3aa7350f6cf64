"""What a mask means: which of its pixels are targets, told from its values alone.

===========================  =======================================================================
one value beside 0           that is target, whatever it is: 1, 255, 65535
small whole numbers, or      every value above 0 is target: the numbers of targets or of classes
each target of one value
soft edges, JPEG             above half of the maximum is target
colors on black              every color is target
alpha over one color         the mask is in the alpha
===========================  =======================================================================

Anything that has two sensible readings is refused: more than half of the frame in targets (it may
be inverted), a rim of one value around all others (it may be pixels to leave out), 255 beside small
numbers (the same), negative values, several flat values up to 255.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.errors import DataError
from pinglow.structures import BoolArray

Values = NDArray[Any]

MOST_NUMBER: Final = 64
"""Values up to this are numbers of targets: soft edges belong to masks that go far higher."""
FULL_SCALES: Final = (255, 65535)
"""The largest values of integers: targets, or where there are numbers, pixels to leave out."""

_CROSS: Final = ndimage.generate_binary_structure(2, 1)
_SQUARE: Final = ndimage.generate_binary_structure(2, 2)
_DARK: Final = 1 / 16  # of the maximum: the noise of JPEG around black
_COLORED: Final = 64  # levels between the channels of a JPEG; one of gray has hardly any
_ADVICE: Final = "save targets as 255 and everything else as 0"

READINGS: Final = {
    "numbers": "holds several values: every value above 0 is read as target",
    "colors": "is in color: every color but black is read as target",
    "transparent": "is all transparent: its colors are read all the same",
    "alpha": "holds one color all over: its alpha is read as the mask",
}
"""What is said of a mask that is not plain, by the kind of its reading."""


class MaskReading(NamedTuple):
    """What a mask was read as.

    Attributes:
        targets: (H, W) bool.
        kind: A key of `READINGS`, or "soft" or "plain", of which nothing is said.
        top: The largest value, 0 without targets.
    """

    targets: BoolArray
    kind: str
    top: float


def interpret_mask(mask: Values, name: object = "the mask", *, lossy: bool = False) -> MaskReading:
    """Tell which pixels of a published mask are targets; the module's table says how.

    Args:
        mask: (H, W), or (H, W, C) with C = 1 gray, 2 gray-alpha, 3 RGB, 4 RGB-alpha; any type.
        name: What errors call it.
        lossy: It was compressed with loss, so that no value but the brightest is meant.

    Raises:
        DataError: It may be read in two ways, or is no mask at all.
    """
    if mask.dtype == np.bool_ and mask.ndim == 2:
        return MaskReading(mask, "plain", float(mask.any()))
    if lossy and mask.ndim == 3 and np.ptp(mask[..., :3], axis=2).max(initial=0) > _COLORED:
        raise DataError(
            f"{name} is a JPEG in color, which blurs away targets of a few pixels: {_ADVICE}, as "
            "PNG and from before it was a JPEG"
        )
    values, kind = _collapse(mask, name)
    values = _fill_missing(values, name)
    if values.size and values.min() < 0:
        raise DataError(f"{name} holds values below 0, which have no meaning in a mask: {_ADVICE}")
    if lossy and 0 < values.max(initial=0) <= MOST_NUMBER:
        raise DataError(
            f"{name} is a JPEG of values up to {values.max():g}, which loss changes: {_ADVICE}, "
            "as PNG and from before it was a JPEG"
        )
    targets, way = np.zeros(values.shape, dtype=np.bool_), "plain"
    if values.any():
        _refuse_bright(values > values.max() * _DARK, name)
        part = _bounds(values)
        targets[part], way = _split_values(values[part], name, lossy)
        _refuse_bright(targets, name)
    top = float(values.max(initial=0))
    return MaskReading(targets, kind if kind != "plain" else way, top)


def _collapse(mask: Values, name: object) -> tuple[Values, str]:
    """(H, W) values of a mask with channels, and how they were read."""
    if mask.ndim == 2:
        return mask, "plain"
    if mask.ndim != 3 or not 1 <= mask.shape[2] <= 4:
        raise DataError(f"{name} holds an array of shape {mask.shape}: {_ADVICE}, in (H, W)")
    colors, alpha = mask[..., : 3 if mask.shape[2] > 2 else 1], None
    if mask.shape[2] in (2, 4):
        alpha = mask[..., -1]
    if alpha is not None and (alpha != alpha[0, 0]).any():
        if (colors == colors[0, 0]).all():
            return alpha, "alpha"
        if (colors > colors.max() / 2)[alpha == 0].any():
            raise DataError(f"{name} has bright pixels that its alpha hides: {_ADVICE}, no alpha")
    if (colors == colors[..., :1]).all():
        clear = alpha is not None and not alpha.any() and colors.any()
        return colors[..., 0], "transparent" if clear else "plain"
    flat, numbers = np.unique(colors.reshape(-1, colors.shape[2]), axis=0, return_inverse=True)
    numbers = numbers.reshape(mask.shape[:2])
    values = colors.max(axis=2)
    if len(flat) <= MOST_NUMBER:
        numbers = np.where(values > 0, numbers + 1, 0)
        _refuse_rim(numbers, name, lambda number: f"the color {tuple(map(int, flat[number - 1]))}")
        # Shades of one color are its soft edge, colors are targets or classes.
        flat = flat[flat.any(axis=1)].astype(np.float64)
        hues = np.unique(2 * flat > flat.max(axis=1, keepdims=True), axis=0)
        values = np.where(values > 0, values.max(), 0) if len(hues) > 1 else values
    return values, "colors"


def _fill_missing(values: Values, name: object) -> Values:
    """The same without NaN: pixels that were not measured are no targets."""
    if values.dtype.kind != "f":
        return values
    if np.isinf(values).any():
        raise DataError(f"{name} holds infinity, which has no meaning in a mask: {_ADVICE}")
    missing = np.isnan(values)
    if not missing.any():
        return values
    filled = np.where(missing, 0, values)
    if ((values == 0) & ~missing).any() and (filled > 0).any():
        _refuse_rim(np.where(missing, -1, values), name, lambda _: "NaN", only=-1)
    return filled


def _bounds(values: Values) -> tuple[slice, slice]:
    """The part with all that is not 0, and a pixel around it: most masks are nearly empty."""
    sides = (np.flatnonzero(values.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(int(side[0]) - 1, 0), int(side[-1]) + 2) for side in sides)
    return rows, columns


def _split_values(values: Values, name: object, lossy: bool) -> tuple[BoolArray, str]:
    """Targets of (H, W) values from 0, some above it, and how they were told."""
    top = values.max()
    filled = values > 0
    soft = np.asarray(values > top / 2)
    if (filled == (values == top)).all():  # one value beside 0
        return np.asarray(filled), "plain"
    if lossy or (values.dtype.kind == "f" and (values != np.rint(values)).any()):
        _refuse_dim_spots(values, name, lossy=lossy)
        return soft, "soft"
    found = np.unique(values[filled])
    if len(found) <= MOST_NUMBER:
        _refuse_rim(values, name, lambda number: f"the value {number:g}")
    _refuse_void(values, found, name)
    whole, alike = _count_alike(values, filled)
    consecutive = len(found) == top
    if top <= MOST_NUMBER or (consecutive and alike > whole / 2):
        return np.asarray(filled), "numbers"
    if alike == whole and not _is_dotted(values, soft):
        return np.asarray(filled), "numbers"
    _refuse_flat(values, found, name)
    _refuse_dim_spots(values, name, lossy=lossy)
    return soft, "soft"


def _refuse_bright(bright: BoolArray, name: object) -> None:
    """Refuse what is above 0 in more than half of the frame."""
    share = float(bright.mean())
    if share > 0.5:
        raise DataError(
            f"{name} marks {share:.1%} of its frame as target, so it is inverted or no mask: "
            f"{_ADVICE}"
        )


def _refuse_rim(
    values: Values, name: object, say: Callable[[Any], str], only: float | None = None
) -> None:
    """Refuse a value that lies between 0 and all others: a border to leave out, or a target?"""
    beside = ndimage.binary_dilation(values == 0, _CROSS) & (values != 0)
    rim = np.unique(values[beside])
    if len(rim) != 1 or (only is not None and rim[0] != only):
        return
    if ((values != 0) & (values != rim[0])).any():
        raise DataError(
            f"{name} has a rim of {say(rim[0])} around its other values, which may be pixels to "
            f"leave out: {_ADVICE}"
        )


def _refuse_void(values: Values, found: Values, name: object) -> None:
    """Refuse 255 beside small numbers, where it means "leave out" by custom."""
    top = found[-1]
    numbers = found[:-1]
    if top not in FULL_SCALES or numbers[-1] > min(top // 8, MOST_NUMBER):
        return
    inside = (values > 0) & (values < top)
    bound = inside & ~ndimage.binary_dilation(values == 0, _SQUARE)
    # A single stray pixel of a soft edge is no number of a target.
    if (inside.sum() > 1 and bound.sum() == inside.sum()) or _largest_area(inside, values) > 3:
        listed = ", ".join(f"{number:g}" for number in numbers[:4])
        raise DataError(
            f"{name} holds {top:g} beside {listed}, and {top:g} may mean pixels to leave out: "
            f"{_ADVICE}"
        )


def _largest_area(where: BoolArray, values: Values) -> int:
    """Most pixels that touch and have one value, of those in question."""
    largest = 0
    for value in np.unique(values[where]):
        labels, _ = ndimage.label(values == value, _SQUARE)
        largest = max(largest, int(np.bincount(labels.ravel())[1:].max(initial=0)))
    return largest


def _count_alike(values: Values, filled: BoolArray) -> tuple[int, int]:
    """How many targets there are if all above 0 is, and how many of them have one value."""
    labels, count = ndimage.label(filled, _SQUARE)
    index = np.arange(1, count + 1)
    low = ndimage.minimum(values, labels, index)
    return count, int((np.asarray(low) == ndimage.maximum(values, labels, index)).sum())


def _is_dotted(values: Values, soft: BoolArray) -> bool:
    """Whether all that is dim is single pixels, beside larger bright targets: strays."""
    dim = (values > 0) & ~soft
    bright, dark = (
        np.bincount(ndimage.label(where, _SQUARE)[0].ravel())[1:].max(initial=0)
        for where in (soft, dim)
    )
    return bool(dark == 1 < bright)


def _refuse_flat(values: Values, found: Values, name: object) -> None:
    """Refuse values below the maximum that fill areas, as no soft edge does."""
    between = (values > 0) & (values < values.max())
    square = np.ones((2, 2), dtype=np.bool_)
    flat = np.zeros(values.shape, dtype=np.bool_)
    for value in found[:-1] if len(found) <= MOST_NUMBER else []:
        flat |= ndimage.binary_opening(values == value, square)
    if 2 * flat.sum() > between.sum():
        listed = ", ".join(f"{number:g}" for number in found[:6])
        raise DataError(
            f"{name} holds areas of several values ({listed}), and which are targets it does not "
            f"say: {_ADVICE}"
        )


def _refuse_dim_spots(values: Values, name: object, *, lossy: bool) -> None:
    """Refuse spots below half of the maximum, which would be lost.

    JPEG's noise is darker; single pixels are strays, as IRSTD-1k's masks have, but not in color
    JPEG, where they are what is left of a small target.
    """
    top = values.max()
    labels, count = ndimage.label(values > top / (4 if lossy else 8), _SQUARE)
    peaks = np.asarray(ndimage.maximum(values, labels, np.arange(1, count + 1)))
    areas = np.bincount(labels.ravel())[1:]
    lost = (peaks <= top / 2) & (areas > (0 if lossy else 1))
    if lost.any():
        raise DataError(
            f"{name} has {int(lost.sum())} spots of at most half its largest value, which may be "
            f"targets or not: {_ADVICE}"
        )
