"""PNG: gray counts of 8 and 16 bits, with every checksum verified."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from pinglow.errors import FrameError
from pinglow.io.counts import check_palette, check_size, damaged
from pinglow.io.memory import MemoryFile

_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's color type
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7: Final = (  # first row and column, and steps to the next
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)),
    (1, 0, 2, 1),
)
_PALETTE: Final = 3  # the color type
_LONGEST: Final = 1_000_000  # side that libpng reads
PNG_START: Final = b"\x89PNG\r\n\x1a\n"


def read_png(path: Path | MemoryFile, max_pixels: int) -> NDArray[Any]:
    """(H, W) or (H, W, C) counts of a file."""
    return decode_png(path, path.read_bytes(), max_pixels)


def decode_png(path: Path | MemoryFile, data: bytes, max_pixels: int) -> NDArray[Any]:
    """(H, W) or (H, W, C) counts of an image that is, or is a part of, the file at ``path``."""
    # Not Pillow: it cuts 16-bit RGB, RGBA and LA to 8 bits and does not verify checksums.
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    if len(data) < 33:
        raise damaged(path, "no image header")
    check_size(path, height, width, max_pixels)
    if b"acTL" in data[: data.find(b"IDAT")]:
        raise FrameError(f"{path} is an animation of several frames: save each to a file")
    bare = _keep_pixels(path, data)
    pixels = _decode_passes(path, bare) if data[28] else np.asarray(imagecodecs.png_decode(bare))
    if data[25] == _PALETTE and (pixels == pixels[0, 0]).all():  # else no number is lost
        with PngImagePlugin.PngImageFile(io.BytesIO(bare)) as image:
            check_palette(path, np.array(image), pixels)
    return pixels


def _decode_passes(path: Path | MemoryFile, data: bytes) -> NDArray[Any]:
    """An interlaced image, pass by pass: imagecodecs makes libpng print a warning about a whole."""
    chunks: dict[bytes, bytes] = {}
    place = 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind, content = data[place + 4 : place + 8], data[place + 8 : end - 4]
        if data[end - 4 : end] != struct.pack(">I", zlib.crc32(kind + content)):
            raise damaged(path, f"{kind.decode(errors='replace')}: CRC error")
        chunks[kind] = chunks.get(kind, b"") + content
        place = end
    header, lines = chunks.pop(b"IHDR"), zlib.decompressobj()
    pixels = lines.decompress(chunks.pop(b"IDAT", b""))
    if not lines.eof or len(pixels) != sum(each[-1] for each in _passes(header)):
        raise damaged(path, "fewer pixels than its header claims")
    chunks.pop(b"IEND", None)
    others = b"".join(_chunk(kind, content) for kind, content in chunks.items())
    width, height = struct.unpack_from(">II", header)
    image: NDArray[Any] | None = None
    place = 0
    for top, left, down, right, rows, columns, size in _passes(header):
        stated = struct.pack(">II", columns, rows) + header[8:12] + b"\0"
        content = _chunk(b"IDAT", zlib.compress(pixels[place : place + size], 1))
        whole = PNG_START + _chunk(b"IHDR", stated) + others + content + _chunk(b"IEND", b"")
        part = np.asarray(imagecodecs.png_decode(whole))
        if image is None:
            image = np.empty((height, width, *part.shape[2:]), part.dtype)
        image[top::down, left::right] = part
        place += size
    assert image is not None
    return image


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _passes(header: bytes) -> Iterator[tuple[int, ...]]:
    """Of each pass: first row and column, steps to the next, rows, columns, bytes."""
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * _CHANNELS[color]
    for top, left, down, right in _ADAM7 if interlaced == 1 else ((0, 0, 1, 1),):
        rows, columns = -(-(height - top) // down), -(-(width - left) // right)
        if rows > 0 and columns > 0:
            yield top, left, down, right, rows, columns, rows * (1 + -(-columns * bits // 8))


def _keep_pixels(path: Path | MemoryFile, data: bytes) -> bytes:
    """A PNG without what its pixels do not need; libpng prints what is wrong with the rest."""
    kept, pixels, place = [data[:8]], [], 8
    alone = data.count(b"tRNS") == 1  # sought once: of chunks there may be any number
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        # Needed, or the decoder tells the damage; or which color is transparent.
        transparent = alone and kind == b"tRNS" and _is_transparency(data, place, end)
        if not kind[0] & 0x20 or end > len(data) or transparent:
            kept.append(data[place:end])
        if kind == b"IDAT":
            pixels.append(data[place + 8 : end - 4])
        place = end
    _check_length(path, data, pixels)
    return b"".join([*kept, data[place:]])


def _is_transparency(data: bytes, place: int, end: int) -> bool:
    """Whether libpng takes the only chunk of transparency without a word."""
    sizes = {0: (2,), 2: (6,), 3: range(1, _palette_size(data) + 1)}.get(data[25], ())
    checksum = int.from_bytes(data[end - 4 : end], "big")
    return end - place - 12 in sizes and zlib.crc32(data[place + 4 : end - 4]) == checksum


def _palette_size(data: bytes) -> int:
    place = data.find(b"PLTE")
    return int.from_bytes(data[place - 4 : place], "big") // 3 if place > 0 else 0


def _check_length(path: Path | MemoryFile, data: bytes, pixels: list[bytes]) -> None:
    """Refuse a header, or compressed data longer than its image, that libpng would print about."""
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    depth, color, packing, filtering, interlaced = data[24:29]
    if (
        color not in _CHANNELS
        or depth not in _DEPTHS[color]
        or packing
        or filtering
        or interlaced > 1
        or max(width, height) > _LONGEST
    ):
        raise damaged(path, "its header is none of a PNG")
    expected = sum(each[-1] for each in _passes(data[16:29]))
    decoder, found = zlib.decompressobj(), 0
    try:
        for part in pixels:
            found += len(decoder.decompress(part, expected + 1 - found))
            if found > expected or decoder.unused_data:
                raise damaged(path, "more pixels than its header claims")
    except zlib.error as error:
        raise damaged(path, error) from error
