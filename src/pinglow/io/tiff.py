"""One page of a TIFF as gray counts, and how many pages there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.io.counts import Pages, check_palette, check_size, damaged
from pinglow.io.memory import MemoryFile

# Photometric interpretations that are gray or become gray: 0 white is zero, 1 black is zero,
# 2 RGB, 3 palette, 6 YCbCr (decoded to RGB), 34892 DNG's counts of one or three colors.
_TIFF_PHOTOMETRICS = (0, 1, 2, 3, 6, 34892)
_KEEP_LUMA: Final = (1, 5, 8, 32773, 32946, 34925, 50000)  # and colors; JPEG's decoders make RGB
_PHOTOMETRIC: Final = 262  # the tag
_NO_FRAME: Final = 1 | 4 | 8  # bits of the tag NewSubfileType: reduced resolution, mask, depth
_SUB_IFDS: Final = 330  # the tag: images that belong to a page, such as a camera's main one
_NODATA: Final = 42113  # GDAL's tag: the value of pixels that were not measured


_DEEPEST: Final = 4  # images below images below a page

_Place = tuple[int, ...]
"""A page; then which of the images that belong to it, and of those that belong to that one."""

_Rank = tuple[int, int, int]


@contextmanager
def open_tiff(path: Path | MemoryFile, max_pixels: int) -> Iterator[Pages]:
    """The frames of a file; where it is cut short, the first lost one counts."""
    with tifffile.TiffFile(path if isinstance(path, Path) else path.open("rb")) as tiff:
        listed = _list_places(tiff)
        count = max(len(listed) + _lacks_pages(tiff), _count_unlisted(tiff))
        yield Pages(count, lambda page: _read(tiff, listed, path, page, max_pixels))


def _list_places(tiff: tifffile.TiffFile) -> Sequence[_Place]:
    """Which images of an open file are frames: not a frame's smaller copies, nor its mask.

    GDAL puts those behind the frame; a camera may put a thumbnail before it, and the frame below.
    """
    every = [(page,) for page in range(len(tiff.pages))]
    if all(_main_places(tiff, page) == [page] for page in {*every[:2], *every[-1:]}):
        return every  # without a look at the thousands of a stack
    return [place for page in every for place in _main_places(tiff, page)] or every


def _main_places(tiff: tifffile.TiffFile, page: _Place) -> list[_Place]:
    """Of a page and the images that belong to it, the main one that is no copy or mask."""
    whole: list[tuple[_Rank, _Place]] = []
    places, seen = [page], set[int]()
    for place in places:
        try:
            ifd = _find_ifd(tiff, place)
        except Exception:  # damaged: reading it says so, and the others may be whole
            whole += [] if whole else [((0, 0, 0), place)]
            continue
        whole += [] if _is_copy(ifd) else [(_rank(ifd), place)]
        below = ifd.subifds or () if _SUB_IFDS in ifd.tags and len(place) <= _DEEPEST else ()
        seen.add(ifd.offset)  # images may belong to each other in a circle
        places += [(*place, i) for i, offset in enumerate(below) if offset not in seen]
        seen.update(below)
    best = max((rank for rank, _ in whole), default=None)
    return [place for rank, place in whole if rank == best]


def _find_ifd(tiff: tifffile.TiffFile, place: _Place) -> Any:
    ifd: Any = tiff.pages[place[0]]
    for number in place[1:]:
        ifd = ifd.pages[number]
    return ifd


def _is_copy(ifd: Any) -> bool:
    return bool(ifd.subfiletype & _NO_FRAME)


def _rank(ifd: Any) -> _Rank:
    """By pixels; of as many, counts go before the picture that a camera makes of them."""
    return int(ifd.imagelength * ifd.imagewidth), -int(ifd.samplesperpixel), int(ifd.bitspersample)


def _read(
    tiff: tifffile.TiffFile,
    listed: Sequence[_Place],
    path: Path | MemoryFile,
    page: int,
    max_pixels: int,
) -> NDArray[Any]:
    pages = len(listed)
    unlisted = _count_unlisted(tiff)
    if page == pages and _lacks_pages(tiff):
        raise damaged(path, f"it is cut short after page {pages - 1}")
    ifd = _find_ifd(tiff, (0,) if unlisted else listed[page])
    check_size(path, ifd.imagelength, ifd.imagewidth, max_pixels)
    _check_tiff_data(path, ifd, tiff.filehandle.size, max_pixels)
    if unlisted:
        pixels = ifd.imagelength * ifd.imagewidth
        dtype = ifd.dtype.newbyteorder(tiff.byteorder)
        place = ifd.dataoffsets[0] + page * pixels * dtype.itemsize
        if place + pixels * dtype.itemsize > tiff.filehandle.size:
            raise damaged(path, f"it is cut short after page {page - 1}")
        counts = tiff.filehandle.read_array(dtype, pixels, place)
        counts = counts.reshape(ifd.imagelength, ifd.imagewidth)
    else:
        counts = ifd.asarray()
    if ifd.photometric == 3:
        colors = np.moveaxis(_shorten_palette(ifd.colormap)[:, counts], 0, -1)
        counts = check_palette(path, counts, colors)
    elif counts.ndim == 3:
        planar = ifd.axes.startswith("S")
        counts = np.moveaxis(counts, 0, -1) if planar else counts
        if ifd.photometric == 6 and ifd.compression in _KEEP_LUMA:
            return counts[..., 0]
        # Writers take a stack of three or four frames for colors; their mixture is neither.
        unsure = planar or ifd.photometric < 2
        if counts.shape[2] == 2:  # the second may be said to be alpha, or be the same all over
            unsure = not {1, 2} & set(ifd.extrasamples) and bool(np.ptp(counts[..., 1]))
        planes = counts[..., :3] if ifd.photometric == 2 else counts  # without alpha
        if unsure and (planes != planes[..., :1]).any():
            raise FrameError(
                f"{path} holds {counts.shape[2]} planes that may be frames or colors: save frames "
                "as pages (tifffile: photometric='minisblack'), colors as interleaved RGB"
            )
    # tifffile calls true and false "white is zero" unless told otherwise, and means no inversion.
    as_meant = ifd.bitspersample == 1 and ifd.software == "tifffile.py"
    as_meant |= ifd.photometric != 0 or _PHOTOMETRIC not in ifd.tags
    if not as_meant and counts.dtype.kind in "bu":
        counts = counts ^ counts.dtype.type((1 << ifd.bitspersample) - 1)
    return _mark_nodata(ifd, counts) if counts.ndim == 2 else counts


def _count_unlisted(tiff: tifffile.TiffFile) -> int:
    """Frames of a stack that has a header for the first alone, as ImageJ writes above 4 GB; or 0.

    They follow the first one's pixels; the number stands in the file's description, which a copy
    of one frame may have kept. Where the file is cut short, the first lost one counts.
    """
    ifd: Any = tiff.pages[0]
    size = ifd.imagelength * ifd.imagewidth * ifd.bitspersample // 8
    if len(tiff.pages) > 1 or ifd.samplesperpixel > 1 or ifd.compression > 1 or size < 1:
        return 0
    if tiff.is_imagej:
        claimed = int((tiff.imagej_metadata or {}).get("images", 1))
    else:  # tifffile's own way
        (shaped, *_) = tiff.shaped_metadata or ({"shape": ()},)
        shape = tuple(shaped["shape"])
        shape = shape[:-1] if shape[-1:] == (1,) and shape[-3:-1] == ifd.shape else shape
        claimed = math.prod(shape[:-2]) if shape[-2:] == ifd.shape else 1
    stored, rest = divmod(tiff.filehandle.size - ifd.dataoffsets[0], size)
    # What follows a copy of one frame is its header, if anything.
    begun = stored > 1 or (rest > 0 and ifd.offset < ifd.dataoffsets[0])
    return min(claimed, stored + 1) if claimed > 1 and begun else 0


def _mark_nodata(ifd: Any, counts: NDArray[Any]) -> NDArray[Any]:
    """The same with NaN where the file says that nothing was measured."""
    try:
        nodata = float(ifd.tags[_NODATA].value)
    except (KeyError, ValueError):
        return counts
    with np.errstate(over="ignore"):
        missing = counts == nodata
    return np.where(missing, np.float32(np.nan), counts) if missing.any() else counts


def _lacks_pages(tiff: tifffile.TiffFile) -> bool:
    """Whether the chain of pages, each pointing to the next, breaks off before its end, a 0."""
    place = tiff.pages.next_page_offset
    if place is None:
        return False
    tiff.filehandle.seek(place)
    return any(tiff.filehandle.read(tiff.tiff.offsetsize)) or place >= tiff.filehandle.size


def _check_tiff_data(path: Path | MemoryFile, ifd: Any, file_size: int, max_pixels: int) -> None:
    """Check a page's claims against the file: tifffile allocates first and fills gaps with 0."""
    samples = ifd.samplesperpixel
    if ifd.imagedepth != 1 or samples > 4 or ifd.photometric not in _TIFF_PHOTOMETRICS:
        raise FrameError(
            f"{path} holds a volume, {samples} bands or an unusual color space: "
            "save gray or RGB frames"
        )
    if ifd.tilelength * ifd.tilewidth > max(max_pixels, 4 * ifd.imagelength * ifd.imagewidth):
        raise damaged(path, f"a tile of {ifd.tilewidth} x {ifd.tilelength} pixels")
    segments = list(zip(ifd.dataoffsets, ifd.databytecounts, strict=True))
    if len(segments) < math.prod(ifd.chunked) or any(
        offset < 1 or size < 1 or offset + size > file_size for offset, size in segments
    ):
        raise damaged(path, "image data missing")
    claimed = ifd.imagelength * ifd.imagewidth * samples * ifd.bitspersample // 8
    if ifd.compression == 1 and sum(ifd.databytecounts) < claimed:
        raise damaged(path, f"{claimed} bytes of image data claimed, fewer stored")


def _shorten_palette(palette: NDArray[np.uint16]) -> NDArray[Any]:
    """Bring a (3, N) palette of 8-bit colors back from its 16-bit entries."""
    high = palette >> 8
    eight_bit = (palette == high * 256) | (palette == high * 257)
    return high.astype(np.uint8) if eight_bit.all() else palette
