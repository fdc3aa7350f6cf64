"""NumPy's files: .npy with one array, .npz with several of which one is a frame.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.io.counts import check_size, damaged
from pinglow.io.memory import MemoryFile

NPY_START: Final = b"\x93NUMPY"
NPZ_START: Final = b"PK\3\4"

_MOST_PACKED: Final = 1100  # times that zip makes anything smaller


def read_npy(path: Path | MemoryFile, max_pixels: int) -> NDArray[Any]:
    """(H, W) counts of a file that holds them as (H, W), (1, H, W) or (H, W, 1)."""
    # What the header claims is compared with the file's size before there is memory for it.
    stored, dtype = read_npy_header(path)
    shape = _frame_shape(stored)
    if shape is None:
        raise FrameError(f"{path} holds an array of shape {stored}: save one (H, W) array per file")
    check_size(path, *shape, max_pixels)
    if isinstance(path, Path):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        claimed = math.prod(stored) * dtype.itemsize
        if claimed > len(path.content):
            raise damaged(path, f"{claimed} bytes claimed, fewer stored")
        mapped = np.load(path.open("rb"), allow_pickle=False)
    return np.array(mapped).reshape(shape)


def read_npy_header(path: Path | MemoryFile) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array in a file.

    Raises:
        FrameError: It is of Python objects.
    """
    with path.open("rb") as file:
        shape, dtype = _read_header(file)
    if dtype.hasobject:
        raise FrameError(
            f"{path} holds Python objects, as arrays of several sizes do: save one (H, W) "
            "array of integers or floats per file"
        )
    return shape, dtype


def read_npz(path: Path | MemoryFile, max_pixels: int) -> NDArray[Any]:
    """(H, W) counts of the only array of a file that has rows and columns."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        frames = []
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as inner:
                stored, dtype = _read_header(inner)
                size = member.file_size - inner.tell()
            shape = _frame_shape(stored)
            if shape is not None and dtype.kind in "buif":
                frames.append((member, shape, size, math.prod(shape) * dtype.itemsize))
        if len(frames) != 1:
            names = ", ".join(member.filename.removesuffix(".npy") for member, *_ in frames)
            raise FrameError(
                f"{path} should hold one array of (H, W) counts, and it holds "
                f"{f'several ({names[:80]})' if frames else 'none'}: save each to a file of its own"
            )
        member, shape, size, claimed = frames[0]
        check_size(path, *shape, max_pixels)
        if claimed != size or size > _MOST_PACKED * max(member.compress_size, 1):
            raise damaged(path, f"{claimed} bytes claimed, others stored")
        with archive.open(member) as inner:
            counts = np.lib.format.read_array(inner, allow_pickle=False)
            inner.read(1)  # the end: here the checksum is compared
        return np.asarray(counts).reshape(shape)


def _frame_shape(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(H, W) of an array that can be a frame."""
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        shape = shape[1:] if shape[0] == 1 else shape[:2]
    return (shape[0], shape[1]) if len(shape) == 2 else None


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that follows."""
    version = np.lib.format.read_magic(file)
    early = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if early else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
