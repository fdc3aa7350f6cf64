"""HDF5: the data set that holds the frames, by h5py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.extras import import_extra
from pinglow.io.counts import Pages, check_size
from pinglow.io.memory import MemoryFile
from pinglow.terminal import warn_once

HDF5_START: Final = b"\x89HDF\r\n\x1a\n"

_CHANNELS = (1, 3, 4)  # of the last axis of color images
_SMALLEST = 2  # pixels of a side; what is smaller is a table


@contextmanager
def open_hdf5(path: Path | MemoryFile, max_pixels: int) -> Iterator[Pages]:
    """The frames of a file's largest data set of (H, W) or (N, H, W) numbers.

    Raises:
        FrameError: It holds none, or several of one size.
        MissingExtraError: h5py is not installed.
    """
    h5py = import_extra("h5py", "cameras", "reading HDF5")
    with path.open("rb") as stream, h5py.File(stream, "r") as file:
        found: list[Any] = []

        def look(_: str, entry: Any) -> None:
            if isinstance(entry, h5py.Dataset) and _holds_frames(entry):
                found.append(entry)

        file.visititems(look)
        yield _list_frames(path, _choose(path, found), max_pixels)


def _holds_frames(entry: Any) -> bool:
    plain = entry.dtype.kind in "biuf" and not entry.external and not entry.is_virtual
    layout = _layout(entry.shape or ())
    return plain and layout is not None and min(layout[1:]) >= _SMALLEST and layout[0] > 0


def _layout(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Frames, height and width of (H, W), (N, H, W), or these with channels; None: of neither."""
    channels = len(shape) > 2 and shape[-1] in _CHANNELS
    sides = shape[:-1] if channels else shape
    if len(sides) == 2:
        return (1, *sides)
    return sides if len(sides) == 3 else None


def _choose(path: Path | MemoryFile, found: list[Any]) -> Any:
    if not found:
        raise FrameError(f"{path} holds no data set of frames: save one of shape (N, H, W)")
    sizes = [math.prod(_layout(entry.shape) or ()) for entry in found]  # colors are not more
    largest = [entry for entry, size in zip(found, sizes, strict=True) if size == max(sizes)]
    if len(largest) > 1:
        names = ", ".join(entry.name for entry in largest[:4])
        raise FrameError(f"{path} holds several data sets of one size ({names}): save one a file")
    if len(found) > 1:
        warn_once(
            "hdf5", f"{path} holds {len(found)} data sets: reading the largest, {largest[0].name}"
        )
    return largest[0]


def _list_frames(path: Path | MemoryFile, entry: Any, max_pixels: int) -> Pages:
    number, height, width = _layout(entry.shape) or (0, 0, 0)
    check_size(path, height, width, max_pixels)
    if entry.chunks and math.prod(entry.chunks) > 4 * max_pixels:
        raise FrameError(f"{path} is stored in too large chunks: save a frame a chunk")
    single = entry.shape[:2] == (height, width)

    def read(page: int) -> NDArray[Any]:
        return np.asarray(entry[()] if single else entry[page])

    return Pages(number, read)
