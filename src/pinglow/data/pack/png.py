"""Take a PNG apart and make it again byte for byte.

Its pixels are behind row filters and zlib. What makes its stream from them is kept: the filter of
each row and zlib's parameters, which are found by trying, as the tool precomp does. The filters are
those of the PNG specification, https://www.w3.org/TR/png-3, section 9.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Bytes = NDArray[np.uint8]
Count = Annotated[int, Field(ge=0)]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLORS: Final = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's color type by the number of channels
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # and the other way; 3 is a palette
_ROWS: Final = 64  # filtered at a time
_STEP: Final = 2**16  # bytes given to zlib at a time


class DamageError(ValueError):
    """What a pack holds is not what was packed."""


class Stored(BaseModel):
    """A part of what a pack says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pixels(Stored):
    """The array of rows x columns x channels that some bytes of a file are."""

    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    channels: int = Field(default=1, ge=1, le=4)
    bits: Literal[8, 16] = 8
    little: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns) or (rows, columns, channels)."""
        return (self.rows, self.columns, self.channels)[: 2 + (self.channels > 1)]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As in the file."""
        return np.dtype(f"{'<' if self.little else '>'}u{self.bits // 8}")

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.columns * self.channels * self.bits // 8


class PngStream(Stored):
    """How the IDAT chunks of a PNG come from its filtered rows.

    Attributes:
        header: The stream's first two bytes.
        level: What zlib was told, as the next three.
        memory: The same.
        strategy: The same.
        window: The same.
        check: Adler-32 of the filtered rows, which ends the stream.
        chunks: Sizes of the IDAT chunks, in bytes.
    """

    header: int = Field(ge=0, lt=2**16)
    level: int = Field(ge=1, le=9)
    memory: int = Field(ge=1, le=9)
    strategy: int = Field(ge=0, le=3)
    window: int = Field(ge=9, le=15)
    check: int = Field(ge=0, lt=2**32)
    chunks: list[Count]

    def deflate(self, rows: bytes) -> Iterator[bytes]:
        """The stream between its first two and its last four bytes, in pieces."""
        packer = zlib.compressobj(
            self.level, zlib.DEFLATED, -self.window, self.memory, self.strategy
        )
        for start in range(0, len(rows), _STEP):
            yield packer.compress(rows[start : start + _STEP])
        yield packer.flush()


class Png(NamedTuple):
    """A PNG taken apart.

    Attributes:
        head: What is before the IDAT chunks.
        tail: What is after them.
        filters: One byte a row.
        raw: The rows without filters: pixels, of less than 8 bits as they lie in bytes.
        pixels: What ``raw`` is an array of.
        stream: How the IDAT chunks come from rows and filters.
    """

    head: bytes
    tail: bytes
    filters: bytes
    raw: bytes
    pixels: Pixels
    stream: PngStream


def split_png(content: bytes, max_pixels: int) -> Png | None:
    """Take apart a PNG that is not interlaced, and that zlib wrote; None: it is another file.

    A damaged one raises anything at all.
    """
    if not content.startswith(_SIGNATURE + b"\0\0\0\rIHDR"):
        return None
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if interlaced or width * height > max_pixels:
        return None
    if depth < 8:  # such a row is filtered as one of 8-bit pixels
        pixels = Pixels(rows=height, columns=(width * depth + 7) // 8)
    else:
        pixels = Pixels(rows=height, columns=width, channels=_CHANNELS[color], bits=depth)
    start = end = content.index(b"IDAT") - 4
    parts = []
    while content[end + 4 : end + 8] == b"IDAT":
        size = int.from_bytes(content[end : end + 4], "big")
        parts.append(content[end + 8 : end + 8 + size])
        end += size + 12
    stream = b"".join(parts)
    inflater = zlib.decompressobj()
    rows = inflater.decompress(stream, height + pixels.size + 1)
    if len(rows) != height + pixels.size or not inflater.eof or inflater.unused_data:
        return None
    found = _find_parameters(rows, stream, [len(part) for part in parts])
    if found is None:
        return None
    filters = rows[:: len(rows) // height]
    raw = _unfilter(pixels, stream)
    return Png(content[:start], content[end:], filters, raw, pixels, found)


def make_idat(pixels: Pixels, stream: PngStream, filters: bytes, raw: bytes, exact: bool) -> bytes:
    """The IDAT chunks of a PNG; see `Png`.

    Args:
        pixels: What ``raw`` is an array of.
        stream: How the chunks were made.
        filters: One byte a row.
        raw: The rows without filters.
        exact: Make them as they were, if this zlib does; off, quickly.

    Raises:
        DamageError: Filters or pixels are not those of the PNG.
    """
    rows = _filter(pixels, filters, raw)
    if zlib.adler32(rows) != stream.check:
        raise DamageError("the checksum of pixels differs")
    if exact:
        header, check = stream.header.to_bytes(2, "big"), stream.check.to_bytes(4, "big")
        content = b"".join([header, *stream.deflate(rows), check])
    else:
        content = zlib.compress(rows, 1)
    sizes = stream.chunks if sum(stream.chunks) == len(content) else [len(content)]
    ends = np.cumsum(sizes).tolist()
    pieces = (content[end - size : end] for size, end in zip(sizes, ends, strict=True))
    return b"".join(_chunk(b"IDAT", piece) for piece in pieces)


def _find_parameters(rows: bytes, stream: bytes, chunks: list[int]) -> PngStream | None:
    """Try what zlib can have been told, by what the stream's header says of it.

    Always in one order: several may give the same stream, and equal folders make equal packs.
    """
    header = int.from_bytes(stream[:2], "big")
    speed = header >> 6 & 3
    stated = max(9, (header >> 12) + 8)
    guesses = [
        {"level": level, "memory": memory, "strategy": strategy, "window": window}
        for window in dict.fromkeys((stated, 15))  # libpng may state a smaller one than it used
        for memory in (9, 8)  # Pillow's, libpng's
        for level in ((1,), (5, 4, 3, 2), (6,), (9, 8, 7))[speed]
        for strategy in ((1, 0) if speed else (3, 1, 0, 2))
    ]
    given = {"header": header, "check": int.from_bytes(stream[-4:], "big"), "chunks": chunks}
    for guess in guesses:
        found = PngStream.model_validate(given | guess)
        if _makes(found, rows, stream):
            return found
    return None


def _makes(found: PngStream, rows: bytes, stream: bytes) -> bool:
    """Whether parameters give this stream; wrong ones are known by the first piece, mostly."""
    place = 2
    for piece in found.deflate(rows):
        if not stream.startswith(piece, place):
            return False
        place += len(piece)
    return place + 4 == len(stream)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def _unfilter(pixels: Pixels, stream: bytes) -> bytes:
    """Rows without filters, by libpng: it is shown a picture of the same layout, but no palette."""
    color = _COLORS[pixels.channels]
    header = struct.pack(">IIBBBBB", pixels.columns, pixels.rows, pixels.bits, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    bare = _SIGNATURE + b"".join(_chunk(*chunk) for chunk in chunks)
    return np.asarray(imagecodecs.png_decode(bare)).astype(pixels.dtype).tobytes()


def _filter(pixels: Pixels, filters: bytes, raw: bytes) -> bytes:
    """Filtered rows, each after the number of its filter."""
    rows = np.frombuffer(raw, np.uint8).reshape(pixels.rows, -1)
    numbers = np.frombuffer(filters, np.uint8)
    filtered = np.empty((pixels.rows, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = numbers
    step = pixels.channels * pixels.bits // 8
    padded = np.pad(rows, ((1, 0), (step, 0)))
    for start in range(0, pixels.rows, _ROWS):
        block = slice(start, start + _ROWS)
        left, above = padded[1:, :-step][block], padded[:-1, step:][block]
        corner = padded[:-1, :-step][block]
        for number in np.unique(numbers[block]):
            which = numbers[block] == number
            expected = _FILTERS[number](left[which], above[which], corner[which])
            filtered[block, 1:][which] = rows[block][which] - expected
    return filtered.tobytes()


def _average(left: Bytes, above: Bytes, corner: Bytes) -> Bytes:
    return ((left.astype(np.uint16) + above) // 2).astype(np.uint8)


def _paeth(left: Bytes, above: Bytes, corner: Bytes) -> Bytes:
    a, b, c = (pixel.astype(np.int16) for pixel in (left, above, corner))
    to_left, to_above, to_corner = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    other = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, other)


_FILTERS: Final[tuple[Callable[[Bytes, Bytes, Bytes], Any], ...]] = (
    lambda left, above, corner: np.uint8(0),
    lambda left, above, corner: left,
    lambda left, above, corner: above,
    _average,
    _paeth,
)
"""What each filter expects a pixel to be, from those to its left, above it, and above that one."""
