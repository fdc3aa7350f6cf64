"""Read one frame from a file into a 2-D array with its counts intact.

A file's kind is taken from its first bytes, never from its suffix. Nothing is scaled: a 14-bit
frame keeps its 16,384 levels until normalization. What comes out is always (H, W) and one of

=========  ===================================================================================
uint8      8-bit frames; bilevel ones as 0 and 255; 2- and 4-bit PNGs spread over 0..255
uint16     16-bit frames; any other integers that all lie in 0..65535
float32    float frames, NaN and inf included; integers outside 0..65535, such as a signed
           thermal frame with counts below zero (exact up to 2**24, then to 6e-8 of the value);
           frames with pixels of their file's no-data value (GDAL), which become NaN
=========  ===================================================================================

Alpha is dropped. Channels that are equal collapse exactly; real color becomes luminance
(ITU-R BT.601, Pillow's integer formula at any bit depth). An orientation tag is not applied:
coordinates refer to the pixels as stored.
"""

from __future__ import annotations

import functools
import glob
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import BmpImagePlugin, ImageFile, JpegImagePlugin

from pinglow.errors import DataError, FrameError
from pinglow.io.counts import MAX_PIXELS, check_size, collapse_channels, damaged
from pinglow.io.tiff import count_tiff_pages, list_tiff_pages, read_tiff

FRAME_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".tif", ".tiff", ".npy", ".pgm", ".bmp", ".jpg", ".jpeg"}
)

_logger = logging.getLogger("pinglow")

_SEPARATORS = re.escape(f"/{os.sep}")
_DESCENT = re.compile(rf"(^|[{_SEPARATORS}])\*\*(?:[{_SEPARATORS}]+|$)")
_PGM_GAP = rb"(?:\s|#[^\n]*\n)+"
PGM_HEADER = re.compile(
    rb"P[25]" + _PGM_GAP + _PGM_GAP.join([rb"(\d{1,9})", rb"(\d{1,9})", rb"(\d{1,5})\s"])
)


def read_frame(path: str | Path, *, page: int = 0, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Read a PNG, TIFF, NPY, PGM, BMP or JPEG file as one gray frame.

    Args:
        path: The file.
        page: Which page of a multi-page TIFF, from 0; other files have page 0 only. Smaller copies
            of a page, as GDAL and cameras keep them in the file, and masks are not counted.
        max_pixels: Refuse a frame whose header claims more pixels than this, before decoding it.

    Returns:
        (H, W) uint8, uint16 or float32, counts as stored (see the module's table).

    Raises:
        FrameError: The file is missing, empty, damaged, cut short, too large, of an unknown kind,
            or has no such page.
    """
    with open_frames(path, max_pixels=max_pixels) as read:
        return read(page)


@contextmanager
def open_frames(
    path: str | Path, *, max_pixels: int = MAX_PIXELS
) -> Iterator[Callable[[int], NDArray[Any]]]:
    """Open a file once, to read any of its pages: what is given out maps a page to its frame.

    Args:
        path: As for `read_frame`, which says what a frame is and what is refused.
        max_pixels: The same.

    Raises:
        FrameError: On opening, or on reading a page: see `read_frame`.
    """
    path = Path(path)
    reader = _find_reader(path)
    with ExitStack() as stack:
        if reader is read_tiff:
            with _name_damage(path):
                tiff = stack.enter_context(tifffile.TiffFile(path))
                listed = list_tiff_pages(tiff)
            reader = functools.partial(read_tiff, tiff, listed)

        def read(page: int) -> NDArray[Any]:
            with _name_damage(path):
                return np.ascontiguousarray(_simplify_dtype(path, reader(path, page, max_pixels)))

        yield read


def read_only_frame(path: str | Path) -> NDArray[Any]:
    """Read a file that stands for one frame, as those of a data folder do; see `read_frame`.

    Raises:
        FrameError: See `read_frame`; or the file holds several frames.
    """
    frame = read_frame(path)
    pages = count_pages(path)
    if pages > 1:
        read_frame(path, page=1)  # says so if it is not there: the file is cut short
        raise FrameError(f"{path} holds {pages} frames: save each to a file of its own")
    return frame


@contextmanager
def _name_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except FrameError:
        raise
    except MemoryError as error:
        raise FrameError(
            f"{path} does not fit into memory: cut it into smaller frames first"
        ) from error
    except Exception as error:  # decoders raise anything at all on damaged bytes
        raise damaged(path, error) from error


def count_pages(path: str | Path) -> int:
    """Count the frames in a file: the pages of a TIFF, otherwise 1.

    Where a TIFF is cut short, the first lost page counts, so that reading it says so.

    Raises:
        FrameError: The file is missing, empty, of an unknown kind, or a damaged TIFF.
    """
    path = Path(path)
    if _find_reader(path) is not read_tiff:
        return 1
    with _name_damage(path), tifffile.TiffFile(path) as tiff:
        return count_tiff_pages(tiff)


def find_frames(
    sources: Sequence[str | Path],
    suffixes: frozenset[str] = FRAME_SUFFIXES,
    results: Sequence[Path] = (),
) -> list[Path]:
    """List the frames that files, folders and glob patterns stand for.

    A file is taken whatever its suffix. A folder stands for the frames directly in it, a pattern
    for the frames that match it (``**`` descends); both by their suffixes, in natural order
    (2 before 10), without hidden files. The order of ``sources`` is kept; a file that is met
    again is dropped. Links to nothing are kept: reading them says so.

    Args:
        sources: Files, folders, patterns.
        suffixes: Of the files that folders and patterns stand for, in lower case.
        results: Folders in which patterns find nothing: those of an earlier job's results.

    Raises:
        DataError: A source does not exist, or none holds a frame (a folder without any is
            warned about where others have some).
    """
    found: dict[str, Path] = {}
    empty: list[str] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = _keep_frames(path.iterdir(), suffixes)
        elif path.exists():
            matches = [path]
        elif glob.has_magic(str(source)):
            matches = _keep_frames(map(Path, _expand(str(source))), suffixes)
            own = {os.path.realpath(folder) for folder in results}
            matches = [match for match in matches if os.path.realpath(match.parent) not in own]
        else:
            raise DataError(f"{source} does not exist: check the path")
        if not matches:
            kinds = ", ".join(sorted(suffixes))
            inner = path / "images" if (path / "images").is_dir() else f"{path}/**/*.png"
            hint = f" (subfolders are not searched; try '{inner}')" if path.is_dir() else ""
            empty.append(f"{source} holds no frames: name a place with {kinds} files{hint}")
        for match in matches:
            found.setdefault(os.path.realpath(match), match)
    if not found:
        raise DataError(empty[0])
    for reason in empty:
        _logger.warning(reason)
    return list(found.values())


def strip_suffix(name: str) -> str:
    """A frame's name without the suffix of its file; any other dot stays."""
    path = Path(name)
    return name.removesuffix(path.suffix) if path.suffix.lower() in FRAME_SUFFIXES else name


def _expand(pattern: str) -> Iterator[str]:
    """What a glob pattern stands for; ``**`` goes into each folder once, by links only if need be.

    `glob` goes every way that links in a circle allow: with two of them it does not come back. Ours
    takes ``**/`` at the end for ``**/*``.
    """
    descent = _DESCENT.search(pattern)
    if descent is None:
        yield from glob.iglob(pattern)
        return
    start, rest = pattern[: descent.start()], pattern[descent.end() :] or "*"
    inner = glob.glob(start) if start else [descent[1] or os.curdir]
    folders: deque[str] = deque()
    links: deque[str] = deque()
    seen: set[str] = set()
    while inner or folders or links:
        for path in sorted(inner, key=lambda path: _natural_key(Path(path))):
            (links if Path(path).is_symlink() else folders).append(path)
        folder, inner = (folders or links).popleft(), []
        if (place := os.path.realpath(folder)) not in seen:
            seen.add(place)
            yield from _expand(os.path.join(glob.escape(folder), rest))
            inner = glob.glob(os.path.join(glob.escape(folder), "*", ""))


def _keep_frames(paths: Iterable[Path], suffixes: frozenset[str]) -> list[Path]:
    frames = (
        path
        for path in paths
        if path.suffix.lower() in suffixes
        and not path.name.startswith(".")
        and (path.is_file() or not path.exists())
    )
    return sorted(frames, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    # re.split with a group alternates text, digits, text: like is always compared with like.
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)], str(path)


def _find_reader(path: Path) -> Callable[..., NDArray[Any]]:
    """Choose the reader by the file's first bytes; `read_tiff` wants the open file first."""
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
    for signature, reader in _READERS.items():
        if start.startswith(signature):
            return reader
    raise FrameError(
        f"{path} is not a frame that pinglow reads: convert it to PNG, TIFF, NPY, PGM, BMP or JPEG"
    )


def _check_single(path: Path, page: int) -> None:
    if page != 0:
        raise FrameError(f"{path} has no page {page}: it holds one frame, page 0")


def _read_png(path: Path, page: int, max_pixels: int) -> NDArray[Any]:
    # Not Pillow: it cuts 16-bit RGB, RGBA and LA to 8 bits and does not verify checksums.
    _check_single(path, page)
    data = path.read_bytes()
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    if len(data) < 33:
        raise damaged(path, "no image header")
    check_size(path, height, width, max_pixels)
    if b"acTL" in data[: data.find(b"IDAT")]:
        raise FrameError(f"{path} is an animation of several frames: save each to a file")
    return collapse_channels(path, imagecodecs.png_decode(data))


def _read_with_pillow(
    plugin: Callable[[Path], ImageFile.ImageFile], path: Path, page: int, max_pixels: int
) -> NDArray[Any]:
    # The plug-in itself, not Image.open: that guesses other kinds (MPO) and brings its own pixel
    # limit, with a warning below ours.
    _check_single(path, page)
    with plugin(path) as image:
        check_size(path, image.height, image.width, max_pixels)
        if image.mode in ("1", "L"):
            return np.array(image)
        return collapse_channels(path, np.array(image.convert("RGB")))


def _read_pgm(path: Path, page: int, max_pixels: int) -> NDArray[Any]:
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


def _read_npy(path: Path, page: int, max_pixels: int) -> NDArray[Any]:
    # Mapped first: that reads the header alone and compares what it claims with the file's size.
    _check_single(path, page)
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    shape = mapped.shape
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        shape = shape[1:] if shape[0] == 1 else shape[:2]
    if len(shape) != 2:
        raise FrameError(f"{path} holds an array of shape {shape}: save one (H, W) array per file")
    check_size(path, shape[0], shape[1], max_pixels)
    return np.array(mapped).reshape(shape)


def _simplify_dtype(path: Path, counts: NDArray[Any]) -> NDArray[Any]:
    """Map any real dtype to uint8, uint16 or float32 without losing counts (module's table)."""
    kind = counts.dtype.kind
    if kind == "b":
        return np.where(counts, np.uint8(255), np.uint8(0))
    if kind == "u" and counts.itemsize <= 2:
        return counts.astype(counts.dtype.newbyteorder("="), copy=False)
    if kind in "iu":
        fits = counts.min() >= 0 and counts.max() <= 65535
        return counts.astype(np.uint16 if fits else np.float32)
    if kind == "f":
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf
            return counts.astype(np.float32, copy=False)
    raise FrameError(f"{path} holds {counts.dtype} values: save integers or floats")


_READERS: dict[bytes, Callable[..., NDArray[Any]]] = {
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
