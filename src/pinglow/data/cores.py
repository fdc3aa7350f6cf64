"""Targets' pixels from boxes and points: the bright or dark core that is grown inside.

Annotators mark small targets with a box or a click, while masks are trained on and scored. The core
of a box is grown from its extreme pixel: neighbors that are above a share of the way from the
surroundings to the extreme, inside the box. The share is the one of `LEVELS` whose core fills the
box best, because a box is drawn around what its annotator took for the target; where none fills it,
the first. That lies under the width at half maximum, because masks are drawn with a blurred edge.

Source: ours; the constants were measured on SIRST's boxes, see docs/guides/labels.md.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.errors import DataError, OptionError
from pinglow.io.labels.boxes import Shape
from pinglow.io.labels.marks import Box, Point, Region
from pinglow.structures import BoolArray, whole_pixels

POLARITIES: Final = ("auto", "bright", "dark")
"""What targets are against their surroundings; auto: whatever differs more from them."""
LEVELS: Final = (0.4, 0.3, 0.2)
"""Shares of the way from the surroundings to the extreme, the first is preferred."""

_RING: Final = 5  # px of surroundings on each side of a box, at least
_SNAP: Final = 2  # px that a click may miss the extreme pixel by
_REACH: Final = 8  # px from a point to the edge of its core, at most
_TIGHT: Final = 0.7  # of a box, that a core has to fill to tell the level
_HIGHER: Final = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # levels at a point, until a core has an end

_SQUARE: Final = np.ones((3, 3), dtype=bool)
_Window = tuple[slice, slice]


def grow_core(frame: NDArray[Any], form: Box | Point, polarity: str, place: str) -> Region:
    """The pixels of the target in a box or at a point.

    Args:
        frame: (H, W) counts; NaN and infinite pixels are never in.
        form: The box, or the point.
        polarity: One of `POLARITIES`.
        place: What an error calls it.

    Raises:
        DataError: Nothing in it differs from its surroundings.
        OptionError: There is no such polarity.
    """
    if polarity not in POLARITIES:
        raise OptionError(f"polarity {polarity!r} is unknown: use {', '.join(POLARITIES)}")
    if isinstance(form, Point):
        return _grow_at(frame, form, polarity, place)
    inside = _box_window(form, frame.shape)
    sides = max(stop.stop - stop.start for stop in inside)
    outer = _widen(inside, max(_RING, sides // 2), frame.shape)
    values = _heights(frame, outer, inside, polarity, place)
    part = _relative(inside, outer)
    top = np.unravel_index(np.argmax(values[part]), values[part].shape)
    cores = [_connected(values[part] > level * values[part][top], top) for level in LEVELS]
    filled = [_bounds_area(core) / core.size for core in cores]
    best = int(np.argmax(filled))
    # Of a box that no core fills, which is drawn loosely, the level cannot be told.
    return _region(cores[best if filled[best] >= _TIGHT else 0], inside)


def _bounds_area(core: BoolArray) -> int:
    rows, columns = (np.flatnonzero(core.any(axis=axis)) for axis in (1, 0))
    return int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))


def _grow_at(frame: NDArray[Any], point: Point, polarity: str, place: str) -> Region:
    """The core at a point, grown at the first level; where it has no end, higher up."""
    row = min(math.floor(point.y), frame.shape[0] - 1)
    column = min(math.floor(point.x), frame.shape[1] - 1)
    center = slice(row, row + 1), slice(column, column + 1)
    near = _widen(center, _SNAP, frame.shape)
    inside = _widen(center, _REACH, frame.shape)
    outer = _widen(inside, _RING, frame.shape)
    values = _heights(frame, outer, near, polarity, place, apart=inside)
    part, seed = _relative(inside, outer), _relative(near, outer)
    first = np.unravel_index(np.argmax(values[seed]), values[seed].shape)
    top = (
        int(first[0]) + near[0].start - inside[0].start,
        int(first[1]) + near[1].start - inside[1].start,
    )
    for level in _HIGHER:
        core = _connected(values[part] > level * values[part][top], top)
        rim = core.copy()
        rim[1:-1, 1:-1] = False
        if not rim.any():
            break
    return _region(core, inside)


def _heights(
    frame: NDArray[Any],
    outer: _Window,
    inside: _Window,
    polarity: str,
    place: str,
    apart: _Window | None = None,
) -> NDArray[np.float64]:
    """A window of the frame as heights above its surroundings, or depths below where it is dark."""
    values = frame[outer].astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    around = values.copy()
    around[_relative(apart or inside, outer)] = np.nan
    part = values[_relative(inside, outer)]
    if np.isnan(part).all():
        raise DataError(f"{place} has no finite pixel in its frame: mend or take it out")
    ground = np.nanmedian(around if np.isfinite(around).any() else values)
    rise, fall = float(np.nanmax(part) - ground), float(ground - np.nanmin(part))
    sign = {"bright": 1, "dark": -1, "auto": 1 if rise >= fall else -1}[polarity]
    if (rise if sign > 0 else fall) <= 0:
        kind = {"bright": "brighter than", "dark": "darker than", "auto": "different from"}[
            polarity
        ]
        raise DataError(
            f"{place} has nothing that is {kind} its surroundings: mend or take it out, or choose "
            "another --polarity"
        )
    return np.nan_to_num(sign * (values - ground), nan=-np.inf, neginf=-np.inf)


def _connected(above: BoolArray, seed: Any) -> BoolArray:
    labels, _ = ndimage.label(above, structure=_SQUARE)
    return np.asarray(labels == labels[seed])


def _box_window(box: Box, shape: Shape) -> _Window:
    spans = []
    for start, length, side in ((box.top, box.height, shape[0]), (box.left, box.width, shape[1])):
        first, end = whole_pixels(start, length)
        first = min(max(first, 0), side - 1)
        spans.append(slice(first, max(first + 1, min(end, side))))
    return spans[0], spans[1]


def _widen(window: _Window, by: int, shape: Shape) -> _Window:
    rows, columns = (
        slice(max(part.start - by, 0), min(part.stop + by, side))
        for part, side in zip(window, shape, strict=True)
    )
    return rows, columns


def _relative(inner: _Window, outer: _Window) -> _Window:
    rows, columns = (
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip(inner, outer, strict=True)
    )
    return rows, columns


def _region(core: BoolArray, window: _Window) -> Region:
    rows, columns = (np.flatnonzero(core.any(axis=axis)) for axis in (1, 0))
    part = core[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Region(window[1].start + int(columns[0]), window[0].start + int(rows[0]), part)
