"""The sinks of tables: CSV and JSON lines, written and flushed frame by frame."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Set
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import numpy as np

from pinglow.errors import DataError
from pinglow.files import naming, write_whole
from pinglow.output.sink import FrameRecord, Sink
from pinglow.structures import Target


class TableSink(Sink):
    """A text file in ``folder`` that is begun, or gone on with, when there is something to write.

    So a job that takes no frame leaves an earlier job's table as it is.
    """

    def __init__(self, folder: Path | TextIO) -> None:
        """Begin, or go on.

        Args:
            folder: Where the file is made; or what is written to instead, as standard output.
        """
        self._path = folder / self.place if isinstance(folder, Path) else None
        self._mode: Literal["w", "a"] = "w"
        self._file = None if isinstance(folder, Path) else folder
        self._begun = False

    def go_on(self, done: Set[str]) -> None:
        """See `Sink`.

        Raises:
            DataError: The table is not there, or not one of these.
        """
        assert self._path is not None
        try:
            kept = self._keep(self._path.read_bytes().decode(), done)
        except (ValueError, KeyError, TypeError, FileNotFoundError, csv.Error) as error:
            raise DataError(
                f"{self._path} is not a table that can be gone on with: start anew, into another "
                "folder"
            ) from error
        write_whole(self._path, kept.encode())
        self._mode, self._begun = "a", bool(kept)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._path is not None:
            with naming(self._path):
                self._file.close()

    def _keep(self, content: str, done: Set[str]) -> str:
        """What a table says of these sources; a line without an end was cut short."""
        raise NotImplementedError

    def _append(self, text: str) -> None:
        with naming(self._path or Path("standard output")):
            file = self._open()
            file.write(text)
            file.flush()

    def _open(self) -> TextIO:
        if self._file is None:
            assert self._path is not None
            self._file = self._path.open(self._mode, encoding="utf-8", newline="\n")
        return self._file


class CsvSink(TableSink):
    """targets.csv: one row a target; a frame without any has no row.

    Time and track are empty where there is none.
    """

    place = "targets.csv"

    _COLUMNS: Final = (
        *("source", "frame", "x", "y", "left", "top", "width", "height", "area", "score"),
        *("time", "track"),
    )

    def write(self, record: FrameRecord) -> None:
        """Add the targets of one frame."""
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        if not self._begun:
            rows.writerow(self._COLUMNS)
            self._begun = True
        time = "" if record.time is None else round(record.time, 4)
        targets = record.prediction.targets
        for target, track in zip(targets, record.tracks or [None] * len(targets), strict=True):
            x, y, bbox, area, score = _describe(target).values()
            start = (record.source, record.page)
            rows.writerow((*start, x, y, *bbox, area, score, time, track))
        self._append(text.getvalue())

    def _keep(self, content: str, done: Set[str]) -> str:
        rows = list(csv.reader(io.StringIO(content, newline="")))
        kept = io.StringIO()
        writer = csv.writer(kept, lineterminator="\n")
        writer.writerows([*rows[:1], *(row for row in rows[1:] if row[:1] and row[0] in done)])
        return kept.getvalue()


class JsonlSink(TableSink):
    """targets.jsonl: one line of JSON a frame, also where nothing was found.

    ``{"source", "frame", "name", "width", "height", "targets": [{"x", "y", "bbox": [x, y, w, h],
    "area", "score"}]}``; the name is that of the frame's pictures; x and y are rounded to 0.001 px,
    the score is not. Frames of a video also have "time", in seconds, and targets, where they are
    tracked, "track": its number or null.
    """

    place = "targets.jsonl"

    def write(self, record: FrameRecord) -> None:
        """Add the line of one frame."""
        height, width = record.frame.shape
        line: dict[str, Any] = {
            "source": record.source,
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
        self._append(json.dumps(line, allow_nan=False) + "\n")

    def _keep(self, content: str, done: Set[str]) -> str:
        lines = content.split("\n")[:-1]
        return "".join(f"{line}\n" for line in lines if json.loads(line)["source"] in done)


def _describe(target: Target) -> dict[str, Any]:
    return {
        "x": round(target.x, 3),
        "y": round(target.y, 3),
        "bbox": list(target.bbox),
        "area": target.area,
        "score": _shortest(target.score),
    }


def _shortest(score: float) -> float:
    """A score as the fewest digits that tell it apart: most scores are between 0.999 and 1."""
    single = np.float32(score)  # as networks give it
    return float(str(single)) if single == score else score
