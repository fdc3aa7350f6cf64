"""FITS: the image or the cube of a file, each plane a frame, by astropy.

Rows are taken as they are stored, so that row 0 is the first, which FITS viewers show at the
bottom.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.extras import import_extra
from pinglow.io.counts import Pages, check_size, damaged
from pinglow.io.memory import MemoryFile

FITS_START: Final = b"SIMPLE  ="


@contextmanager
def open_fits(path: Path | MemoryFile, max_pixels: int) -> Iterator[Pages]:
    """The frames of a file: of its first image, and of others of the same size behind it.

    Raises:
        FrameError: It holds no image, or images of different sizes.
        MissingExtraError: astropy is not installed.
    """
    fits = import_extra("astropy.io.fits", "cameras", "reading FITS")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers against the standard
        with path.open("rb") as file, fits.open(file, memmap=False, lazy_load_hdus=False) as found:
            images = [each for each in found if each.is_image and len(each.shape) >= 2]
            if not images:
                raise FrameError(f"{path} holds no image: name another file")
            # A first image is the picture; what has names of its own behind it, such as masks and
            # errors, is about it.
            largest = max(map(_pixels, images))
            first = images[0] is found[0] and _pixels(images[0]) == largest
            images = images[:1] if first else images
            shapes = {image.shape[-2:] for image in images}
            if len(shapes) > 1:
                raise FrameError(
                    f"{path} holds {len(images)} images of different sizes: save one a file"
                )
            frames = [(image, plane) for image in images for plane in range(_planes(image))]
            yield Pages(len(frames), lambda page: _read(path, *frames[page], max_pixels))


def _pixels(image: Any) -> int:
    return int(np.prod(image.shape[-2:], dtype=np.int64))


def _planes(image: Any) -> int:
    return int(np.prod(image.shape[:-2], dtype=np.int64))


def _read(path: Path | MemoryFile, image: Any, plane: int, max_pixels: int) -> NDArray[Any]:
    height, width = image.shape[-2:]
    check_size(path, height, width, max_pixels)
    index = np.unravel_index(plane, image.shape[:-2]) if len(image.shape) > 2 else ()
    counts = np.asarray(image.section[tuple(int(i) for i in index)])
    if counts.shape != (height, width):
        raise damaged(path, f"{width} x {height} counts claimed")
    return counts
