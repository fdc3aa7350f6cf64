"""Read the frames of a video file one by one, with their counts intact.

Of YUV and gray videos the luma is taken as it is stored, 8 to 16 bits; RGB ones become gray as
`read_frame` makes them. Memory does not grow with the length of the video.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.extras import import_extra
from pinglow.io.containers import is_container, is_transport, lacks_bytes
from pinglow.io.counts import MAX_PIXELS, check_size, collapse_channels
from pinglow.io.ending import Ending
from pinglow.io.memory import OpenedFile
from pinglow.terminal import warn_once

_logger = logging.getLogger("pinglow")

_TICK = 1e-3  # seconds; some containers round times to it
_NO_VIDEO = 0x400 | 0x800  # FFmpeg's dispositions of cover art and of thumbnails
_AMBIGUOUS = ("rgb555le", "rgb565le", "rgb555be", "rgb565be")  # what raw 16 bits are taken for
_KINDS = "mov,matroska,avi,asf,flv,mpegts,mpeg,mpegvideo,mxf,yuv4mpegpipe"
"""FFmpeg's names of what is opened: no playlist, by which a file could name others."""
_PACKED = {"yuyv422": 0, "uyvy422": 1}  # where the first luma of a packed pair is

VIDEO_SUFFIXES: frozenset[str] = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".wmv", ".asf", ".flv"),
        *(".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".vob", ".mxf", ".y4m"),
    }
)


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
    """Whether a file is a video: by the end of its name, or by how it begins."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        return path.is_file() and is_container(path)
    except (OSError, ValueError):  # reading it says why
        return False


def probe_video(path: Path | OpenedFile, stream: int | None = None) -> VideoInfo:
    """Read a video's header.

    Args:
        path: The file; what is none of a disk is read as far as need be.
        stream: Which of its video streams, as for `read_video`.

    Raises:
        FrameError: The file is missing, damaged, or has no such video.
        MissingExtraError: PyAV is not installed.
    """
    with _open(path, stream) as (container, chosen):
        rate = _rate(chosen)
        frames = int(chosen.frames)
        frames = frames or round(_length(container, chosen) * rate)
        return VideoInfo(rate, frames or None)


def read_video(
    path: Path | OpenedFile,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    max_pixels: int = MAX_PIXELS,
    stream: int | None = None,
) -> Iterator[VideoFrame]:
    """Decode a video.

    Args:
        path: The file.
        every: Take each ``every``-th frame, counted from the first of the video.
        start: Skip what is before this time, in seconds. Frames are then numbered by their time
            and the average rate, which is their number in the video if its rate is constant.
        end: Stop at this time, in seconds; None: at the end.
        max_pixels: Refuse a video that claims more pixels a frame.
        stream: Which of its video streams, from 0, cover art and thumbnails left out; None: the
            first, which is said where there are several.

    Raises:
        FrameError: The file is missing, damaged, cut short, or has no such video. All frames that
            can be decoded are given out first.
        MissingExtraError: PyAV is not installed.
    """
    with _open(path, stream) as (container, chosen):
        check_size(str(path), chosen.height, chosen.width, max_pixels)
        chosen.thread_type = "AUTO"
        rate = _rate(chosen)
        # AVI stores no times; FFmpeg's guesses are wrong where frames are stored out of order.
        counted = "avi" in container.format.name or not chosen.time_base
        base = 1 / rate if counted else float(chosen.time_base)
        first = (chosen.start_time or 0) * base
        if start > 0 and not counted:
            # To a key frame before it; what is between is decoded and left out.
            container.seek(int((first + start) / base), stream=chosen)
        seek = start > 0 and not counted
        index, time = -1, 0.0
        ending = Ending(path, container, chosen, rate, whole=not seek)
        for frame in _decode(container, chosen, ending):
            check_size(str(path), frame.height, frame.width, max_pixels)
            if counted or frame.time is None:
                time = (index + 1) / rate
            else:
                time = float(frame.time) - first
            index = max(index + 1, round(time * rate)) if seek else index + 1
            if end is not None and time >= end:
                return
            if time >= start - _TICK and index % every == 0:
                yield VideoFrame(index, time, decode_counts(str(path), frame))
        ending.check()


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


def _decode(container: Any, stream: Any, ending: Ending) -> Iterator[Any]:
    """Frames of all packets that can be decoded; ``ending`` hears of the packets."""
    av = import_extra("av", "video", "reading videos")
    packets = ending.follow(container.demux(stream))
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            for frame in packet.decode():
                ending.frames += 1
                yield frame
        except av.FFmpegError as error:
            if not isinstance(error, EOFError):
                ending.lost.append(error.strerror or repr(error))


@contextmanager
def _open(path: Path | OpenedFile, number: int | None) -> Iterator[tuple[Any, Any]]:
    """A container and a video stream of it; whatever goes wrong with them is a FrameError."""
    av = import_extra("av", "video", "reading videos")
    av.logging.set_level(None)
    if not path.is_file():
        if path.exists():
            raise FrameError(f"{path} is a folder, a pipe or a device: save the video to a file")
        raise FrameError(f"{path} does not exist: check the path")
    try:
        with ExitStack() as stack:
            # Absolute: a colon in a relative name would be taken for the end of a protocol.
            opened = path.resolve() if isinstance(path, Path) else stack.enter_context(path.open())
            container = stack.enter_context(_open_container(av, path, opened))
            yield container, choose_stream(str(path), container, number)
    # PyAV's conversions raise the others on what damaged files claim.
    except (av.FFmpegError, EOFError, ValueError, TypeError, OverflowError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise _unreadable(
            path,
            f"cannot be decoded ({detail}): it is damaged, cut short, or of a kind that is not "
            "known here; copy or convert it again",
        ) from error


def _open_container(av: Any, path: Path | OpenedFile, opened: Path | IO[bytes]) -> Any:
    given = str(opened) if isinstance(opened, Path) else opened
    try:
        return av.open(given, options={"format_whitelist": _KINDS})
    except EOFError:  # FFmpeg does not know a transport stream of a few packets
        if not is_transport(path):
            raise
        return av.open(given, format="mpegts")


def _unreadable(path: Path | OpenedFile | str, reason: str) -> FrameError:
    file = Path(path) if isinstance(path, str) else path
    if file.is_file() and lacks_bytes(file):  # a stream's address is no file
        reason = "is cut short, and what is missing is needed to read the rest; copy it again"
    return FrameError(f"{path} {reason}")


def choose_stream(name: str, container: Any, number: int | None = None) -> Any:
    """The video stream of this number in an open container, ready to be decoded.

    Raises:
        FrameError: It is not there, or cannot be decoded here.
    """
    stream = _choose(name, container, number)
    if stream.codec_context is None:
        raise _unreadable(name, "is of a codec that is not known here: convert it")
    if stream.format is None:
        raise _unreadable(name, "is of a pixel format that is not known here: convert it")
    if stream.codec_context.codec.name == "rawvideo" and stream.format.name in _AMBIGUOUS:
        raise FrameError(
            f"{name} holds raw video of 16 bits a pixel, counts or colors, which it does not say: "
            "convert it to FFV1 in an MKV file"
        )
    stream.codec_context.options = {"err_detect": "crccheck+explode"}
    return stream


def _choose(path: str, container: Any, number: int | None) -> Any:
    streams = [
        stream
        for stream in container.streams.video
        if not int(getattr(stream, "disposition", 0)) & _NO_VIDEO
    ]
    if not streams:
        raise _unreadable(path, "holds no video: name another file")
    kinds = ", ".join(f"{each}: {_describe(stream)}" for each, stream in enumerate(streams))
    if number is not None and not 0 <= number < len(streams):
        raise FrameError(f"{path} has no video stream {number}: choose from {kinds}")
    if number is None and len(streams) > 1:
        several = f"{len(streams)} video streams ({kinds})"
        warn_once(kinds, f"{path} has {several}: reading 0, --video-stream chooses")
    return streams[number or 0]


def _describe(stream: Any) -> str:
    codec = stream.codec_context
    return "unknown" if codec is None else f"{codec.name} {codec.width} x {codec.height}"


def decode_counts(path: Path | str, frame: Any) -> NDArray[Any]:
    """(H, W) counts of a decoded frame, as they are stored.

    Raises:
        FrameError: It is of channels that are not known.
    """
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
