"""What the readers of images and videos share: limits, refusals, and gray from channels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.io.memory import MemoryFile

MAX_PIXELS = 2**28  # 16384 x 16384

_logger = logging.getLogger("pinglow")


def damaged(path: Path | MemoryFile, error: Exception | str) -> FrameError:
    """What is raised for a file whose bytes are not what they should be."""
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return FrameError(f"{path} is damaged or cut short ({detail}): copy or export it again")


def check_size(path: Path | MemoryFile, height: int, width: int, max_pixels: int) -> None:
    """Refuse a frame without pixels, or of more than ``max_pixels``."""
    if height < 1 or width < 1:
        raise FrameError(f"{path} has no pixels ({width} x {height}): copy or export it again")
    if height * width > max_pixels:
        raise FrameError(
            f"{path} claims {width} x {height} pixels, more than the limit of {max_pixels}: "
            "cut it into smaller frames first"
        )


def collapse_channels(path: Path | MemoryFile, counts: NDArray[Any]) -> NDArray[Any]:
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
    _warn_color(path)
    if counts.dtype in (np.uint8, np.uint16):
        # Pillow's 16.16 fixed point; the sum of a 16-bit frame just fits into 32 bits.
        red, green, blue = (channel.astype(np.uint32) for channel in (red, green, blue))
        gray = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        return np.asarray(gray, dtype=counts.dtype)
    return np.asarray(0.299 * red + 0.587 * green + 0.114 * blue)


def _warn_color(path: Path | MemoryFile) -> None:
    """Warn about the first file in color that a process reads."""
    if not _colored:
        _colored.append(path)
        _logger.warning(f"{path} is in color: reading its luminance (said once)")


_colored: list[Path | MemoryFile] = []
