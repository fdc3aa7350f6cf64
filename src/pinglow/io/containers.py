"""Whether a video file lacks bytes that its container says it has.

FFmpeg reads what is there and ends without a word. Each container says in a way of its own how
long it is; those that do not say it are read by what their last bytes begin and do not end.

Sources: ISO/IEC 14496-12 (MP4, MOV), RFC 9559 (Matroska, WebM), OpenDML 1.02 (AVI), the ASF
specification (WMV), SMPTE ST 377-1 (MXF), ISO/IEC 13818-1 (MPEG-TS and program streams).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from pinglow.io.memory import OpenedFile

_HEAD: Final = 2**16  # bytes; MXF may begin with as many of something else
_TAIL: Final = 2**17  # bytes of a program stream that are walked
_ZEROS: Final = 1024  # at the end of a download that was never filled
_MOST_PARTS: Final = 2**20  # of a file that are looked at
_ASF: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MXF: Final = bytes.fromhex("060e2b34020501010d01020101")
_EBML, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_PACK: Final = b"\0\0\1\xba"
_PICTURES: Final = (b"hei", b"hev", b"mif", b"msf", b"avi", b"crx")  # HEIF, AVIF, CR3
_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot"})


def is_container(path: Path | OpenedFile) -> bool:
    """Whether a file begins as a video does."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    still = head[4:8] == b"ftyp" and head[8:11] in _PICTURES
    return not still and _find_check(head) is not None


def lacks_bytes(path: Path | OpenedFile) -> bool:
    """Whether a video's end is missing by its container's own account; False if it has none."""
    with path.open("rb") as file:
        check = _find_check(file.read(_HEAD))
        return check is not None and check(file, _size(file))


def is_transport(path: Path | OpenedFile) -> bool:
    """Whether a file begins as an MPEG transport stream does."""
    with path.open("rb") as file:
        return _packet_size(file.read(_HEAD)) is not None


def file_size(path: Path | OpenedFile) -> int:
    """Bytes of a file."""
    with path.open("rb") as file:
        return _size(file)


def asf_seconds(path: Path | OpenedFile) -> float:
    """How long a WMV file is by its header, which FFmpeg does not believe if the file is cut."""
    with path.open("rb") as file:
        head = _find_asf(file)
    played, early = (int.from_bytes(head[at : at + 8], "little") for at in (64, 80))
    return max(0.0, played / 1e7 - early / 1e3)


def _find_check(head: bytes) -> Callable[[IO[bytes], int], bool] | None:
    if head.startswith(_EBML):
        return _check_matroska
    if head[4:8] in _BOXES:
        return _check_boxes
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return _check_riff
    if head.startswith(_ASF):
        return _check_asf
    if _MXF in head:
        return _check_mxf
    if head.startswith(_PACK):
        return _check_program
    if _packet_size(head):
        return _check_transport
    if head.startswith((b"YUV4MPEG2 ", b"FLV\1")):
        return lambda file, size: False
    return None


def _check_boxes(file: IO[bytes], size: int) -> bool:
    at = 0
    for _ in range(_MOST_PARTS):
        head = _read(file, at, 16)
        if len(head) < 8 or not head[4:8].isalnum():
            return False
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8:  # 0: up to the end
            return False
        at += length
        if at > size:
            return True
    return False


def _check_matroska(file: IO[bytes], size: int) -> bool:
    at, length = _read_length(file, 4)
    at += length or 0
    if _read(file, at, 4) != _SEGMENT:
        return False
    at, length = _read_length(file, at + 4)
    if length is not None:
        return at + length > size or _ends_in_zeros(file, size)
    for _ in range(_MOST_PARTS):  # never ended: by its elements, those of a cluster one by one
        if at >= size:
            break
        kind = (_read(file, at, 1) or b"\0")[0]
        count = 9 - kind.bit_length()
        cluster = _read(file, at, 4) == _CLUSTER
        at, length = _read_length(file, at + count)
        if count > 4 or (length is None and not cluster):
            return False
        at += 0 if cluster else length or 0
    return at > size


def _read_length(file: IO[bytes], at: int) -> tuple[int, int | None]:
    """Where an element's content begins, and its length; None: it is not said."""
    head = _read(file, at, 8)
    first = head[0] if head else 0
    if not first:
        return at, None
    count = 9 - first.bit_length()
    length = int.from_bytes(head[:count], "big") & ~(1 << 7 * count)
    return at + count, None if length == (1 << 7 * count) - 1 else length


def _check_riff(file: IO[bytes], size: int) -> bool:
    at = 0
    for _ in range(_MOST_PARTS):
        head = _read(file, at, 12)
        if head[:4] != b"RIFF" or head[8:] not in (b"AVI ", b"AVIX"):
            break
        length = int.from_bytes(head[4:8], "little")
        if length in (0, 2**32 - 1):  # written to a pipe, or never ended
            return False
        at += 8 + length
        if at > size:
            return True
        at += length % 2
    return _ends_in_zeros(file, size)


def _check_asf(file: IO[bytes], size: int) -> bool:
    head = _find_asf(file)
    return int.from_bytes(head[40:48], "little") > size


def _find_asf(file: IO[bytes]) -> bytes:
    """The file properties of an ASF file; nothing if they say nothing, as those of a stream."""
    at, end = 30, int.from_bytes(_read(file, 16, 8), "little")
    while at < min(end, _HEAD):
        head = _read(file, at, 104)
        if head.startswith(_ASF_FILE):
            return b"" if len(head) < 104 or head[88] & 1 else head
        at += max(24, int.from_bytes(head[16:24], "little"))
    return b""


def _check_mxf(file: IO[bytes], size: int) -> bool:
    start = _read(file, 0, _HEAD).find(_MXF)
    first = (_read(file, start + 16, 1) or b"\0")[0]
    value = start + 17 + (first & 0x7F if first & 0x80 else 0)  # a length of so many bytes
    footer = int.from_bytes(_read(file, value + 24, 8), "big")
    return footer > 0 and start + footer >= size


def _packet_size(head: bytes) -> tuple[int, int] | None:
    """Bytes of a transport packet, and before its sync byte; None: it is no transport stream."""
    for length, before in ((188, 0), (192, 4), (204, 0)):
        syncs = head[before : 5 * length : length]
        if syncs and not syncs.strip(b"G") and len(head) >= min(2 * length, 400):
            return length, before
    return None


def _check_transport(file: IO[bytes], size: int) -> bool:
    length, before = _packet_size(_read(file, 0, _HEAD)) or (188, 0)
    rest = size % length
    return rest > 0 and _read(file, size - rest, rest)[before : before + 1] in (b"G", b"")


def _check_program(file: IO[bytes], size: int) -> bool:
    tail = _read(file, max(0, size - _TAIL), _TAIL)
    at = tail.find(_PACK)
    while 0 <= at < len(tail):
        head = tail[at : at + 14]
        if not b"\0\0\1".startswith(head[:3]):
            return False
        if head.startswith(b"\0\0\1\xb9"):
            at += 4
        elif head.startswith(_PACK):
            second = len(head) > 4 and head[4] >> 6 == 1
            at += 14 + (head[13] & 7 if len(head) > 13 else 0) if second else 12
        else:
            at += 6 + int.from_bytes(head[4:6], "big")
    return at > len(tail)


def _ends_in_zeros(file: IO[bytes], size: int) -> bool:
    return size > _ZEROS and not any(_read(file, size - _ZEROS, _ZEROS))


def _read(file: IO[bytes], at: int, count: int) -> bytes:
    if at >= _size(file):  # a damaged length may lie beyond what seek takes
        return b""
    file.seek(at)
    return file.read(count)


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)
