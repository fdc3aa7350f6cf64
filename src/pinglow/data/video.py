"""Read the frames of a video file one by one, with their counts intact.

Of YUV and grey videos the luma plane is taken as it is stored, 8 to 16 bits; RGB ones become grey
as `read_frame` makes them. Memory does not grow with the length of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.data.io import MAX_PIXELS, check_size, collapse_channels
from pinglow.errors import FrameError
from pinglow.extras import import_extra

_TICK = 1e-3  # seconds; some containers round times to it

VIDEO_SUFFIXES: frozenset[str] = frozenset({".mp4", ".avi", ".mkv", ".mov", ".m4v"})


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself.

    Attributes:
        rate: Frames a second.
        frames: Number of frames, exact or from the duration; None if the file says neither.
    """

    rate: float
    frames: int | None


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame of a video.

    Attributes:
        index: Its number in the video, from 0.
        time: Seconds from the start of the video.
        counts: (H, W) uint8 or uint16.
    """

    index: int
    time: float
    counts: NDArray[Any]


def is_video(path: Path) -> bool:
    """Whether a file's name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def probe_video(path: Path) -> VideoInfo:
    """Read a video's header.

    Raises:
        FrameError: The file is missing, damaged, or has no video.
        MissingExtraError: PyAV is not installed.
    """
    with _open(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        frames = int(stream.frames)
        if not frames and container.duration:  # in microseconds
            frames = round(container.duration / 1e6 * rate)
        return VideoInfo(rate, frames or None)


def read_video(
    path: Path,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[VideoFrame]:
    """Decode a video.

    Args:
        path: The file.
        every: Take each ``every``-th frame, counted from the first of the video.
        start: Skip what is before this time, in seconds.
        end: Stop at this time, in seconds; None: at the end.
        max_pixels: Refuse a video whose header claims more pixels a frame.

    Raises:
        FrameError: The file is missing, damaged, cut short, or has no video. What was decoded
            before the damage has been given out.
        MissingExtraError: PyAV is not installed.
    """
    with _open(path) as (container, stream):
        check_size(path, stream.height, stream.width, max_pixels)
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        base = float(stream.time_base or 0)
        first = (stream.start_time or 0) * base
        if start > 0 and base:
            # To a key frame before it; what is between is decoded and left out.
            container.seek(int((first + start) / base), stream=stream)
        index = -1
        for frame in container.decode(stream):
            # A frame without a time comes one step after the one before it.
            time = (index + 1) / rate if frame.time is None else float(frame.time) - first
            index = max(index + 1, round(time * rate))
            if end is not None and time >= end:
                return
            if time < start - _TICK or index % every:
                continue
            yield VideoFrame(index, time, _counts(path, frame))


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any]]:
    """A container and its first video stream; whatever goes wrong with them is a FrameError."""
    av = import_extra("av", "video", "reading videos")
    av.logging.set_level(None)
    if not path.is_file():
        raise FrameError(f"{path} does not exist: check the path")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise FrameError(f"{path} holds no video: name another file")
            yield container, container.streams.video[0]
    except (av.FFmpegError, EOFError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise FrameError(f"{path} is damaged or cut short ({detail}): copy it again") from error


def _counts(path: Path, frame: Any) -> NDArray[Any]:
    """(H, W) of a decoded frame."""
    form = frame.format
    luma = form.components[0]
    if form.is_rgb or form.has_palette:
        counts = frame.to_ndarray(format="rgb48le" if luma.bits > 8 else "rgb24")
        return np.ascontiguousarray(collapse_channels(path, counts))
    alone = sum(component.plane == luma.plane for component in form.components) == 1
    if not alone or form.is_bit_stream or luma.bits > 16:
        return np.asarray(frame.to_ndarray(format="gray16le" if luma.bits > 8 else "gray"))
    size = 2 if luma.bits > 8 else 1
    order = ">" if form.is_big_endian else "<"
    plane = frame.planes[luma.plane]
    rows = np.frombuffer(plane, dtype=f"{order}u{size}").reshape(plane.height, -1)
    return rows[: frame.height, : frame.width].astype(f"u{size}")
