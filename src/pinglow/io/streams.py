"""What opens cameras, network streams and pipes: the words that name them, and their feeds."""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from numpy.typing import NDArray

from pinglow.errors import FrameError, OptionError
from pinglow.extras import import_extra
from pinglow.io.counts import MAX_PIXELS, check_size
from pinglow.io.live import Feed, LiveSource
from pinglow.io.raw import RawFormat, RawSource
from pinglow.io.source import Source
from pinglow.io.video import choose_stream, decode_counts

_SCHEMES: Final = "rtsp|rtsps|rtmp|rtmps|rtp|udp|tcp|srt|http|https"
_ADDRESS: Final = re.compile(rf"(?P<scheme>{_SCHEMES})://(?P<rest>.+)", re.IGNORECASE)
_LOGIN: Final = re.compile(r"(?<=://)[^/?#]*@")  # passwords have @, too
_SECRET: Final = re.compile(r"(?<=[?&])(\w*(?:pass|pwd|token|key|secret)\w*)=[^&]*", re.IGNORECASE)
_PATIENCE: Final = (10.0, 10.0)  # seconds to open, and between two packets
_OPTIONS: Final = {
    "rtsp": {"rtsp_flags": "prefer_tcp"},  # by UDP packets are lost, and with them whole pictures
    "udp": {"overrun_nonfatal": "1", "fifo_size": "100000"},
}
_CAMERAS: Final = {"linux": "v4l2", "darwin": "avfoundation"}

Kind = Literal["camera", "address", "pipe", "raw"]


def kind_of(word: str, raw: bool = False) -> Kind | None:
    """What a word names that is no file of frames; None: nothing of this kind.

    Args:
        word: A number that is no file's name, or a video device, is a camera; so is an address of
            one of `_SCHEMES`; ``-`` is standard input.
        raw: Whether it is known how raw frames lie in it: then a file is one of those.
    """
    if _ADDRESS.fullmatch(word):
        return "address"
    path = Path("/dev/stdin" if word == "-" else word)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return "camera" if word.isascii() and word.isdigit() else "pipe" if word == "-" else None
    if stat.S_ISCHR(mode) and re.fullmatch(r"/dev/video\d+", word):
        return "camera"
    if stat.S_ISREG(mode):
        return "raw" if raw else None
    return None if stat.S_ISDIR(mode) else "pipe"


def open_stream(word: str, raw: RawFormat | None = None, stream: int | None = None) -> Source:
    """Open what `kind_of` knows; nothing is waited for until frames are taken.

    Args:
        word: As there.
        raw: How raw frames lie in a pipe or a file, or which format a camera is asked for.
        stream: Which video stream of an address, from 0.

    Raises:
        OptionError: It is a pipe and there is no ``raw``, or ``raw`` is for none of these.
        MissingExtraError: There is no library to read it.
    """
    kind = kind_of(word, raw is not None)
    if kind == "raw":
        assert raw is not None
        return RawSource(Path("/dev/stdin" if word == "-" else word), raw)
    if kind == "pipe":
        if raw is None:
            name = "standard input" if word == "-" else word
            raise OptionError(
                f"{name} is a pipe or a device: say with --raw how its frames lie in it, as in "
                "--raw 640x512:gray16le, or save it to a file"
            )
        form = raw
        stem = "stdin" if word == "-" else Path(word).stem
        return LiveSource(word, lambda: _open_pipe(word, form), stem)
    import_extra("av", "video", "reading cameras and streams")
    if kind == "camera":
        number = word.removeprefix("/dev/video")
        return LiveSource(word, lambda: _open_camera(number, raw), f"camera{number}")
    match = _ADDRESS.fullmatch(word)
    if match is None or raw is not None:
        raise OptionError(f"--raw is for pipes, raw files and cameras: {word} is none of these")
    name = hide_login(word)
    stem = re.sub(r"[^\w.-]+", "_", re.sub(r"[?#].*", "", _LOGIN.sub("", name).partition("://")[2]))
    return LiveSource(name, lambda: _open_address(word, name, stream), stem.strip("_.") or "stream")


def hide_login(address: str) -> str:
    """An address without user, password and tokens, as messages and tables show it."""
    return _SECRET.sub(r"\1=***", _LOGIN.sub("***@", address))


@contextmanager
def _open_pipe(word: str, form: RawFormat) -> Iterator[Feed]:
    # Not sys.stdin: its lock would be held by a thread that waits when the program ends.
    place: int | str = 0 if word == "-" else word
    try:
        with open(place, "rb", buffering=0, closefd=word != "-") as pipe:
            yield Feed(form.read(pipe, word), form.rate, lasting=False)
    except OSError as error:
        raise FrameError(f"{word} cannot be read: {error.strerror or error}") from error


@contextmanager
def _open_camera(number: str, raw: RawFormat | None) -> Iterator[Feed]:
    driver = _CAMERAS.get(sys.platform)
    if driver is None:
        raise FrameError(
            f"camera {number} cannot be opened on {sys.platform}: give the address of a stream, or "
            "a pipe with --raw"
        )
    options = {}
    if raw is not None:
        kind = "pixel_format" if driver == "avfoundation" else "input_format"
        options = {
            "video_size": f"{raw.width}x{raw.height}",
            kind: raw.kind.replace("gray8", "gray"),
        }
        if raw.rate is not None:
            options["framerate"] = f"{raw.rate:g}"
    place = f"/dev/video{number}" if driver == "v4l2" else number
    with _open_container(place, f"camera {number}", driver, options) as container:
        yield _feed(container, f"camera {number}", None)


@contextmanager
def _open_address(address: str, name: str, stream: int | None) -> Iterator[Feed]:
    scheme = address.partition("://")[0].lower()
    with _open_container(address, name, None, _OPTIONS.get(scheme, {})) as container:
        yield _feed(container, name, stream)


@contextmanager
def _open_container(
    place: str, name: str, form: str | None, options: dict[str, str]
) -> Iterator[Any]:
    """A container of frames that come; whatever goes wrong with it is a FrameError."""
    av = import_extra("av", "video", "reading cameras and streams")
    av.logging.set_level(None)
    opened = False
    try:
        with av.open(place, format=form, options=options, timeout=_PATIENCE) as container:
            opened = True
            yield container
    except (av.FFmpegError, OSError, EOFError, ValueError, TypeError, OverflowError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        if opened:
            raise FrameError(f"{name} is no longer to be read: {detail}") from error
        raise FrameError(
            f"{name} cannot be opened ({detail}): check that it is there, and that no other "
            "program uses it"
        ) from error


def _feed(container: Any, name: str, number: int | None) -> Feed:
    video = choose_stream(name, container, number)
    check_size(name, video.height, video.width, MAX_PIXELS)
    video.thread_type = "SLICE"  # by frames, each thread would hold one back
    rate = video.average_rate or video.guessed_rate
    ends = bool(container.duration)  # a recording that lies at an address
    return Feed(
        _decode(container, video, name),
        float(rate) if rate else None,
        patient=ends,
        lasting=not ends,
    )


def _decode(container: Any, video: Any, name: str) -> Iterator[NDArray[Any]]:
    """Frames as they come; those that were damaged on the way are left out."""
    av = import_extra("av", "video", "reading cameras and streams")
    for packet in container.demux(video):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue
        for frame in frames:
            check_size(name, frame.height, frame.width, MAX_PIXELS)
            yield decode_counts(name, frame)
