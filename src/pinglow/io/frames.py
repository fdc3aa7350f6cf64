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

The two bytes of each count are swapped back where they are certainly in the wrong order, which is
said (`pinglow.io.counts.looks_swapped`).
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError, FrameError
from pinglow.io.counts import MAX_PIXELS, Pages, collapse_channels, name_damage, order_bytes
from pinglow.io.memory import MemoryFile
from pinglow.io.readers import find_opener, frame_suffixes

_logger = logging.getLogger("pinglow")

_SEPARATORS = re.escape(f"/{os.sep}")
_DESCENT = re.compile(rf"(^|[{_SEPARATORS}])\*\*(?:[{_SEPARATORS}]+|$)")


def read_frame(path: str | Path, *, page: int = 0, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Read one gray frame of a file of any kind that docs/guides/cameras.md lists.

    Args:
        path: The file.
        page: Which page of a TIFF, frame of a sequence, band or plane, from 0; other files have
            page 0 only. Smaller copies of a page, as GDAL and cameras keep them in the file, and
            masks are not counted.
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
    path: str | Path | MemoryFile,
    *,
    max_pixels: int = MAX_PIXELS,
    channels: bool = False,
    as_stored: bool = False,
) -> Iterator[Callable[[int], NDArray[Any]]]:
    """Open a file once, to read any of its pages: what is given out maps a page to its frame.

    Args:
        path: As for `read_frame`, which says what a frame is and what is refused.
        max_pixels: The same.
        channels: Keep those of a color or an alpha, as (H, W, C).
        as_stored: Keep the file's own type, float64 and the like.

    Raises:
        FrameError: On opening, or on reading a page: see `read_frame`.
    """
    path = Path(path) if isinstance(path, str) else path
    with _open_pages(path, max_pixels) as pages:

        def read(page: int) -> NDArray[Any]:
            if not 0 <= page < pages.count:
                raise FrameError(f"{path} has no page {page}: choose 0 to {pages.count - 1}")
            with name_damage(path):
                counts = pages.read(page)
                counts = counts if channels else order_bytes(path, collapse_channels(path, counts))
                counts = counts if as_stored else simplify_dtype(path, counts)
                return np.ascontiguousarray(counts)

        yield read


@contextmanager
def _open_pages(path: Path | MemoryFile, max_pixels: int) -> Iterator[Pages]:
    opener = find_opener(path)
    with ExitStack() as stack:
        with name_damage(path):
            pages = stack.enter_context(opener(path, max_pixels))
        yield pages


def read_only_frame(
    path: str | Path, *, channels: bool = False, as_stored: bool = False
) -> NDArray[Any]:
    """Read a file that stands for one frame, as those of a data folder do; see `open_frames`.

    Raises:
        FrameError: See `read_frame`; or the file holds several frames.
    """
    with open_frames(path, channels=channels, as_stored=as_stored) as read:
        frame = read(0)
    pages = count_pages(path)
    if pages > 1:
        read_frame(path, page=1)  # says so if it is not there: the file is cut short
        raise FrameError(f"{path} holds {pages} frames: save each to a file of its own")
    return frame


def count_pages(path: str | Path | MemoryFile) -> int:
    """Count the frames in a file: pages, bands, planes, frames of a sequence; most hold 1.

    Where a TIFF is cut short, the first lost page counts, so that reading it says so.

    Raises:
        FrameError: The file is missing, empty, of an unknown kind, or too damaged to tell.
        MissingExtraError: Its kind needs a package that is not installed.
    """
    path = Path(path) if isinstance(path, str) else path
    with _open_pages(path, MAX_PIXELS) as pages:
        return pages.count


def find_frames(
    sources: Sequence[str | Path],
    suffixes: frozenset[str] | None = None,
    results: Sequence[Path] = (),
    *,
    tell_others: bool = False,
) -> list[Path]:
    """List the frames that files, folders and glob patterns stand for.

    A file is taken whatever its suffix. A folder stands for the frames directly in it, a pattern
    for the frames that match it (``**`` descends); both by their suffixes, in natural order
    (2 before 10), without hidden files. The order of ``sources`` is kept; a file that is met
    again is dropped. Links to nothing are kept: reading them says so.

    Args:
        sources: Files, folders, patterns.
        suffixes: Of the files that folders and patterns stand for, in lower case; None: those of
            frames.
        results: Files and folders in which patterns find nothing: an earlier job's results.
        tell_others: Say how many files of other suffixes folders and patterns hold.

    Raises:
        DataError: A source does not exist, or none holds a frame (a folder without any is
            warned about where others have some).
    """
    suffixes = frame_suffixes() if suffixes is None else suffixes
    found: dict[str, Path] = {}
    empty: list[str] = []
    other: Counter[str] = Counter()
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = _keep_frames(path.iterdir(), suffixes, other)
        elif path.exists():
            matches = [path]
        elif glob.has_magic(str(source)):
            own = {os.path.realpath(result) for result in results}
            matches = _keep_frames(
                (
                    match
                    for match in map(Path, _expand(str(source)))
                    if own.isdisjoint((os.path.realpath(match.parent), os.path.realpath(match)))
                ),
                suffixes,
                other,
            )
        else:
            raise DataError(f"{source} does not exist: check the path")
        if not matches:
            kinds = ", ".join(sorted(suffixes))
            inner = path / "images" if (path / "images").is_dir() else f"{path}/**/*.png"
            hint = f" (subfolders are not searched; try '{inner}')" if path.is_dir() else ""
            empty.append(f"{source} holds no frames: name a place with {kinds} files{hint}")
        for match in matches:
            found.setdefault(os.path.realpath(match), match)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(other.items()))
    if not found:
        raise DataError(empty[0] + (f"; there are {kinds}" if other else ""))
    for reason in empty:
        _logger.warning(reason)
    if other and tell_others:
        _logger.warning(f"not read, as they are not named as frames are: {kinds}")
    return list(found.values())


def strip_suffix(name: str) -> str:
    """A frame's name without the suffix of its file; any other dot stays."""
    path = Path(name)
    return name.removesuffix(path.suffix) if path.suffix.lower() in frame_suffixes() else name


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


def _keep_frames(
    paths: Iterable[Path], suffixes: frozenset[str], other: Counter[str]
) -> list[Path]:
    """Those with one of the suffixes, sorted; the others that are files are counted by theirs."""
    frames = []
    for path in paths:
        if path.name.startswith(".") or path.is_dir():
            continue
        suffix = path.suffix.lower()
        if path.exists() and not path.is_file():
            other["pipe or device"] += 1
        elif suffix in suffixes:
            frames.append(path)
        else:
            other[suffix or "without a suffix"] += 1
    return sorted(frames, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    # re.split with a group alternates text, digits, text: like is always compared with like.
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)], str(path)


def simplify_dtype(path: Path | MemoryFile | str, counts: NDArray[Any]) -> NDArray[Any]:
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
