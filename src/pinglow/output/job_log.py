"""What a job is done with, so that it can be resumed after an interruption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pinglow.errors import DataError, OptionError
from pinglow.files import naming, write_whole
from pinglow.output.sink import FrameRecord, Sink
from pinglow.output.sinks import SINKS, unwritable
from pinglow.output.tables import TableSink


class JobLog(Sink):
    """.pinglow-job.jsonl: what a job was asked for, and a line for each source that is done.

    By it an interrupted job is resumed: the tables are cut back to the sources that are done, and
    the others are predicted from their start. It stays, so that a finished job is known as one.
    It is written to before the other sinks: with its first frame, and not before, a job takes the
    place of the one that was in the folder, as the tables do.

    Files and models are known by their paths: one that has changed since is not done again.

    Attributes:
        resumed: There was a log to go on with, of a job that was done with a source.
        done: Sources that need not be predicted again, those of this job, too.
    """

    place = ".pinglow-job.jsonl"

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
            DataError: The log is broken, or the folder cannot be written to.
        """
        self._path = folder / self.place
        kinds = [SINKS[name] for name in names]
        tables = [kind.table or kind.place for kind in kinds if issubclass(kind, TableSink)]
        if (
            resume
            and not self._path.exists()
            and any((folder / table).exists() for table in tables)
        ):
            raise OptionError(
                f"{folder} has tables but no job to go on with, and they would be replaced: name "
                "another folder, or start anew without --resume"
            )
        self._head = json.dumps({"save": list(names), **settings})
        self.done: set[str] = set()
        try:
            if resume and self._path.exists():
                self._read()
        except OSError as error:
            raise unwritable(folder, error) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"{self._path} is not of a job that can be gone on with: start anew, into another "
                "folder"
            ) from error
        self.resumed = self._begun = bool(self.done)

    def write(self, _: FrameRecord) -> None:
        """Begin the log, unless it has begun."""
        if not self._begun:
            lines = [self._head, *map(json.dumps, sorted(self.done)), ""]
            write_whole(self._path, "\n".join(lines).encode())
            self._begun = True

    def end_source(self, source: str, whole: bool) -> None:
        """Note a source all of whose frames were read, predicted and written."""
        if not whole:
            return
        self.done.add(source)
        if self._begun:
            with naming(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(source) + "\n")

    def _read(self) -> None:
        if not self._path.is_file():  # a pipe may never end
            raise ValueError("no file")
        # What follows the last line end was cut short.
        first, *lines = self._path.read_text(encoding="utf-8").split("\n")[:-1] or ["null"]
        before, now = json.loads(first), json.loads(self._head)
        if not isinstance(before, dict):
            raise TypeError("settings are a table")
        if before != now:
            changed = [key for key, value in now.items() if before.get(key) != value]
            raise OptionError(
                f"the job in {self._path.parent} was another one ({', '.join(changed)}): resume it "
                "with the sources and options that it had"
            )
        self.done = {json.loads(line) for line in lines}
        if self.done:
            write_whole(self._path, "\n".join([first, *lines, ""]).encode())
