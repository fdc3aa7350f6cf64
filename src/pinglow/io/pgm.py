"""PGM, plain (P2) and binary (P5): counts as they are, never stretched to the full range.

https://netpbm.sourceforge.net/doc/pgm.html
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.io.counts import check_size, damaged
from pinglow.io.memory import MemoryFile
from pinglow.terminal import warn_once

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
PGM_HEADER = re.compile(
    rb"P[25]" + _GAP + _GAP.join([rb"(\d{1,9})", rb"(\d{1,9})", rb"(\d{1,5})(?:#[^\r\n]*)?\s"])
)
_BLANK = re.compile(_GAP)
_TRAILING = 8  # bytes


def read_pgm(path: Path | MemoryFile, max_pixels: int) -> NDArray[Any]:
    """(H, W) counts of a file."""
    # Not Pillow: it stretches counts to the full range when maxval is not 255 or 65535.
    data = path.read_bytes()
    header = PGM_HEADER.match(data)
    if header is None:
        raise damaged(path, "no PGM header")
    width, height, top = (int(number) for number in header.groups())
    check_size(path, height, width, max_pixels)
    if not 1 <= top <= 65535:
        raise damaged(path, f"maxval is {top}")
    read = _read_binary if data.startswith(b"P5") else _read_plain
    counts = read(path, data, header.end(), height * width, top)
    return counts.reshape(height, width)


def _read_binary(
    path: Path | MemoryFile, data: bytes, end: int, pixels: int, top: int
) -> NDArray[Any]:
    dtype = np.dtype(">u2" if top > 255 else "u1")
    starts = _find_starts(data, end, pixels * dtype.itemsize)
    if not starts:
        left = len(data) - end - pixels * dtype.itemsize
        raise damaged(path, f"{left} bytes more than its header claims, not clear which")
    counts, *others = (np.frombuffer(data, dtype, count=pixels, offset=start) for start in starts)
    if others and dtype.itemsize == 2:  # a byte too early or too late makes noise of counts
        counts = min([counts, *others], key=_roughness)
    if data[starts[0] + counts.nbytes :].lstrip().startswith((b"P2", b"P5")):
        raise FrameError(f"{path} holds several frames: save each to a file")
    if counts.max() <= top:
        return counts
    if top > 255 and (swapped := counts.byteswap()).max() <= top:
        warn_once("swapped", f"{path} has the two bytes of each count swapped: swapping them back")
        return swapped
    raise damaged(path, f"a count is {counts.max()}, above maxval {top}")


def _find_starts(data: bytes, end: int, size: int) -> list[int]:
    """Where the counts may begin: one blank after maxval; some writers put more, or a comment.

    What is left over at the file's end tells: it must be blank.

    Args:
        data: The file.
        end: After that one blank.
        size: Bytes of the counts.
    """
    left = len(data) - end - size
    if left <= 0 or not _BLANK.fullmatch(data[end - 1 : end + 1] + b"\n"):
        return [end]  # exact, cut short, or what follows cannot be counts
    longest = len(data) - size
    starts = [
        place
        for place in range(longest, max(end, longest - _TRAILING), -1)
        if not data[place + size :].strip() and _BLANK.fullmatch(data, end - 1, place)
    ]
    if not data[end + size :].strip():
        # A line end is the one blank; of CR LF, spaces and the like it is a part.
        starts.insert(0 if data[end - 1 : end] == b"\n" else len(starts), end)
    return starts


def _roughness(counts: NDArray[Any]) -> float:
    return float(np.median(np.abs(np.diff(counts.astype(np.int32)))))


def _read_plain(
    path: Path | MemoryFile, data: bytes, end: int, pixels: int, top: int
) -> NDArray[Any]:
    words = re.sub(rb"#[^\r\n]*", b"", data[end:]).split()
    if words[pixels : pixels + 1] in ([b"P2"], [b"P5"]):
        raise FrameError(f"{path} holds several frames: save each to a file")
    if len(words) != pixels:
        raise damaged(path, f"{len(words)} counts, where its header claims {pixels}")
    counts = np.array([int(word) for word in words], dtype=np.uint32)
    if counts.max() > top:
        raise damaged(path, f"a count is above maxval {top}")
    return counts.astype(np.uint16 if top > 255 else np.uint8)
