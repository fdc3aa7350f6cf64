"""JPEG of 8 to 16 bits, lossless too; what its header claims is compared with what it holds.

ITU-T T.81 (https://www.w3.org/Graphics/JPEG/itu-t81.pdf), JPEG-LS: ITU-T T.87.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from pinglow.errors import FrameError
from pinglow.io.counts import check_size, damaged
from pinglow.io.memory import MemoryFile

JPEG_START: Final = b"\xff\xd8\xff"

_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF; JPEG-LS has its own
_LOSSLESS, _JPEG_LS = 0xC3, 0xF7
_READ = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA, _LOSSLESS, _JPEG_LS}
_SCAN = 0xDA
_END = b"\xff\xd9"
_SCAN_END = re.compile(rb"\xff(?=[^\0\xd0-\xd7\xff])")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_TURN = b"".join(bytes([0xFF, 0xD0 + number]) for number in range(8))  # of restart markers
_JUNK = bytes((73 * i) % 251 + 1 for i in range(128))  # any bits, but no marker
_GRAY = 4  # pixels: less than a block of what is missing
_SHORT = 128  # bytes of a scan that may end in anything


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
    bits: int
    height: int
    width: int


def list_segments(data: bytes, place: int = 2) -> list[Segment]:
    """The segments of a JPEG from a place up to the next scan, in their order."""
    segments = []
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
    if header.kind == _JPEG_LS:  # its decoder checks the rest, but takes long without an end
        if data.rfind(_END) < 0:
            raise damaged(path, "its end is missing")
        return np.asarray(imagecodecs.jpegls_decode(data))
    blocks = header.height * header.width // 64
    if header.kind in (0xC0, 0xC1, 0xC2) and 8 * len(data) < blocks:  # a bit a block at least
        raise _contradiction(path, header, "fewer")
    simple = header.bits == 8 and header.kind != _LOSSLESS
    decode = _decode_8_bits if simple else imagecodecs.jpeg8_decode
    data = _drop_metadata(data)
    scans = _list_scans(data)
    _check_restarts(path, data, scans)
    late = [_find_late(data, *scan) for scan in scans]
    once = simple and len(late) == 1 and late[0].stop > late[0].start
    watched = _Watched(data, late[0].start) if once else None
    decoded = np.asarray(decode(data) if watched is None else _decode_8_bits(watched))
    if decoded.shape[:2] != (header.height, header.width):
        raise _contradiction(path, header, "others")
    if _may_lack_pixels(header, decoded) and not _is_still(decoded, decode, _add_junk(data)):
        raise _contradiction(path, header, "fewer")
    spoiled = data if watched else _spoil_ends(data)
    unused = spoiled != data and _is_still(decoded, decode, spoiled)
    if unused or (watched and not watched.reached):
        raise _contradiction(path, header, "more")
    return decoded


def _check_restarts(path: Path | MemoryFile, data: bytes, scans: Sequence[tuple[int, int]]) -> None:
    """Refuse markers that do not count on: decoders make up what was lost between two of them."""
    for start, end in scans:
        found = b"".join(_RESTART.findall(data, start, end))
        if found != (_TURN * (len(found) // len(_TURN) + 1))[: len(found)]:
            raise damaged(path, "its restart markers do not count on, so a part is missing")


class _Watched(io.BytesIO):
    """A file that notes whether anything from a place on was asked for.

    libjpeg takes no more of a single scan than its pixels need, so that one decoding tells.
    """

    def __init__(self, data: bytes, place: int) -> None:
        super().__init__(data)
        self._place = place
        self.reached = False

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        if at >= self._place:
            self.reached = True
        elif size is None or size < 0 or at + size > self._place:
            size = self._place - at
        return super().read(size)


def _find_late(data: bytes, start: int, end: int) -> slice:
    """The last part of a scan, without which no frame is whole; empty if the scan is too short."""
    end = start + len(data[start:end].rstrip(b"\0\xff"))  # cameras fill up to a size
    return slice(end - (end - start) // 16 if end - start > _SHORT else end, end)


def _drop_metadata(data: bytes) -> bytes:
    """The same without APP1: Pillow warns about Exif that it cannot read, and pixels need none."""
    for segment in reversed(list_segments(data)):
        if segment.marker == 0xE1:
            end = segment.place + len(segment.content)
            data = data[: segment.place - 4] + data[end:]
    return data


def _contradiction(path: Path | MemoryFile, header: _Header, than: str) -> FrameError:
    return damaged(path, f"its header claims {header.width} x {header.height}, {than} are stored")


def _find_header(path: Path | MemoryFile, data: bytes) -> _Header:
    for segment in list_segments(data):
        content = segment.content
        if segment.marker in _FRAME_HEADERS and len(content) >= 6:
            height, width = (int.from_bytes(content[i : i + 2], "big") for i in (1, 3))
            return _Header(segment.marker, content[0], height, width)
    raise damaged(path, "no image header")


def _decode_8_bits(data: bytes | io.BytesIO) -> NDArray[Any]:
    # The plug-in itself, not Image.open: that guesses other kinds (MPO) and brings its own pixel
    # limit, with a warning below ours.
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    with JpegImagePlugin.JpegImageFile(file) as image:
        return np.array(image if image.mode == "L" else image.convert("RGB"))


def _may_lack_pixels(header: _Header, decoded: NDArray[Any]) -> bool:
    """Whether the last pixels are of one value, as those are that a decoder makes up.

    Colors are made up by halves, and lossless pixels after those above them.
    """
    if header.kind == _LOSSLESS or decoded.ndim > 2:
        return True
    rows = min((len(decoded) - 1) % 8 + 1, _GRAY)
    corner = decoded[-rows:, -_GRAY:]
    return bool((corner == corner[0, 0]).all())


def _is_still(
    decoded: NDArray[Any], decode: Callable[[bytes], NDArray[Any]], changed: bytes
) -> bool:
    try:
        return np.array_equal(decode(changed), decoded)
    except Exception:  # what is changed may be anything
        return False


def _add_junk(data: bytes) -> bytes:
    """The same with more behind each scan: that changes a frame only if the scan lacks pixels."""
    parts, done = [], 0
    for start, end in _list_scans(data):
        # A decoder may wait for the next of eight markers in turn before it goes on.
        restarts = len(_RESTART.findall(data, start, end))
        parts += [data[done:end], _JUNK]
        for number in range(restarts, restarts + 8):
            parts += [bytes([0xFF, 0xD0 + number % 8]), _JUNK]
        done = end
    return b"".join([*parts, data[done:]])


def _spoil_ends(data: bytes) -> bytes:
    """The same with a part of each scan lost: that changes a frame that needs all of them."""
    spoiled = bytearray(data)
    for start, end in _list_scans(data):
        late = _find_late(data, start, end)
        size = late.stop - late.start
        spoiled[late] = (_JUNK * (size // len(_JUNK) + 1))[:size]
    return bytes(spoiled)


def _list_scans(data: bytes) -> list[tuple[int, int]]:
    """Where the pixels of each scan begin and end."""
    scans = []
    segments = list_segments(data)
    while segments and segments[-1].marker == _SCAN:
        start = segments[-1].place + len(segments[-1].content)
        found = _SCAN_END.search(data, start)
        end = found.start() if found else len(data)
        scans.append((start, end))
        segments = list_segments(data, end)
    return scans
