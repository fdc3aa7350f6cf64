"""How a pack keeps one file: pixels as JPEG XL, all else as bytes.

JPEG XL, lossless, needs about four fifths of a PNG's bytes, and a third of those of an uncompressed
16-bit file. What is around the pixels is kept beside them. Whether a file comes back byte for byte
is tried at once; one that does not, such as an interlaced PNG or one that zopfli wrote, is kept as
bytes.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from pydantic import AfterValidator, Field

from pinglow.data.pack.png import (
    Count,
    DamageError,
    Pixels,
    PngStream,
    Stored,
    make_idat,
    split_png,
)
from pinglow.io.pgm import PGM_HEADER

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EFFORT: Final = 7  # of JPEG XL; 9 takes five times as long and gains 1 %
_MOST_PIXELS: Final = 2**24  # of a picture that is taken apart: JPEG XL wants much memory
_FLAT: Final = 20  # a picture that deflates to less than a 20th of its bytes: a mask
_DENSE: Final = 0.95  # bytes that deflate to more than this share are compressed already


def _check_path(path: str) -> str:
    parts = Path(path).parts
    if not path or path != "/".join(parts) or ".." in parts or "\0" in path:
        raise ValueError(f"{path!r} is no path inside a folder")
    return path


InnerPath = Annotated[str, AfterValidator(_check_path)]
"""A path that stays in its folder: relative, with / between its parts, none of them ".."."""


class StoredFile(Stored):
    """A file of a pack, which has bytes in a part that is compressed as a whole, and a blob.

    Attributes:
        path: In its folder.
        size: Of the file, in bytes.
        sha256: Of the file.
        solid: Its bytes in the part that is compressed as a whole: the file; or what is before its
            pixels, what is after them, a PNG's filters, and the pixels if there is no blob.
        blob: Its bytes that are kept as they are: the file, or JPEG XL.
        tail: Bytes of the file after its pixels.
        pixels: None: the file is kept as bytes.
        png: Of a PNG.
    """

    path: InnerPath
    size: Count
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    solid: Count = 0
    blob: Count = 0
    tail: Count = 0
    pixels: Pixels | None = None
    png: PngStream | None = None


class Encoded(NamedTuple):
    """A file, and its bytes in the two parts."""

    file: StoredFile
    solid: bytes
    blob: bytes


def encode_file(path: str, content: bytes) -> Encoded:
    """Find the smallest form that gives a file back byte for byte.

    Args:
        path: The file's path in its folder.
        content: The file.
    """
    digest = hashlib.sha256(content).hexdigest()
    plain = StoredFile(path=path, size=len(content), sha256=digest)
    for take_apart in (_encode_png, _encode_counts):
        try:
            found = take_apart(content, plain)
            if found and decode_file(*found) == (content, True):
                return found
        except Exception:  # a damaged picture: decoders raise anything at all
            continue
    if len(zlib.compress(content, 1)) > _DENSE * len(content):
        return Encoded(plain.model_copy(update={"blob": len(content)}), b"", content)
    return Encoded(plain.model_copy(update={"solid": len(content)}), content, b"")


def decode_file(
    file: StoredFile, solid: bytes, blob: bytes, exact: bool = True
) -> tuple[bytes, bool]:
    """Make a file again.

    Args:
        file: What the pack says of it.
        solid: See `StoredFile`.
        blob: The same.
        exact: Off: a PNG needs equal pixels and chunks only, which is quicker.

    Returns:
        The file, and whether it is equal byte for byte. A PNG of equal pixels and chunks may not
        be: not every build of zlib makes the same stream.

    Raises:
        DamageError: It is neither. On damaged bytes decoders raise other errors, too.
    """
    if file.pixels is None:
        content = solid + blob
    else:
        filters = file.pixels.rows if file.png else 0
        inside = 0 if blob else file.pixels.size
        head = len(solid) - file.tail - filters - inside
        if head < 0:
            raise DamageError("a part is cut short")
        cuts = np.cumsum([head, file.tail, filters]).tolist()
        before, after, numbers, raw = (
            solid[start:end] for start, end in zip([0, *cuts], [*cuts, len(solid)], strict=True)
        )
        if blob:
            raw = _read_jpegxl(file.pixels, blob)
        body = make_idat(file.pixels, file.png, numbers, raw, exact) if file.png else raw
        content = before + body + after
    equal = len(content) == file.size and hashlib.sha256(content).hexdigest() == file.sha256
    if not equal and not file.png:
        raise DamageError("a checksum differs")
    return content, equal


def _encode_png(content: bytes, file: StoredFile) -> Encoded | None:
    png = split_png(content, _MOST_PIXELS)
    if png is None:
        return None
    solid = png.head + png.tail + png.filters
    blob = b""
    if len(zlib.compress(png.raw, 1)) * _FLAT < len(png.raw):
        solid += png.raw
    else:
        blob = _make_jpegxl(png.pixels, png.raw)
        if len(blob) > sum(png.stream.chunks):  # noise
            return None
    found = {
        "solid": len(solid),
        "blob": len(blob),
        "tail": len(png.tail),
        "pixels": png.pixels,
        "png": png.stream,
    }
    return Encoded(file.model_copy(update=found), solid, blob)


def _encode_counts(content: bytes, file: StoredFile) -> Encoded | None:
    """A TIFF, NPY or PGM whose pixels, of 8 or 16 bits, lie in it as they are."""
    found = _find_counts(content)
    if found is None or len(zlib.compress(content, 1)) * _FLAT < len(content):
        return None
    start, dtype, shape = found
    shape = tuple(side for side in shape if side != 1) or (1,)
    channels = shape[-1] if len(shape) > 2 and shape[-1] <= 4 else 1
    columns = shape[-1] if channels == 1 else shape[-2]
    rows = int(np.prod(shape)) // (columns * channels)
    if dtype.kind not in "iu" or dtype.itemsize > 2 or rows * columns > _MOST_PIXELS:
        return None
    little = dtype.itemsize == 2 and dtype == dtype.newbyteorder("<")
    bits: Literal[8, 16] = 16 if dtype.itemsize == 2 else 8
    pixels = Pixels(rows=rows, columns=columns, channels=channels, bits=bits, little=little)
    end = start + pixels.size
    head, tail = content[:start], content[end:]
    blob = _make_jpegxl(pixels, content[start:end])
    if len(blob) >= pixels.size:
        return None
    sizes = {"solid": len(head + tail), "blob": len(blob), "tail": len(tail), "pixels": pixels}
    return Encoded(file.model_copy(update=sizes), head + tail, blob)


def _find_counts(content: bytes) -> tuple[int, np.dtype[Any], tuple[int, ...]] | None:
    """Where uncompressed pixels begin, their type and shape."""
    if content.startswith(_TIFF):
        with tifffile.TiffFile(io.BytesIO(content)) as tiff:
            page = tiff.pages.first
            if page.dtype is None or not page.is_contiguous:
                return None
            return page.dataoffsets[0], page.dtype.newbyteorder(tiff.byteorder), page.shape
    if content.startswith(b"\x93NUMPY\1\0"):
        file = io.BytesIO(content)
        np.lib.format.read_magic(file)
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        return file.tell(), dtype, shape[::-1] if is_fortran else shape
    if content.startswith(b"P5") and (header := PGM_HEADER.match(content)):
        width, height, top = (int(number) for number in header.groups())
        return header.end(), np.dtype(">u2" if top > 255 else "u1"), (height, width)
    return None


def _make_jpegxl(pixels: Pixels, raw: bytes) -> bytes:
    array = np.frombuffer(raw, pixels.dtype).reshape(pixels.shape)
    native = array.astype(array.dtype.newbyteorder("="))
    return bytes(imagecodecs.jpegxl_encode(native, lossless=True, effort=_EFFORT, numthreads=1))


def _read_jpegxl(pixels: Pixels, blob: bytes) -> bytes:
    # Into an array of our own, so that one that claims another size is refused, not allocated.
    array = np.empty(pixels.shape, pixels.dtype.newbyteorder("="))
    imagecodecs.jpegxl_decode(blob, numthreads=1, out=array)
    return array.astype(pixels.dtype, copy=False).tobytes()
