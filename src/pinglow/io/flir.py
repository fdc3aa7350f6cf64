"""Raw counts of FLIR cameras: radiometric JPEG, FFF, and sequences of it (SEQ, CSQ).

All hold the same blocks: a header, a table of records, and among those the counts as they came
from the detector and the constants that make temperatures of them. How a block is laid out:
https://exiftool.org/TagNames/FLIR.html. The formula and its terms: Tattersall, Thermimage
(https://doi.org/10.5281/zenodo.1069704), after FLIR's own.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.io.counts import (
    MAX_PIXELS,
    Pages,
    check_size,
    damaged,
    looks_swapped,
    name_damage,
)
from pinglow.io.jpeg import JPEG_START, Segment, decode_jpeg, list_segments
from pinglow.io.memory import MemoryFile
from pinglow.io.png import PNG_START, decode_png
from pinglow.terminal import warn_once

FLIR_START: Final = (b"FFF\0", b"AFF\0")

_APP1 = 0xE1
_IN_JPEG = b"FLIR\0"
_BLOCK = re.compile(rb"[AF]FF\0")
_BLOCK_HEADER = 64  # bytes
_RAW, _CAMERA = 1, 32  # kinds of records
_RECORD = 32  # bytes of an entry of the table
_MOST_RECORDS = 1024
_KELVIN = 273.15
_Content = bytes | mmap.mmap


class _Block(NamedTuple):
    """Where a block's records lie: (begin, end) by kind."""

    records: dict[int, tuple[int, int]]
    end: int


@contextmanager
def open_flir(path: Path | MemoryFile, max_pixels: int) -> Iterator[Pages]:
    """The frames of an FFF, SEQ or CSQ file."""
    if not isinstance(path, Path):
        yield _list_frames(path, path.read_bytes(), max_pixels)
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield _list_frames(path, content, max_pixels)


def find_flir_block(path: Path | MemoryFile, segments: Sequence[Segment]) -> bytes | None:
    """The block that lies in a JPEG's segments, several of them if it is long; None: in none.

    Raises:
        FrameError: A segment is missing.
    """
    parts: dict[int, bytes] = {}
    last = 0
    for segment in segments:
        if segment.marker == _APP1 and segment.content.startswith(_IN_JPEG):
            if len(segment.content) < 8:
                raise damaged(path, "a FLIR segment without its number")
            number, last = segment.content[6], segment.content[7]
            parts.setdefault(number, segment.content[8:])
    if not parts:
        return None
    if missing := set(range(last + 1)) - set(parts):
        raise damaged(path, f"FLIR segment {min(missing)} of {last + 1} is missing")
    return b"".join(parts[number] for number in sorted(parts))


def read_flir_block(path: Path | MemoryFile, block: bytes, max_pixels: int) -> NDArray[Any]:
    """(H, W) counts of the block of a radiometric JPEG."""
    frames = _list_frames(path, block, max_pixels)
    warn_once("flir", f"{path}: reading the raw counts in its FLIR segments, not its picture")
    return frames.read(0)


def read_temperature(
    path: str | Path, *, page: int = 0, max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """Make temperatures of the counts of a FLIR file by the constants that the camera put there.

    Targets are found in counts; this is to look at. Emissivity, distance, humidity and the other
    terms are those that were set in the camera.

    Args:
        path: A radiometric JPEG, FFF, SEQ or CSQ file.
        page: Which frame of a sequence, from 0.
        max_pixels: See `read_frame`.

    Returns:
        (H, W) float32, degrees Celsius; NaN where a count has no temperature.

    Raises:
        FrameError: The file cannot be read, is none of FLIR's, or lacks the constants.
    """
    path = Path(path)
    with name_damage(path):
        content: bytes | None = path.read_bytes()
        if content and content.startswith(JPEG_START):
            content = find_flir_block(path, list_segments(content))
        if not content or not content.startswith(FLIR_START):
            raise FrameError(f"{path} holds no raw counts of a FLIR camera: name another file")
        frames = _find_blocks(path, content)
        if not 0 <= page < len(frames):
            raise FrameError(f"{path} has no page {page}: choose 0 to {len(frames) - 1}")
        counts = _read_counts(path, content, frames[page], max_pixels)
        if _CAMERA not in frames[page].records:
            raise _no_constants(path)
        begin, end = frames[page].records[_CAMERA]
        return _celsius(path, content[begin:end], counts)


def _list_frames(path: Path | MemoryFile, content: _Content, max_pixels: int) -> Pages:
    frames = _find_blocks(path, content)
    return Pages(len(frames), lambda page: _read_counts(path, content, frames[page], max_pixels))


def _find_blocks(path: Path | MemoryFile, content: _Content) -> list[_Block]:
    """The blocks with counts, in their order; one that is cut short, too."""
    blocks = []
    found = _BLOCK.match(content)
    while found is not None:
        block = _find_records(content, found.start())
        if block is not None and _RAW in block.records:
            blocks.append(block)
        after = found.end() if block is None else max(found.end(), block.end)
        found = _BLOCK.search(content, after)
    if not blocks:
        raise FrameError(
            f"{path} has a FLIR segment without raw counts, and its picture is made for the eye: "
            "export its counts as a 16-bit TIFF, or name the picture by saving it as PNG"
        )
    return blocks


def _find_records(content: _Content, start: int) -> _Block | None:
    """The records of a block; None: what begins there is none."""
    header = content[start : start + _BLOCK_HEADER]
    if len(header) < _BLOCK_HEADER:
        return None
    orders = (order for order in "><" if 100 <= struct.unpack(f"{order}I", header[20:24])[0] < 200)
    order = next(orders, None)
    if order is None:
        return None
    place, number = struct.unpack(f"{order}II", header[24:32])
    if number > _MOST_RECORDS:
        return None
    records: dict[int, tuple[int, int]] = {}
    end = start + place + number * _RECORD
    for entry in range(start + place, end, _RECORD):
        fields = content[entry : entry + _RECORD]
        if len(fields) < _RECORD:
            break
        kind, _, _, _, offset, length = struct.unpack(f"{order}HHIIII", fields[:20])
        if kind:
            begin = start + offset
            records.setdefault(kind, (begin, begin + length))
    return _Block(records, max([end, *(last for _, last in records.values())]))


def _read_counts(
    path: Path | MemoryFile, content: _Content, block: _Block, max_pixels: int
) -> NDArray[Any]:
    """(H, W) counts of a block: as they are, or in a PNG or JPEG-LS of their own."""
    begin, end = block.records[_RAW]
    if end > len(content):
        raise damaged(path, f"{end - len(content)} bytes of a frame are missing")
    record = content[begin:end]
    order = _byte_order(path, record)
    width, height = struct.unpack(f"{order}HH", record[2:6])
    check_size(path, height, width, max_pixels)
    stored = record[32:]
    if stored.startswith(PNG_START):
        counts = _order_png(decode_png(path, stored, max_pixels))
    elif stored.startswith(JPEG_START):
        counts = decode_jpeg(path, stored, max_pixels)
    else:
        counts = np.frombuffer(stored, f"{order}u2", count=height * width)
        counts = counts.reshape(height, width)
    if counts.shape != (height, width):
        shape = " x ".join(str(side) for side in counts.shape[::-1])
        raise damaged(path, f"{width} x {height} counts claimed, {shape} stored")
    return counts


def _byte_order(path: Path | MemoryFile, record: bytes) -> str:
    """The order of a record, which begins with a 2."""
    orders = {b"\2\0": "<", b"\0\2": ">"}
    if len(record) < 32 or record[:2] not in orders:
        raise damaged(path, "a record of an unknown kind")
    return orders[record[:2]]


def _order_png(counts: NDArray[Any]) -> NDArray[Any]:
    """FLIR stores the lower byte first, against PNG's rule; not where that makes noise of it."""
    if counts.dtype != np.uint16:
        return counts
    swapped = counts.byteswap()
    return counts if looks_swapped(swapped) else swapped


def _no_constants(path: Path | MemoryFile) -> FrameError:
    return FrameError(f"{path} lacks the constants that make temperatures: use its counts")


def _celsius(path: Path | MemoryFile, record: bytes, counts: NDArray[Any]) -> NDArray[np.float32]:
    order = _byte_order(path, record)

    def value(place: int, kind: str = "f") -> float:
        if place + 4 > len(record):
            raise _no_constants(path)
        return float(struct.unpack_from(f"{order}{kind}", record, place)[0])

    emissivity, distance, reflected, air, window, through = (
        value(place) for place in range(0x20, 0x38, 4)
    )
    humidity = value(0x3C)
    r1, b, f = value(0x58), value(0x5C), value(0x60)
    alpha1, alpha2, beta1, beta2, share = (value(place) for place in range(0x70, 0x84, 4))
    offset, r2 = value(0x308, "i"), value(0x30C)
    if not (0 < emissivity <= 1 and 0 < through <= 1 and r1 > 0 and b > 0 and r2 > 0):
        raise _no_constants(path)

    def radiance(kelvin: float) -> float:
        return float(r1 / (r2 * (np.exp(b / kelvin) - f)) - offset)

    celsius = air - _KELVIN
    water = humidity * np.exp(
        1.5587 + 0.06939 * celsius - 0.00027816 * celsius**2 + 0.00000068455 * celsius**3
    )
    half = np.sqrt(distance / 2)  # before the window, and behind it
    clear = share * np.exp(-half * (alpha1 + beta1 * np.sqrt(water))) + (1 - share) * np.exp(
        -half * (alpha2 + beta2 * np.sqrt(water))
    )
    # What reaches the detector besides the object: reflections, the air on both sides, the window.
    besides = (
        (1 - emissivity) * clear * through * clear * radiance(reflected)
        + ((1 - clear) * through * clear + (1 - clear)) * radiance(air)
        + (1 - through) * clear * radiance(window)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        own = (counts - besides) / (emissivity * clear * through * clear)
        kelvin = b / np.log(r1 / (r2 * (own + offset)) + f)
    return np.asarray(kelvin - _KELVIN, dtype=np.float32)
