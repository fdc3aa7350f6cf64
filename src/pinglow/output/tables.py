"""The sinks of tables: CSV and JSON lines, written and flushed frame by frame."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Literal, TextIO

from pinglow.errors import DataError
from pinglow.files import naming, open_whole
from pinglow.output.sink import FrameRecord, Sink
from pinglow.results import TARGET_COLUMNS, target_row
from pinglow.structures import Target


class TableSink(Sink):
    """A text file in ``folder`` that is begun, or gone on with, when there is something to write.

    So a job that takes no frame leaves an earlier job's table as it is.
    """

    table: ClassVar[str] = ""
    """The file that grows, where it is not what `place` names."""

    def __init__(self, folder: Path | TextIO) -> None:
        """Begin, or go on.

        Args:
            folder: Where the file is made; or what is written to instead, as standard output.

        Raises:
            DataError: A pipe, a device or a folder has its name.
        """
        self._path = folder / (self.table or self.place) if isinstance(folder, Path) else None
        if self._path is not None and self._path.exists() and not self._path.is_file():
            raise DataError(
                f"{self._path} is a pipe, a device or a folder: remove it, or choose another folder"
            )
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
            with (
                self._path.open(encoding="utf-8", newline="") as file,
                open_whole(self._path) as kept,
            ):
                for text in self._keep(file, done):
                    kept.write(text.encode())
        except (
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            FileNotFoundError,
            csv.Error,
        ) as error:
            raise DataError(
                f"{self._path} is not a table that can be gone on with: start anew, into another "
                "folder"
            ) from error
        self._mode, self._begun = "a", self._path.stat().st_size > 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._path is not None:
            with naming(self._path):
                self._file.close()

    def _keep(self, file: TextIO, done: Set[str]) -> Iterator[str]:
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


class CsvTable(TableSink):
    """A table with commas; its first column is the source."""

    columns: ClassVar[Sequence[str]]

    def rows(self, record: FrameRecord) -> Iterable[Sequence[Any]]:
        """What is said of one frame."""
        raise NotImplementedError

    def write(self, record: FrameRecord) -> None:
        """Add the rows of one frame."""
        rows = list(self.rows(record))
        self._append(_join(rows if self._begun else [self.columns, *rows]))
        self._begun = True

    def _keep(self, file: TextIO, done: Set[str]) -> Iterator[str]:
        for number, row in enumerate(csv.reader(file)):
            if number == 0 or (row and row[0] in done):
                yield _join([row])


class CsvSink(CsvTable):
    """targets.csv: one row a target; a frame without any has no row.

    Time and track are empty where there is none.
    """

    place = "targets.csv"
    columns = ("source", "frame", *TARGET_COLUMNS, "time", "track")

    def rows(self, record: FrameRecord) -> Iterable[Sequence[Any]]:
        """A target each."""
        for target, track in tracked(record):
            yield (record.source, record.page, *target_row(target), record.time, track)


class LinesSink(TableSink):
    """A table of JSON lines, one a frame, each with its "source"."""

    def line(self, record: FrameRecord) -> dict[str, Any]:
        """What is said of one frame."""
        raise NotImplementedError

    def write(self, record: FrameRecord) -> None:
        """Add the line of one frame."""
        self._append(json.dumps(self.line(record), allow_nan=False) + "\n")
        self._begun = True

    def _keep(self, file: TextIO, done: Set[str]) -> Iterator[str]:
        for line in file:
            if line.endswith("\n") and json.loads(line)["source"] in done:
                yield line


class JsonlSink(LinesSink):
    """targets.jsonl: one line of JSON a frame, also where nothing was found.

    ``{"source", "frame", "name", "width", "height", "targets": [{"x", "y", "bbox": [x, y, w, h],
    "area", "score"}]}``; the name is that of the frame's pictures. Frames of a video also have
    "time", in seconds, and targets, where they are tracked, "track": its number or null.
    """

    place = "targets.jsonl"

    def line(self, record: FrameRecord) -> dict[str, Any]:
        """The frame with all of its targets."""
        return frame_with_targets(record)


def frame_with_targets(record: FrameRecord) -> dict[str, Any]:
    """A frame with all of its targets; see `JsonlSink`."""
    line = {**frame_line(record), **record.prediction.to_dict()}
    if record.tracks is not None:
        for target, track in zip(line["targets"], record.tracks, strict=True):
            target["track"] = track
    return line


def frame_line(record: FrameRecord) -> dict[str, Any]:
    """A frame without its targets; of a video also "time", in seconds."""
    height, width = record.frame.shape
    line: dict[str, Any] = {
        **{"source": record.source, "frame": record.page, "name": record.name},
        **{"width": width, "height": height},
    }
    if record.time is not None:
        line["time"] = record.time
    return line


def tracked(record: FrameRecord) -> Iterator[tuple[Target, int | None]]:
    """The targets of a frame, each with its track."""
    targets = record.prediction.targets
    return zip(targets, record.tracks or [None] * len(targets), strict=True)


def _join(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
