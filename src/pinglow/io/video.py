"""Read the frames of a video file one by one, with their counts intact.

Of YUV and gray videos the luma is taken as it is stored, 8 to 16 bits; RGB ones become gray as
`read_frame` makes them. Memory does not grow with the length of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.extras import import_extra
from pinglow.io.counts import MAX_PIXELS, check_size, collapse_channels

_TICK = 1e-3  # seconds; some containers round times to it
_MISSING = 0.05  # of its duration: other streams may be longer than the pictures
_AMBIGUOUS = ("rgb555le", "rgb565le", "rgb555be", "rgb565be")  # what raw 16 bits are taken for
_PACKED = {"yuyv422": 0, "uyvy422": 1}  # where the first luma of a packed pair is

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
        index: Its number in the video, from 0 (see `read_video`).
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
        rate = _rate(stream)
        frames = int(stream.frames)
        frames = frames or round(_length(container, stream) * rate)
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
        start: Skip what is before this time, in seconds. Frames are then numbered by their time
            and the average rate, which is their number in the video if its rate is constant.
        end: Stop at this time, in seconds; None: at the end.
        max_pixels: Refuse a video that claims more pixels a frame.

    Raises:
        FrameError: The file is missing, damaged, cut short, or has no video. All frames that can
            be decoded are given out first.
        MissingExtraError: PyAV is not installed.
    """
    with _open(path) as (container, stream):
        check_size(path, stream.height, stream.width, max_pixels)
        stream.thread_type = "AUTO"
        rate = _rate(stream)
        # AVI stores no times; FFmpeg's guesses are wrong where frames are stored out of order.
        counted = "avi" in container.format.name or not stream.time_base
        base = 1 / rate if counted else float(stream.time_base)
        first = (stream.start_time or 0) * base
        if start > 0 and not counted:
            # To a key frame before it; what is between is decoded and left out.
            container.seek(int((first + start) / base), stream=stream)
        seek = start > 0 and not counted
        index, time = -1, 0.0
        lost: list[str] = []
        for frame in _decode(container, stream, lost):
            check_size(path, frame.height, frame.width, max_pixels)
            if counted or frame.time is None:
                time = (index + 1) / rate
            else:
                time = float(frame.time) - first
            index = max(index + 1, round(time * rate)) if seek else index + 1
            if end is not None and time >= end:
                return
            if time >= start - _TICK and index % every == 0:
                yield VideoFrame(index, time, _counts(path, frame))
        if lost:
            raise FrameError(
                f"{path} is damaged: {len(lost)} of its packets could not be decoded ({lost[0]}); "
                "the others were read"
            )
        length = _length(container, stream)
        if time and length - time > 3 / rate + _MISSING * length:  # the last frame has a length
            raise FrameError(
                f"{path} is cut short: it ends at {time:.1f} s of {length:.1f} s; copy it again"
            )


def _length(container: Any, stream: Any) -> float:
    """Seconds that the pictures last by the file's own account; 0 if it has none."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    length = float(container.duration or 0) / 1e6
    if "matroska" in container.format.name and stream.start_time:
        length -= float(stream.start_time * stream.time_base)  # it counts from 0
    return max(length, 0.0)


def _rate(stream: Any) -> float:
    return float(stream.average_rate or stream.guessed_rate or 25)


def _decode(container: Any, stream: Any, lost: list[str]) -> Iterator[Any]:
    """Frames of all packets that can be decoded; why the others cannot goes into ``lost``."""
    av = import_extra("av", "video", "reading videos")
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.FFmpegError as error:
            if not isinstance(error, EOFError):
                lost.append(error.strerror or repr(error))


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any]]:
    """A container and its first video stream; whatever goes wrong with them is a FrameError."""
    av = import_extra("av", "video", "reading videos")
    av.logging.set_level(None)
    if not path.is_file():
        raise FrameError(f"{path} does not exist: check the path")
    try:
        # Absolute: a colon in a relative name would be taken for the end of a protocol.
        with av.open(str(path.resolve())) as container:
            if not container.streams.video:
                raise FrameError(f"{path} holds no video: name another file")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise FrameError(f"{path} is of a codec that is not known here: convert it")
            if stream.format is None:
                raise FrameError(f"{path} is of a pixel format that is not known here: convert it")
            if stream.codec_context.codec.name == "rawvideo" and stream.format.name in _AMBIGUOUS:
                raise FrameError(
                    f"{path} holds raw video of 16 bits a pixel, counts or colors, which it does "
                    "not say: convert it to FFV1 in an MKV file"
                )
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
            yield container, stream
    # PyAV's conversions raise the others on what damaged files claim.
    except (av.FFmpegError, EOFError, ValueError, TypeError, OverflowError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise FrameError(
            f"{path} cannot be decoded ({detail}): it is damaged, cut short, or of a kind that is "
            "not known here; copy or convert it again"
        ) from error


def _counts(path: Path, frame: Any) -> NDArray[Any]:
    """(H, W) of a decoded frame."""
    form = frame.format
    luma = form.components[0]
    if form.is_rgb or form.has_palette:
        counts = frame.to_ndarray(format="rgb48le" if luma.bits > 8 else "rgb24")
        return np.ascontiguousarray(collapse_channels(path, counts))
    sharing = sum(component.plane == luma.plane for component in form.components)
    if form.name in _PACKED:
        return _rows(frame, 0, "u1")[:, _PACKED[form.name] : 2 * frame.width : 2].copy()
    if sharing > 1 or form.is_bit_stream or luma.bits > 16:
        return np.asarray(frame.to_ndarray(format="gray16le" if luma.bits > 8 else "gray"))
    size = 2 if luma.bits > 8 else 1
    order = ">" if form.is_big_endian else "<"
    rows = _rows(frame, luma.plane, f"{order}u{size}")
    return rows[:, : frame.width].astype(f"u{size}")


def _rows(frame: Any, plane: int, dtype: str) -> NDArray[Any]:
    """A plane's rows, with what pads them."""
    values = np.frombuffer(frame.planes[plane], dtype=dtype)
    return values.reshape(frame.planes[plane].height, -1)[: frame.height]
