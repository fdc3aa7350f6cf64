"""Write a video frame by frame."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageOps

from pinglow.extras import import_extra
from pinglow.files import naming

_ENCODERS: Final = ("libx264", "mpeg4")  # the first that the installed FFmpeg has
# In fragments, so that what was written can be played whatever happens to the rest.
_OPTIONS: Final = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "flush_packets": "1",
}
_FRAGMENT: Final = 2.0  # seconds
_SLOWEST: Final = Fraction(1, 1000)  # frames a second


class VideoWriter:
    """An mp4 file that grows with each frame, which lasts until the next one's time.

    Args:
        path: The file; an earlier one is replaced.
        rate: Frames a second.

    Raises:
        MissingExtraError: PyAV is not installed.
        OSError: The file cannot be written, here or at any time before it is closed.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._av = import_extra("av", "video", "writing videos")
        # A file of ours: FFmpeg says nothing when the disk is full, writing to ours raises.
        self._path = path
        if path.is_fifo():  # replaced as pictures do that, not waited for
            path.unlink()
        self._file = path.open("wb")
        self._container = self._av.open(self._file, "w", format="mp4", options=_OPTIONS)
        self._rate = max(Fraction(rate).limit_denominator(1001), _SLOWEST)
        self._stream: Any = None
        self._begin: float | None = None
        self._step = -1  # of the last frame, in steps of the rate
        self._failed = False

    def write(self, image: Image.Image, time: float | None = None) -> None:
        """Add a frame. The first one's size, made even, is the video's; others are fitted in.

        Args:
            image: Of any size.
            time: Seconds, of any start; None: one step of the rate after the one before.
        """
        if self._stream is None:
            encoder = next(name for name in _ENCODERS if name in self._av.codecs_available)
            self._stream = self._container.add_stream(encoder, rate=self._rate)
            self._stream.width, self._stream.height = (side // 2 * 2 for side in image.size)
            self._stream.pix_fmt = "yuv420p"
            self._stream.gop_size = max(1, round(_FRAGMENT * self._rate))
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        size = (self._stream.width, self._stream.height)
        if tuple(side // 2 * 2 for side in image.size) != size:
            image = ImageOps.pad(image, size)
        frame = self._av.VideoFrame.from_image(image.crop((0, 0, *size)))
        if self._begin is None:
            self._begin = time
        since = 0.0 if time is None or self._begin is None else time - self._begin
        self._step = max(self._step + 1, round(since * self._rate))
        frame.pts = self._step
        frame.time_base = 1 / self._rate
        self._mux(frame)

    def close(self) -> None:
        """Write what is still held back, and end the file."""
        with naming(self._path), self._file:
            if self._failed:
                with suppress(OSError, self._av.FFmpegError):
                    self._container.close()
                return
            if self._stream is not None:
                self._mux(None)
            self._container.close()

    def _mux(self, frame: Any) -> None:
        """Encode a frame, or None for what is held back, and write what comes out."""
        try:
            with naming(self._path):
                for packet in self._stream.encode(frame):
                    self._container.mux(packet)
                self._file.flush()  # a fragment is there as a whole, or not at all
        except OSError:
            self._failed = True  # ending the file would fail in another way
            raise
