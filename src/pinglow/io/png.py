"""PNG: gray counts of 8 and 16 bits, with every checksum verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.io.counts import check_size, damaged
from pinglow.io.memory import MemoryFile

PNG_START: Final = b"\x89PNG\r\n\x1a\n"


def read_png(path: Path | MemoryFile, max_pixels: int) -> NDArray[Any]:
    """(H, W) or (H, W, C) counts of a file."""
    return decode_png(path, path.read_bytes(), max_pixels)


def decode_png(path: Path | MemoryFile, data: bytes, max_pixels: int) -> NDArray[Any]:
    """(H, W) or (H, W, C) counts of an image that is, or is a part of, the file at ``path``."""
    # Not Pillow: it cuts 16-bit RGB, RGBA and LA to 8 bits and does not verify checksums.
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    if len(data) < 33:
        raise damaged(path, "no image header")
    check_size(path, height, width, max_pixels)
    if b"acTL" in data[: data.find(b"IDAT")]:
        raise FrameError(f"{path} is an animation of several frames: save each to a file")
    return np.asarray(imagecodecs.png_decode(_keep_pixels(data)))


def _keep_pixels(data: bytes) -> bytes:
    """A PNG without what its pixels do not need, of which libpng prints what is wrong with it."""
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if not data[place + 4] & 0x20 or end > len(data):  # needed, or the decoder tells the damage
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])
