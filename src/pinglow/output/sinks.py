"""Write what was found in each frame: mask, overlay, CSV table, JSON lines.

A sink takes one `FrameRecord` after the other. The tables are written and flushed line by line and
an image appears under its name only when it is whole, so an interrupted job leaves valid files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import DataError, OptionError
from pinglow.files import write_whole
from pinglow.output.overlay import draw_overlay
from pinglow.output.video import VideoWriter
from pinglow.structures import Clip, Detections, Prediction, Target


@dataclass(frozen=True, eq=False)
class FrameRecord:
    """One frame and what was found in it.

    Attributes:
        source: The file that holds the frame.
        page: Its page or number there, from 0.
        name: What its output files are called, unique within a job.
        frame: (H, W) counts as read.
        prediction: The network's answer: pixels, or boxes where it is a detector.
        time: Seconds from the start of the video; None: not of a video.
        clip: The video; None: not of a video.
        tracks: The track of each of the prediction's targets, None for a target of no track yet;
            None: nothing was tracked.
    """

    source: Path
    page: int
    name: str
    frame: NDArray[Any]
    prediction: Prediction | Detections
    time: float | None = None
    clip: Clip | None = None
    tracks: tuple[int | None, ...] | None = None


class Sink(Protocol):
    """Anything that takes records one by one."""

    def write(self, record: FrameRecord) -> None:
        """Write one frame's results."""

    def close(self) -> None:
        """Release what is open; what was written stays valid."""


class MaskSink:
    """masks/<name>_mask.png: 255 on target pixels, 0 elsewhere, at the frame's own size."""

    def __init__(self, folder: Path) -> None:
        """Make the folder ``masks`` in ``folder``."""
        self._folder = folder / "masks"
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, record: FrameRecord) -> None:
        """Write the mask of one frame."""
        mask = Image.fromarray(_pixels_of(record).mask.astype(np.uint8) * 255)
        _save_whole(mask, self._folder / f"{record.name}_mask.png")

    def close(self) -> None:
        """Nothing is open."""


class ProbabilitySink:
    """probability/<name>.png: 16 bits, value / 65535; `pinglow evaluate --predictions` reads it."""

    def __init__(self, folder: Path) -> None:
        """Make the folder ``probability`` in ``folder``."""
        self._folder = folder / "probability"
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, record: FrameRecord) -> None:
        """Write the probability map of one frame."""
        levels = np.rint(_pixels_of(record).probability * np.float64(65535)).astype(np.uint16)
        _save_whole(Image.fromarray(levels), self._folder / f"{record.name}.png")

    def close(self) -> None:
        """Nothing is open."""


class OverlaySink:
    """overlays/<name>_overlay.png, or of a video <clip>_overlay.mp4: the frame for a person.

    See `draw_overlay`.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder ``overlays`` in ``folder``."""
        self._folder = folder / "overlays"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._clip: Clip | None = None
        self._video: VideoWriter | None = None

    def write(self, record: FrameRecord) -> None:
        """Draw and write the overlay of one frame."""
        targets = record.prediction.targets
        in_clip = record.clip is not None
        overlay = draw_overlay(record.frame, targets, record.tracks, of_clip=in_clip)
        if record.clip is None:
            _save_whole(overlay, self._folder / f"{record.name}_overlay.png")
            return
        if self._video is None or record.clip != self._clip:
            self.close()
            path = self._folder / f"{record.clip.name}_overlay.mp4"
            self._clip, self._video = record.clip, VideoWriter(path, record.clip.rate)
        self._video.write(overlay)

    def close(self) -> None:
        """End the video that is being written."""
        if self._video is not None:
            self._video.close()
            self._video = None


class _Table:
    """A text file that is begun, or gone on with, when there is something to write.

    So a job that takes no frame leaves an earlier job's table as it is.
    """

    def __init__(self, path: Path, mode: Literal["w", "a"]) -> None:
        self._path, self._mode = path, mode
        self._file: TextIO | None = None

    def open(self) -> TextIO:
        if self._file is None:
            self._file = self._path.open(self._mode, encoding="utf-8", newline="\n")
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class CsvSink:
    """targets.csv: one row a target; a frame without any has no row.

    Time and track are empty where there is none.
    """

    _COLUMNS: Final = (
        *("source", "frame", "x", "y", "left", "top", "width", "height", "area", "score"),
        *("time", "track"),
    )

    def __init__(self, folder: Path, mode: Literal["w", "a"] = "w") -> None:
        """Write to ``targets.csv`` in ``folder``, anew from the first frame on; "a": go on."""
        self._table = _Table(folder / "targets.csv", mode)

    def write(self, record: FrameRecord) -> None:
        """Add the targets of one frame."""
        file = self._table.open()
        rows = csv.writer(file, lineterminator="\n")
        if not file.tell():
            rows.writerow(self._COLUMNS)
        time = "" if record.time is None else round(record.time, 4)
        targets = record.prediction.targets
        for target, track in zip(targets, record.tracks or [None] * len(targets), strict=True):
            x, y, bbox, area, score = _describe(target).values()
            start = (printable(record.source), record.page)
            rows.writerow((*start, x, y, *bbox, area, score, time, track))
        file.flush()

    def close(self) -> None:
        """Close the file."""
        self._table.close()


class JsonlSink:
    """targets.jsonl: one line of JSON a frame, also where nothing was found.

    ``{"source", "frame", "name", "width", "height", "targets": [{"x", "y", "bbox": [x, y, w, h],
    "area", "score"}]}``; the name is that of the frame's pictures; x and y are rounded to 0.001 px,
    the score to 0.0001. Frames of a video also have "time", in seconds, and targets, where they are
    tracked, "track": its number or null.
    """

    def __init__(self, folder: Path, mode: Literal["w", "a"] = "w") -> None:
        """Write to ``targets.jsonl`` in ``folder``, anew from the first frame on; "a": go on."""
        self._table = _Table(folder / "targets.jsonl", mode)

    def write(self, record: FrameRecord) -> None:
        """Add the line of one frame."""
        height, width = record.frame.shape
        line: dict[str, Any] = {
            "source": printable(record.source),
            "frame": record.page,
            "name": record.name,
            "width": width,
            "height": height,
            "targets": [_describe(target) for target in record.prediction.targets],
        }
        if record.time is not None:
            line["time"] = round(record.time, 4)
        if record.tracks is not None:
            for target, track in zip(line["targets"], record.tracks, strict=True):
                target["track"] = track
        file = self._table.open()
        file.write(json.dumps(line, allow_nan=False) + "\n")
        file.flush()

    def close(self) -> None:
        """Close the file."""
        self._table.close()


PIXEL_SINKS: Final = ("mask", "probability")
"""Those of `SINKS` that need a `Prediction`: boxes say nothing about pixels."""

_PICTURES: Final[dict[str, Callable[[Path], Sink]]] = {
    "mask": MaskSink,
    "probability": ProbabilitySink,
    "overlay": OverlaySink,
}
_TABLES: Final[dict[str, Callable[[Path, Literal["w", "a"]], Sink]]] = {
    "csv": CsvSink,
    "jsonl": JsonlSink,
}

SINKS: Final[tuple[str, ...]] = (*_PICTURES, *_TABLES)
"""What can be written."""


@contextmanager
def open_sinks(names: Sequence[str], folder: Path, resume: bool = False) -> Iterator[list[Sink]]:
    """Open the named `SINKS` in ``folder``, which is made if need be, and close them at the end.

    Args:
        names: Of `SINKS`.
        folder: For the results.
        resume: Go on with the tables that are there; see `pinglow.output.job_log.JobLog`.

    Raises:
        DataError: The folder cannot be written to, at the start or at any time before the end.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            sinks = (
                _TABLES[name](folder, "a" if resume else "w")
                if name in _TABLES
                else _PICTURES[name](folder)
                for name in names
            )
            yield [stack.enter_context(closing(sink)) for sink in sinks]
    except OSError as error:
        raise DataError(
            f"cannot write results to {folder} ({error.strerror or error}): "
            "free space there or choose another folder"
        ) from error


def _pixels_of(record: FrameRecord) -> Prediction:
    if not isinstance(record.prediction, Prediction):
        raise OptionError("a detector has no mask and no probability; save csv, jsonl or overlay")
    return record.prediction


def _describe(target: Target) -> dict[str, Any]:
    return {
        "x": round(target.x, 3),
        "y": round(target.y, 3),
        "bbox": list(target.bbox),
        "area": target.area,
        "score": round(target.score, 4),
    }


def printable(path: Path) -> str:
    """A file as the tables name it: a file name need not be valid UTF-8, they are."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _save_whole(image: Image.Image, path: Path) -> None:
    content = io.BytesIO()
    image.save(content, "PNG")
    write_whole(path, content.getvalue(), durable=False)  # it can be made again
