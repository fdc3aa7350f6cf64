"""What every sink is: it takes what was found in one frame after the other."""

from __future__ import annotations

import io
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.files import write_whole
from pinglow.structures import BoolArray, Clip, Detections, Prediction


@dataclass(frozen=True, eq=False)
class FrameRecord:
    """One frame and what was found in it.

    Attributes:
        source: Where the frame is from, as tables name it.
        page: Its page or number there, from 0.
        name: What its output files are called, unique within a job.
        frame: (H, W) counts as read.
        prediction: The network's answer: pixels, or boxes where it is a detector.
        time: Seconds from the start of the video; None: not of a video.
        clip: The video; None: not of a video.
        tracks: The track of each of the prediction's targets, None for a target of no track yet;
            None: nothing was tracked.
        ignored: (H, W) bool, where nothing was looked for; None: nowhere.
    """

    source: str
    page: int
    name: str
    frame: NDArray[Any]
    prediction: Prediction | Detections
    time: float | None = None
    clip: Clip | None = None
    tracks: tuple[int | None, ...] | None = None
    ignored: BoolArray | None = None


class Sink:
    """Takes records one by one; a sink of its own kind gives `write`, and what else it needs."""

    place: ClassVar[str] = ""
    """The file or folder that it writes, in the folder of the results."""

    needs_pixels: ClassVar[bool] = False
    """Whether it takes a `Prediction` only: boxes say nothing about pixels."""

    def go_on(self, done: Set[str]) -> None:
        """Go on with what an interrupted job has written, cut back to these sources."""

    def write(self, record: FrameRecord) -> None:
        """Write one frame's results."""
        raise NotImplementedError

    def end_source(self, source: str, whole: bool) -> None:
        """After the last record of a source; whole: each of its frames was read and predicted."""

    def close(self) -> None:
        """Release what is open; what was written stays valid."""


class PictureSink(Sink):
    """Writes a picture a frame into a folder of its own, which is made in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / self.place
        self._folder.mkdir(parents=True, exist_ok=True)

    def save(self, values: NDArray[np.generic] | Image.Image, name: str) -> None:
        """Write a PNG, which appears under its name only when it is whole."""
        write_whole(self._folder / name, encode_png(values), durable=False)  # can be made again


def encode_png(values: NDArray[np.generic] | Image.Image) -> bytes:
    """The PNG of a picture, or of (H, W) levels of 8 or 16 bits."""
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def encode_npy(frame: NDArray[Any]) -> bytes:
    """The NPY of (H, W) counts: uint8 and uint16 as they are, all others as float32."""
    content = io.BytesIO()
    kept = frame.dtype in (np.uint8, np.uint16)
    np.save(content, np.ascontiguousarray(frame if kept else frame.astype(np.float32)))
    return content.getvalue()
