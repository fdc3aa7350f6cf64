"""The readers of frames by the first bytes of a file: one table.

Another package adds one as an entry point of the group ``pinglow.readers``: its name is the suffix
of the files, as ``.raw14``, and it maps (path, page, max_pixels) to the (H, W) counts of page 0.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin

from pinglow.errors import FrameError
from pinglow.io.counts import Opener, check_palette, check_size, open_single
from pinglow.io.envi import ENVI_START, find_envi_header, open_envi
from pinglow.io.fits import FITS_START, open_fits
from pinglow.io.flir import FLIR_START, find_flir_block, open_flir, read_flir_block
from pinglow.io.hdf5 import HDF5_START, open_hdf5
from pinglow.io.jpeg import JPEG_START, Segment, decode_jpeg, list_segments
from pinglow.io.memory import MemoryFile
from pinglow.io.npy import NPY_START, NPZ_START, read_npy, read_npz
from pinglow.io.pgm import read_pgm
from pinglow.io.png import PNG_START, read_png
from pinglow.io.tiff import open_tiff
from pinglow.plugins import find_plugin, plugin_names

FRAME_SUFFIXES: frozenset[str] = frozenset(
    {
        *(".png", ".tif", ".tiff", ".dng", ".npy", ".npz", ".pgm", ".bmp", ".jpg", ".jpeg", ".jls"),
        *(".fff", ".seq", ".csq", ".hdr", ".fits", ".fit", ".fts", ".h5", ".hdf5"),
    }
)

GROUP: Final = "pinglow.readers"
"""The group of entry points by which other packages add readers."""


def frame_suffixes() -> frozenset[str]:
    """The suffixes of files of frames, those of other packages' readers with them."""
    return FRAME_SUFFIXES | _added_suffixes(tuple(sys.path))


@functools.cache
def _added_suffixes(_: tuple[str, ...]) -> frozenset[str]:
    """Looked up once, as long as packages are imported from the same places."""
    return frozenset(name.lower() for name in plugin_names(GROUP))


def find_opener(path: Path | MemoryFile) -> Opener:
    """Choose what opens a file by its first bytes, or by a suffix that another package has added.

    Raises:
        FrameError: The file is missing, empty, or of an unknown kind.
        MissingExtraError: The other package cannot be imported.
    """
    start = _read_start(path)
    suffix = path.suffix.lower()
    if isinstance(path, Path):
        if suffix in _added_suffixes(tuple(sys.path)):
            return open_single(functools.partial(_read_added, find_plugin(GROUP, suffix)))
        if find_envi_header(path):  # plain numbers may begin like anything
            return open_envi
    for signature, opener in OPENERS.items():
        if start.startswith(signature):
            return opener
    raise FrameError(
        f"{path} is not a frame that pinglow reads: convert it to PNG, TIFF, NPY, PGM, BMP or JPEG"
        "; predict --raw reads frames without a header"
    )


def _read_start(path: Path | MemoryFile) -> bytes:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise FrameError(f"{path} is a pipe or a device: save the frame to a file")
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        raise FrameError(f"{path} does not exist: check the path") from None
    except IsADirectoryError:
        raise FrameError(f"{path} is a folder: name a file in it") from None
    except (OSError, ValueError) as error:
        raise FrameError(f"{path} cannot be opened ({error}): check its permissions") from error
    if not start:
        raise FrameError(f"{path} is empty: copy or export it again")
    return start


def _read_jpeg(path: Path | MemoryFile, max_pixels: int) -> NDArray[Any]:
    data = path.read_bytes()
    segments = list_segments(data)
    if (block := find_flir_block(path, segments)) is not None:
        return read_flir_block(path, block, max_pixels)
    if _is_dji_thermal(segments):
        raise FrameError(
            f"{path} is a radiometric JPEG of DJI, whose raw counts only DJI's Thermal SDK reads: "
            "convert it to a 16-bit TIFF with that, or save its picture as PNG"
        )
    return decode_jpeg(path, data, max_pixels)


def _is_dji_thermal(segments: list[Segment]) -> bool:
    """Whether a drone of DJI has put its counts, in APP3, beside the picture."""
    is_dji = any(each.marker == 0xE1 and b"DJI\0" in each.content for each in segments)
    return is_dji and any(each.marker == 0xE3 and len(each.content) > 2**15 for each in segments)


def _read_bmp(path: Path | MemoryFile, max_pixels: int) -> NDArray[Any]:
    data = path.read_bytes()
    place = 24 if data[14:18] == b"\x0c\0\0\0" else 28  # OS/2's header is shorter
    if data[place : place + 2] == b"\x10\0":
        raise FrameError(
            f"{path} is a BMP of 16 bits a pixel, counts or colors, which it does not say: save "
            "counts as PNG or TIFF, a picture with 8 bits a color"
        )
    with path.open("rb") as file, BmpImagePlugin.BmpImageFile(file) as image:
        check_size(path, image.height, image.width, max_pixels)
        if image.mode in ("1", "L"):
            return np.array(image)
        colors = np.array(image.convert("RGB"))
        return check_palette(path, np.array(image), colors) if image.mode == "P" else colors


def _read_added(
    reader: Callable[..., NDArray[Any]], path: Path | MemoryFile, max_pixels: int
) -> NDArray[Any]:
    counts = np.asarray(reader(path, 0, max_pixels))
    check_size(path, counts.shape[0], counts.shape[1], max_pixels)
    return counts


OPENERS: Final[dict[bytes, Opener]] = {
    PNG_START: open_single(read_png),
    b"II*\0": open_tiff,
    b"MM\0*": open_tiff,
    b"II+\0": open_tiff,
    b"MM\0+": open_tiff,
    NPY_START: open_single(read_npy),
    NPZ_START: open_single(read_npz),
    b"P2": open_single(read_pgm),
    b"P5": open_single(read_pgm),
    b"BM": open_single(_read_bmp),
    JPEG_START: open_single(_read_jpeg),
    **dict.fromkeys(FLIR_START, open_flir),
    ENVI_START: open_envi,
    FITS_START: open_fits,
    HDF5_START: open_hdf5,
}
"""What opens a file, by its first bytes."""
