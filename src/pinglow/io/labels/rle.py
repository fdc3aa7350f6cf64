"""COCO's run-length codes of masks, read; `pinglow.rle` writes them."""

from __future__ import annotations

from typing import Any

from pinglow.errors import DataError
from pinglow.io.labels.boxes import Shape
from pinglow.io.labels.marks import expand_runs
from pinglow.structures import BoolArray


def decode_rle(code: Any, shape: Shape, place: str) -> BoolArray:
    """(H, W) bool of COCO's RLE, compressed or a list of counts.

    Args:
        code: What the file has: a table of ``size`` and ``counts``.
        shape: (H, W) of the frame.
        place: What an error calls it.

    Raises:
        DataError: It is of another size, or no such code.
    """
    size, counts = code.get("size"), code.get("counts")
    if size != [shape[0], shape[1]]:
        raise DataError(
            f"{place} is a run-length code for a mask of size {_say(size)}, but the frame has "
            f"{[shape[0], shape[1]]} (height, width): use the label of this frame"
        )
    if isinstance(counts, str):
        counts = _parse_counts(counts, place)
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise DataError(f"{place} is a run-length code without counts: export it again")
    total = shape[0] * shape[1]
    return expand_runs(counts, total, place).reshape(shape[1], shape[0]).T


def _say(size: Any) -> str:
    return str(size)[:40]


def _parse_counts(text: str, place: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise DataError(f"{place} is no compressed run-length code of COCO: export it again")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise DataError(f"{place} is a run-length code that was cut short: export it again")
    return counts
