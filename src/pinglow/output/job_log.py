"""What a job is done with, so that it can be gone on with after an interruption."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pinglow.errors import DataError, OptionError
from pinglow.files import write_whole
from pinglow.output.sinks import FrameRecord, printable


class JobLog:
    """.pinglow-job.jsonl: what a job was asked for, and a line for each file that it is done with.

    By it an interrupted job goes on: the tables are cut back to the files that are done, and the
    other files are predicted from their start. It stays, so that a finished job is known as one.
    It is a sink, to be written to before the others: with its first frame, and not before, a job
    takes the place of the one that was in the folder, as the tables do.

    Files and models are known by their paths: one that has changed since is not done again.

    Attributes:
        resumed: There was a log to go on with, of a job that was done with a file.
        done: Files that need not be predicted again, those of this job, too.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], settings: dict[str, Any], resume: bool = False
    ) -> None:
        """Begin a log, or go on with the one in ``folder``.

        Args:
            folder: For the results.
            names: Of `SINKS`, what the job writes.
            settings: All else that results depend on, ready for JSON.
            resume: Go on with the log that is there; begin one if there is none.

        Raises:
            OptionError: The log is of a job with other settings, or there are tables without one.
            DataError: A file in the folder is broken or cannot be written.
        """
        self._path = folder / ".pinglow-job.jsonl"
        tables = [folder / f"targets.{name}" for name in names if name in ("csv", "jsonl")]
        if resume and not self._path.exists() and any(table.exists() for table in tables):
            raise OptionError(
                f"{folder} has tables but no job to go on with, and they would be replaced: name "
                "another folder, or start anew without --resume"
            )
        settings = {"save": list(names), **settings}
        self._head = json.dumps(settings)
        self.done: set[str] = set()
        try:
            if resume and self._path.exists():
                self._read(folder, settings)
        except OSError as error:
            raise DataError(
                f"cannot write results to {folder} ({error.strerror or error}): "
                "free space there or choose another folder"
            ) from error
        self.resumed = self._begun = bool(self.done)

    def write(self, _: FrameRecord) -> None:
        """Begin the log, unless it has begun."""
        if not self._begun:
            lines = [self._head, *map(json.dumps, sorted(self.done)), ""]
            write_whole(self._path, "\n".join(lines).encode())
            self._begun = True

    def add(self, source: Path) -> None:
        """Note a file all of whose frames were read, predicted and written."""
        self.done.add(printable(source))
        if self._begun:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(printable(source)) + "\n")

    def close(self) -> None:
        """Nothing is open."""

    def _read(self, folder: Path, settings: dict[str, Any]) -> None:
        try:
            self._go_on(folder, settings)
        except (ValueError, KeyError, TypeError, FileNotFoundError, csv.Error) as error:
            raise DataError(
                f"the tables in {folder} are not those of a job that can be gone on with: start "
                "anew, into another folder"
            ) from error

    def _go_on(self, folder: Path, settings: dict[str, Any]) -> None:
        # What follows the last line end was cut short.
        first, *lines = self._path.read_text(encoding="utf-8").split("\n")[:-1] or ["null"]
        before = json.loads(first)
        if not isinstance(before, dict):
            raise TypeError("settings are a table")
        if before != json.loads(json.dumps(settings)):
            changed = [key for key, value in settings.items() if before.get(key) != value]
            raise OptionError(
                f"the job in {folder} was another one ({', '.join(changed)}): resume it with the "
                "sources and options that it had"
            )
        done = self.done = {json.loads(line) for line in lines}
        if not done:
            return
        write_whole(self._path, "\n".join([first, *lines, ""]).encode())
        table = folder / "targets.jsonl"
        if "jsonl" in settings["save"]:
            lines = table.read_text(encoding="utf-8").split("\n")[:-1]
            kept = [line for line in lines if json.loads(line)["source"] in done]
            write_whole(table, "\n".join([*kept, ""]).encode())
        table = folder / "targets.csv"
        if "csv" in settings["save"]:
            with table.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))
            content = io.StringIO()
            writer = csv.writer(content, lineterminator="\n")
            writer.writerows([*rows[:1], *(row for row in rows[1:] if row[:1] and row[0] in done)])
            write_whole(table, content.getvalue().encode())
