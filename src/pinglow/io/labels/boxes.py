"""What the formats of boxes share: how a box is checked, rounded and written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError

BoxArray = NDArray[np.float64]
"""(n, 4) rows (left, top, width, height) in pixels, pixel i covering [i, i + 1)."""
Shape = tuple[int, ...]
"""(H, W) of a frame in pixels."""

CLASS: Final = "target"
"""The one class that is written."""

_DECIMALS: Final = 6
_UNUSUAL: Final = re.compile(r"_|[^\x00-\x7f]")  # what Python takes in a number and nobody else


def parse_numbers(texts: list[str], place: str, wanted: str, count: int = 4) -> list[float]:
    """So many numbers from texts; ``place`` and ``wanted`` say in the error what is wrong where.

    Raises:
        DataError: They are not so many, or no numbers.
    """
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if any(map(_UNUSUAL.search, texts)):
        numbers = []
    if len(numbers) != count:
        raise DataError(f"{place} is not {wanted} in numbers; mend or take out that box")
    return numbers


def check_shape(place: Path | str, stated: Shape, shape: Shape) -> None:
    """Refuse boxes that were drawn in a frame of another size."""
    if stated != shape:
        raise DataError(
            f"{place} is of a frame of {stated[1]} x {stated[0]}, but the frame has "
            f"{shape[1]} x {shape[0]}; use the boxes of this frame"
        )


def fit_box(box: tuple[float, ...], shape: Shape, place: str) -> tuple[float, ...]:
    """Round a box to 1e-6 px and cut it to the frame."""
    if not all(math.isfinite(value) for value in box):
        raise DataError(f"{place} has a box of NaN or infinity; mend or take out that box")
    left, top, width, height = (round(value, _DECIMALS) for value in box)
    if width <= 0 or height <= 0:
        raise DataError(
            f"{place} has a box of {width:g} x {height:g} px; mend or take out that box"
        )
    x0, y0 = max(left, 0.0), max(top, 0.0)
    x1, y1 = min(left + width, float(shape[1])), min(top + height, float(shape[0]))
    cut = x0, y0, round(x1 - x0, _DECIMALS), round(y1 - y0, _DECIMALS)
    if cut[2] <= 0 or cut[3] <= 0:
        raise DataError(
            f"{place} has a box at x {left:g}, y {top:g} px, outside its frame of "
            f"{shape[1]} x {shape[0]}; mend or take out that box"
        )
    return cut


def stack_boxes(rows: Iterable[tuple[float, ...]]) -> BoxArray:
    """Rows (left, top, width, height), or none at all, as an (n, 4) array."""
    return np.array(list(rows), dtype=np.float64).reshape(-1, 4)


def shorten(value: float) -> int | float:
    """A number as short as it can be written to 1e-6."""
    rounded = round(value, _DECIMALS)
    return int(rounded) if rounded == int(rounded) else rounded
