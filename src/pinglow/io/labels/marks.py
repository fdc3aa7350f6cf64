"""What an annotation tool marks in a frame: boxes, points and regions, and polygons as pixels.

Coordinates are those of all formats that are read here: (0, 0) is the corner of the top-left pixel,
and pixel i covers [i, i + 1). A pixel is in an outline if its center is; of a center that lies on
an edge, left and upper edges are in, right and lower ones are not, so that outlines that share an
edge share no pixel. An outline around no center is the pixel that its middle is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError
from pinglow.io.labels.boxes import Shape
from pinglow.structures import BoolArray


@dataclass(frozen=True)
class Box:
    """A box, in pixels; the target is somewhere inside."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Point:
    """A point in or near a target, in pixels: (0.5, 0.5) is the middle of the top-left pixel."""

    x: float
    y: float


@dataclass(frozen=True, eq=False)
class Region:
    """The pixels of a target: (h, w) bool, the first of them at column ``left``, row ``top``."""

    left: int
    top: int
    pixels: BoolArray


@dataclass(frozen=True)
class Mark:
    """One mark in a frame.

    Attributes:
        name: Its class, as the file says.
        place: Where in the file it is, as an error says.
        form: What was marked.
    """

    name: str
    place: str
    form: Box | Point | Region


@dataclass(frozen=True)
class LabeledFrame:
    """What a file of labels says of one frame.

    Attributes:
        file_name: Its image, as the file calls it, with slashes.
        source: The file of labels.
        marks: From the frame's (H, W) to its marks; raises DataError where one is wrong. None: the
            file knows the frame, but nobody has labeled it.
    """

    file_name: str
    source: Path
    marks: Callable[[Shape], list[Mark]] | None


_MOST_PIXELS: Final = 2**28  # of a region: more than any frame has
_MOST_OUT: Final = 0.5  # of a frame's side, that an outline may reach out of it


def polygon_region(
    rings: Sequence[Sequence[tuple[float, float]]], shape: Shape, place: str
) -> Region:
    """The pixels whose centers are in one of the rings, each filled by the even-odd rule.

    Args:
        rings: Corners (x, y) of each, in order; the last is joined to the first.
        shape: (H, W) of the frame; what lies outside is cut.
        place: What an error calls it.

    Raises:
        DataError: A ring has fewer than three corners, or one that is no number; or all of it
            lies outside the frame.
    """
    corners = []
    for ring in rings:
        points = np.asarray(ring, dtype=np.float64).reshape(-1, 2)
        if len(points) < 3:
            raise DataError(
                f"{place} is a polygon of {len(points)} points: it needs three; mend or take it out"
            )
        if not np.isfinite(points).all():
            raise DataError(f"{place} has a corner of NaN or infinity: mend or take it out")
        corners.append(points)
    if not corners:
        raise DataError(f"{place} is a polygon without points: mend or take it out")
    check_inside(np.concatenate(corners), shape, place)
    whole = np.concatenate(corners)
    low = np.clip(np.floor(whole.min(axis=0)), 0, (shape[1] - 1, shape[0] - 1)).astype(int)
    high = np.clip(np.ceil(whole.max(axis=0)), low + 1, (shape[1], shape[0])).astype(int)
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    pixels = np.zeros((bottom - top, right - left), dtype=np.bool_)
    for points in corners:
        pixels |= _fill(points - low, pixels.shape)
    if not pixels.any():
        middle = (whole.min(axis=0) + whole.max(axis=0)) / 2
        x, y = np.clip(np.floor(middle).astype(int) - low, 0, high - low - 1).tolist()
        pixels[y, x] = True
    return Region(left, top, pixels)


def _fill(points: NDArray[np.float64], shape: tuple[int, ...]) -> BoolArray:
    """(H, W) bool: centers with an odd number of edges to their left, or right at them."""
    height, width = shape
    crossed = np.zeros((height, width + 1), dtype=np.int64)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = min(y0, y1), max(y0, y1)
        # The rows whose centers y + 0.5 are in [low, high).
        first = max(math.ceil(low - 0.5), 0)
        last = min(math.ceil(high - 0.5), height)
        if first >= last:
            continue
        rows = np.arange(first, last)
        x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        # The first column whose center is at or right of the edge.
        columns = np.clip(np.ceil(np.round(x - 0.5, 9)), 0, width).astype(int)
        np.add.at(crossed, (rows, columns), 1)
    return np.asarray(np.cumsum(crossed, axis=1)[:, :width] % 2 == 1)


def ellipse_region(
    center: tuple[float, float],
    radii: tuple[float, float],
    shape: Shape,
    place: str,
    angle: float = 0.0,
) -> Region:
    """The pixels whose centers are in an ellipse, turned clockwise by an angle in degrees.

    Raises:
        DataError: It has no size, or lies outside the frame.
    """
    (x, y), (a, b) = center, radii
    if not all(map(math.isfinite, (x, y, a, b, angle))) or a <= 0 or b <= 0:
        raise DataError(f"{place} is a circle or ellipse without a size: mend or take it out")
    reach = max(a, b)
    check_inside(np.array([(x - a, y - b), (x + a, y + b)]), shape, place)
    left, top = max(math.floor(x - reach), 0), max(math.floor(y - reach), 0)
    right, bottom = min(math.ceil(x + reach), shape[1]), min(math.ceil(y + reach), shape[0])
    across, down = np.meshgrid(np.arange(left, right) + 0.5 - x, np.arange(top, bottom) + 0.5 - y)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, beside = across * cosine + down * sine, down * cosine - across * sine
    pixels = np.asarray((along / a) ** 2 + (beside / b) ** 2 <= 1)
    if not pixels.any():
        column = min(max(math.floor(x), left), right - 1) - left
        row = min(max(math.floor(y), top), bottom - 1) - top
        pixels[row, column] = True
    return Region(left, top, pixels)


def mask_region(pixels: BoolArray, left: int, top: int, shape: Shape, place: str) -> Region:
    """A region of pixels as they are given, which has to lie inside its frame.

    Raises:
        DataError: It is empty or reaches out of the frame.
    """
    height, width = pixels.shape
    if left < 0 or top < 0 or left + width > shape[1] or top + height > shape[0]:
        raise DataError(
            f"{place} is a mask of {width} x {height} px at x {left}, y {top}, which reaches out "
            f"of its frame of {shape[1]} x {shape[0]}: use the label of this frame"
        )
    if not pixels.any():
        raise DataError(f"{place} is a mask without a pixel: mend or take it out")
    return Region(left, top, pixels)


def trim_region(mask: BoolArray, place: str) -> Region:
    """The pixels of an (H, W) mask of a whole frame, and the smallest box around them.

    Raises:
        DataError: It is empty.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise DataError(f"{place} is a mask without a pixel: mend or take it out")
    left, top = int(columns[0]), int(rows[0])
    return Region(left, top, mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1])


def point_mark(x: float, y: float, shape: Shape, place: str) -> Point:
    """A point, which has to lie in its frame.

    Raises:
        DataError: It lies outside, or is no number.
    """
    if not (0 <= x <= shape[1] and 0 <= y <= shape[0]):
        raise DataError(
            f"{place} has a point at x {x:g}, y {y:g} px, outside its frame of "
            f"{shape[1]} x {shape[0]}: mend or take it out"
        )
    return Point(min(x, shape[1] - 0.5), min(y, shape[0] - 0.5))


def read_coordinates(values: Iterable[Any], place: str, wanted: str) -> list[float]:
    """Finite numbers, from numbers or texts.

    Raises:
        DataError: One is no number; ``wanted`` says in the error what they were to be.
    """
    found = []
    try:
        for value in values:
            if isinstance(value, bool) or not math.isfinite(number := float(value)):
                raise ValueError
            found.append(number)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{place} has no {wanted} in numbers: mend or take it out") from None
    return found


def check_inside(corners: NDArray[np.float64], shape: Shape, place: str) -> None:
    """Refuse an outline that lies outside its frame, or reaches out by more than half of it.

    Raises:
        DataError: It does.
    """
    size = np.array([shape[1], shape[0]], dtype=np.float64)
    low, high = corners.min(axis=0), corners.max(axis=0)
    outside = (high <= 0).any() or (low >= size).any()
    if outside or (low < -_MOST_OUT * size).any() or (high > (1 + _MOST_OUT) * size).any():
        raise DataError(
            f"{place} lies at x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g} px, outside "
            f"its frame of {shape[1]} x {shape[0]}: mend or take it out"
        )


def run_lengths(pixels: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a flat bool array, off and on in turn, off first (it may be 0)."""
    edges = np.flatnonzero(np.diff(pixels.astype(np.int8))) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(pixels)]])).tolist()
    return [0, *runs] if len(pixels) and pixels[0] else runs


def expand_runs(runs: Sequence[int], total: int, place: str) -> BoolArray:
    """A flat bool array from the lengths of its runs, off first.

    Raises:
        DataError: They are not so many pixels together, or one is negative.
    """
    if any(run < 0 for run in runs) or sum(runs) != total or total > _MOST_PIXELS:
        raise DataError(
            f"{place} is a run-length code of {sum(runs)} pixels, but its mask has {total}: use "
            "the label of this frame, or export it again"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.asarray(np.repeat(values, np.asarray(runs, dtype=np.int64)))
