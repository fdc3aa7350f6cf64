"""JPEG of 8 to 16 bits, lossless too; what its header claims is compared with what it holds.

ITU-T T.81 (https://www.w3.org/Graphics/JPEG/itu-t81.pdf), JPEG-LS: ITU-T T.87.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from pinglow.errors import FrameError
from pinglow.io.counts import check_size, collapse_channels, damaged
from pinglow.io.memory import MemoryFile

JPEG_START: Final = b"\xff\xd8\xff"

_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF; JPEG-LS has its own
_LOSSLESS, _JPEG_LS = 0xC3, 0xF7
_READ = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA, _LOSSLESS, _JPEG_LS}
_SCAN = 0xDA
_SCAN_END = re.compile(rb"\xff(?=[^\0\xd0-\xd7\xff])")
_JUNK = bytes((73 * i) % 251 + 1 for i in range(256))  # any bits, but no marker
_GRAY = 4  # pixels: less than a block of what is missing


class Segment(NamedTuple):
    """A part of a JPEG file before its pixels.

    Attributes:
        marker: Its kind, as 0xE1 for APP1.
        place: Where its content begins in the file.
        content: What follows its length.
    """

    marker: int
    place: int
    content: bytes


class _Header(NamedTuple):
    kind: int
    place: int  # of the height, two bytes
    bits: int
    height: int
    width: int
    block: int  # rows of pixels that are coded together


def list_segments(data: bytes) -> list[Segment]:
    """The segments of a JPEG up to its first scan, in their order."""
    segments = []
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fills up
            place += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # stands alone
            place += 2
        else:
            size = int.from_bytes(data[place + 2 : place + 4], "big")
            segments.append(Segment(marker, place + 4, data[place + 4 : place + 2 + size]))
            if marker == _SCAN:
                break
            place += 2 + max(size, 2)
    return segments


def decode_jpeg(path: Path | MemoryFile, data: bytes, max_pixels: int) -> NDArray[Any]:
    """(H, W) counts of an image that is, or is a part of, the file at ``path``.

    Raises:
        FrameError: It is too large, of an unusual kind, or holds fewer or more pixels than its
            header claims.
    """
    header = _find_header(path, data)
    check_size(path, header.height, header.width, max_pixels)
    if header.kind not in _READ:
        raise FrameError(f"{path} is a JPEG of an unusual kind: convert it to PNG or TIFF")
    if header.kind == _JPEG_LS:
        return collapse_channels(path, imagecodecs.jpegls_decode(data))
    blocks = header.height * header.width // 64
    if header.kind in (0xC0, 0xC1, 0xC2) and 8 * len(data) < blocks:  # a bit a block at least
        raise _contradiction(path, header, "fewer")
    is_8_bit = header.bits == 8 and header.kind != _LOSSLESS
    decode = _decode_8_bits if is_8_bit else imagecodecs.jpeg8_decode
    decoded = np.asarray(decode(data))
    if decoded.shape[:2] != (header.height, header.width):
        raise _contradiction(path, header, "other")
    if _lacks_rows(data, decoded, decode):
        raise _contradiction(path, header, "fewer")
    if header.kind != _LOSSLESS and _has_more_rows(
        data, header, _decode_small if is_8_bit else decode
    ):
        raise _contradiction(path, header, "more")
    return collapse_channels(path, decoded)


def _contradiction(path: Path | MemoryFile, header: _Header, than: str) -> FrameError:
    return damaged(path, f"its header claims {header.width} x {header.height}, {than} are stored")


def _find_header(path: Path | MemoryFile, data: bytes) -> _Header:
    for segment in list_segments(data):
        content = segment.content
        if segment.marker in _FRAME_HEADERS and len(content) >= 6 + 3 * max(
            content[5:6], default=1
        ):
            height, width = (int.from_bytes(content[i : i + 2], "big") for i in (1, 3))
            factors = [content[7 + 3 * i] & 15 for i in range(content[5])]
            block = 8 * max([1, *factors])
            return _Header(segment.marker, segment.place + 1, content[0], height, width, block)
    raise damaged(path, "no image header")


def _decode_8_bits(data: bytes) -> NDArray[Any]:
    # The plug-in itself, not Image.open: that guesses other kinds (MPO) and brings its own pixel
    # limit, with a warning below ours.
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        return np.array(image if image.mode == "L" else image.convert("RGB"))


def _decode_small(data: bytes) -> NDArray[Any]:
    """An eighth of the size, which is fast."""
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        image.draft("L", (1, 1))
        return np.array(image)


def _lacks_rows(
    data: bytes, decoded: NDArray[Any], decode: Callable[[bytes], NDArray[Any]]
) -> bool:
    """Whether pixels are not stored: the decoder makes gray of them without a word.

    Where the last pixels are of one value, this adds to the stored ones: if that changes the
    frame, they were not enough for it.
    """
    rows = min((len(decoded) - 1) % 8 + 1, _GRAY)
    corner = decoded[-rows:, -_GRAY:]
    if (corner != corner[:1, :1]).any():
        return False
    parts, done = [], 0
    for end in _list_scan_ends(data):
        parts += [data[done:end], _JUNK]
        done = end
    return not np.array_equal(decode(b"".join([*parts, data[done:]])), decoded)


def _list_scan_ends(data: bytes) -> list[int]:
    """Where the pixels of each scan end."""
    ends = []
    segments = list_segments(data)
    while segments and segments[-1].marker == _SCAN:
        start = segments[-1].place + len(segments[-1].content)
        found = _SCAN_END.search(data, start)
        if found is None:
            return [*ends, len(data)]
        ends.append(found.start())
        # The tables between two scans lie as those before the first.
        rest = list_segments(data[found.start() - 2 :])
        segments = [segment._replace(place=segment.place + found.start() - 2) for segment in rest]
    return ends


def _has_more_rows(data: bytes, header: _Header, decode: Callable[[bytes], NDArray[Any]]) -> bool:
    """Whether an eighth more rows are stored than the header claims: they are not all one gray."""
    blocks = -(-header.height // header.block)
    height = (blocks + max(2, blocks // 8)) * header.block
    if height > 65535:
        return False
    place = header.place
    longer = decode(data[:place] + height.to_bytes(2, "big") + data[place + 2 :])
    last = longer[len(longer) - len(longer) * header.block // height :]
    return bool((last != last[:1, :1]).any())
