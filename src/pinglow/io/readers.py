"""The readers of single frames, by the first bytes of a file; those of TIFFs are in `tiff`.

Another package adds one as an entry point of the group ``pinglow.readers``: its name is the suffix
of the files, as ``.raw14``, and it maps (path, page, max_pixels) to the (H, W) counts of page 0.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, ImageFile, JpegImagePlugin

from pinglow.errors import FrameError
from pinglow.io.counts import check_size, collapse_channels, damaged
from pinglow.io.memory import MemoryFile
from pinglow.io.tiff import read_tiff
from pinglow.plugins import find_plugin, plugin_names

FRAME_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".tif", ".tiff", ".npy", ".pgm", ".bmp", ".jpg", ".jpeg"}
)

GROUP: Final = "pinglow.readers"
"""The group of entry points by which other packages add readers."""

Reader = Callable[..., NDArray[Any]]
"""Maps a file, a page and a limit of pixels to (H, W) counts."""

_PGM_GAP = rb"(?:\s|#[^\n]*\n)+"
PGM_HEADER = re.compile(
    rb"P[25]" + _PGM_GAP + _PGM_GAP.join([rb"(\d{1,9})", rb"(\d{1,9})", rb"(\d{1,5})\s"])
)


def frame_suffixes() -> frozenset[str]:
    """The suffixes of files of frames, those of other packages' readers with them."""
    return FRAME_SUFFIXES | _added_suffixes(tuple(sys.path))


@functools.cache
def _added_suffixes(_: tuple[str, ...]) -> frozenset[str]:
    """Looked up once, as long as packages are imported from the same places."""
    return frozenset(name.lower() for name in plugin_names(GROUP))


def find_reader(path: Path | MemoryFile) -> Reader:
    """Choose the reader by the file's first bytes, or by a suffix that another package has added.

    `read_tiff` wants the open file first.

    Raises:
        FrameError: The file is missing, empty, or of an unknown kind.
        MissingExtraError: The other package cannot be imported.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise FrameError(f"{path} is a pipe or a device: save the frame to a file")
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise FrameError(f"{path} does not exist: check the path") from None
    except IsADirectoryError:
        raise FrameError(f"{path} is a folder: name a file in it") from None
    except (OSError, ValueError) as error:
        raise FrameError(f"{path} cannot be opened ({error}): check its permissions") from error
    if not start:
        raise FrameError(f"{path} is empty: copy or export it again")
    suffix = path.suffix.lower()
    if isinstance(path, Path) and suffix in _added_suffixes(tuple(sys.path)):
        return functools.partial(_read_added, find_plugin(GROUP, suffix))
    for signature, reader in READERS.items():
        if start.startswith(signature):
            return reader
    raise FrameError(
        f"{path} is not a frame that pinglow reads: convert it to PNG, TIFF, NPY, PGM, BMP or JPEG"
    )


def _check_single(path: Path | MemoryFile, page: int) -> None:
    if page != 0:
        raise FrameError(f"{path} has no page {page}: it holds one frame, page 0")


def _read_png(path: Path | MemoryFile, page: int, max_pixels: int) -> NDArray[Any]:
    # Not Pillow: it cuts 16-bit RGB, RGBA and LA to 8 bits and does not verify checksums.
    _check_single(path, page)
    data = path.read_bytes()
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    if len(data) < 33:
        raise damaged(path, "no image header")
    check_size(path, height, width, max_pixels)
    if b"acTL" in data[: data.find(b"IDAT")]:
        raise FrameError(f"{path} is an animation of several frames: save each to a file")
    return collapse_channels(path, imagecodecs.png_decode(_keep_pixels(data)))


def _keep_pixels(data: bytes) -> bytes:
    """A PNG without what its pixels do not need, of which libpng prints what is wrong with it."""
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if not data[place + 4] & 0x20 or end > len(data):  # needed, or the decoder tells the damage
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def _read_with_pillow(
    plugin: Callable[[IO[bytes]], ImageFile.ImageFile],
    path: Path | MemoryFile,
    page: int,
    max_pixels: int,
) -> NDArray[Any]:
    # The plug-in itself, not Image.open: that guesses other kinds (MPO) and brings its own pixel
    # limit, with a warning below ours.
    _check_single(path, page)
    with path.open("rb") as file, plugin(file) as image:
        check_size(path, image.height, image.width, max_pixels)
        if image.mode in ("1", "L"):
            return np.array(image)
        return collapse_channels(path, np.array(image.convert("RGB")))


def _read_pgm(path: Path | MemoryFile, page: int, max_pixels: int) -> NDArray[Any]:
    # Not Pillow: it stretches counts to the full range when maxval is not 255 or 65535.
    _check_single(path, page)
    data = path.read_bytes()
    header = PGM_HEADER.match(data)
    if header is None:
        raise damaged(path, "no PGM header")
    width, height, top = (int(number) for number in header.groups())
    check_size(path, height, width, max_pixels)
    if not 1 <= top <= 65535:
        raise damaged(path, f"maxval is {top}")
    if data.startswith(b"P5"):
        counts = np.frombuffer(
            data, ">u2" if top > 255 else "u1", count=height * width, offset=header.end()
        )
        if data[header.end() + counts.nbytes :].lstrip().startswith(b"P5"):
            raise FrameError(f"{path} holds several frames: save each to a file")
    else:
        words = re.sub(rb"#[^\n]*", b"", data[header.end() :]).split()[: height * width]
        counts = np.array([int(word) for word in words], dtype=np.uint32)
        if counts.max(initial=0) > top:
            raise damaged(path, f"a count is above maxval {top}")
        counts = counts.astype(np.uint16 if top > 255 else np.uint8)
    return counts.reshape(height, width)


def _read_npy(path: Path | MemoryFile, page: int, max_pixels: int) -> NDArray[Any]:
    # Mapped first: that reads the header alone and compares what it claims with the file's size.
    _check_single(path, page)
    if isinstance(path, Path):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        mapped = np.load(path.open("rb"), allow_pickle=False)
    shape = mapped.shape
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        shape = shape[1:] if shape[0] == 1 else shape[:2]
    if len(shape) != 2:
        raise FrameError(f"{path} holds an array of shape {shape}: save one (H, W) array per file")
    check_size(path, shape[0], shape[1], max_pixels)
    return np.array(mapped).reshape(shape)


def _read_added(reader: Reader, path: Path, page: int, max_pixels: int) -> NDArray[Any]:
    _check_single(path, page)
    counts = collapse_channels(path, np.asarray(reader(path, page, max_pixels)))
    check_size(path, counts.shape[0], counts.shape[1], max_pixels)
    return counts


READERS: Final[dict[bytes, Reader]] = {
    b"\x89PNG\r\n\x1a\n": _read_png,
    b"II*\0": read_tiff,
    b"MM\0*": read_tiff,
    b"II+\0": read_tiff,
    b"MM\0+": read_tiff,
    b"\x93NUMPY": _read_npy,
    b"P2": _read_pgm,
    b"P5": _read_pgm,
    b"BM": functools.partial(_read_with_pillow, BmpImagePlugin.BmpImageFile),
    b"\xff\xd8\xff": functools.partial(_read_with_pillow, JpegImagePlugin.JpegImageFile),
}
"""Readers by the first bytes of a file."""
