"""What the readers share: limits, refusals, gray from channels, and the order of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError, PinglowError
from pinglow.io.memory import MemoryFile
from pinglow.terminal import warn_once

MAX_PIXELS = 2**28  # 16384 x 16384


@dataclass(frozen=True)
class Pages:
    """The frames of an open file.

    Attributes:
        count: How many; where the file is cut short, the first lost one counts.
        read: Maps the number of a frame, from 0, to its (H, W) counts, or (H, W, C) with channels.
    """

    count: int
    read: Callable[[int], NDArray[Any]]


Opener = Callable[[Path | MemoryFile, int], AbstractContextManager[Pages]]
"""Opens a file whose frames have at most so many pixels."""


def open_single(read: Callable[[Path | MemoryFile, int], NDArray[Any]]) -> Opener:
    """An opener for a kind of file that holds one frame, from what reads it."""

    @contextmanager
    def opener(path: Path | MemoryFile, max_pixels: int) -> Iterator[Pages]:
        yield Pages(1, lambda _: read(path, max_pixels))

    return opener


@contextmanager
def name_damage(path: Path | MemoryFile) -> Iterator[None]:
    """Turn whatever a decoder raises into a `FrameError` that names the file."""
    try:
        yield
    except PinglowError:
        raise
    except MemoryError as error:
        raise FrameError(
            f"{path} does not fit into memory: cut it into smaller frames first"
        ) from error
    except Exception as error:  # decoders raise anything at all on damaged bytes
        raise damaged(path, error) from error


def damaged(path: Path | MemoryFile, error: Exception | str) -> FrameError:
    """What is raised for a file whose bytes are not what they should be."""
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return FrameError(f"{path} is damaged or cut short ({detail}): copy or export it again")


def check_size(path: Path | MemoryFile | str, height: int, width: int, max_pixels: int) -> None:
    """Refuse a frame without pixels, or of more than ``max_pixels``."""
    if height < 1 or width < 1:
        raise FrameError(f"{path} has no pixels ({width} x {height}): copy or export it again")
    if height * width > max_pixels:
        raise FrameError(
            f"{path} claims {width} x {height} pixels, more than the limit of {max_pixels}: "
            "cut it into smaller frames first"
        )


def check_palette(
    path: Path | MemoryFile, numbers: NDArray[Any], colors: NDArray[Any]
) -> NDArray[Any]:
    """(H, W, C) colors of (H, W) numbers; refused are different numbers of one color."""
    if numbers.min() < numbers.max() and (colors == colors[0, 0]).all():
        raise FrameError(
            f"{path} has a palette that shows all its numbers in one color: save the numbers as "
            "gray levels"
        )
    return colors


def collapse_channels(path: Path | MemoryFile | str, counts: NDArray[Any]) -> NDArray[Any]:
    """(H, W), or (H, W, C) with C = 1 gray, 2 gray-alpha, 3 RGB, 4 RGB-alpha -> (H, W)."""
    if counts.ndim == 2:
        return counts
    if counts.ndim != 3 or counts.shape[2] > 4:
        raise FrameError(f"{path} holds an array of shape {counts.shape}: save gray or RGB frames")
    if counts.shape[2] < 3:
        return counts[..., 0]
    red, green, blue = (counts[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    warn_once("color", f"{path} is in color: reading its luminance")
    if counts.dtype in (np.uint8, np.uint16):
        # Pillow's 16.16 fixed point; the sum of a 16-bit frame just fits into 32 bits.
        red, green, blue = (channel.astype(np.uint32) for channel in (red, green, blue))
        gray = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        return np.asarray(gray, dtype=counts.dtype)
    return np.asarray(0.299 * red + 0.587 * green + 0.114 * blue)


def order_bytes(path: Path | MemoryFile, counts: NDArray[Any]) -> NDArray[Any]:
    """The same in the machine's byte order, and swapped where `looks_swapped` is certain of it."""
    counts = counts.astype(counts.dtype.newbyteorder("="), copy=False)
    if counts.dtype.kind not in "iu" or counts.itemsize != 2 or not looks_swapped(counts):
        return counts
    warn_once("swapped", f"{path} has the two bytes of each count swapped: swapping them back")
    return counts.byteswap()


def looks_swapped(counts: NDArray[Any]) -> bool:
    """Whether the two bytes of each 16-bit count are certainly in the wrong order.

    Where the high byte of a true count changes from one pixel to the next, its low byte goes
    round: the counts are near each other in the right order and far apart in the wrong one.
    Where nothing tells, as in noise or bytes that do not change, the answer is no.

    Args:
        counts: (H, W) of 16 bits, in the machine's byte order.
    """
    rows = counts[:: max(1, counts.shape[0] // 256)]
    swapped = rows.byteswap()
    high = swapped.view(np.uint16) >> 8
    changes = np.flatnonzero(high[:, 1:] != high[:, :-1])
    if len(changes) < _CERTAIN:
        return False
    some = changes[:: -(-len(changes) // _ENOUGH)]
    as_stored, as_swapped = (_median_step(each, some) for each in (rows, swapped))
    return as_stored > 8 * as_swapped


def _median_step(counts: NDArray[Any], places: NDArray[np.intp]) -> float:
    """The median difference of neighbors, of those pairs of which the left ones lie there."""
    right, left = (each.reshape(-1)[places] for each in (counts[:, 1:], counts[:, :-1]))
    return float(np.median(np.abs(right.astype(np.int32) - left)))


_CERTAIN = 16  # pairs of neighbors
_ENOUGH = 4096  # of them, for a median
