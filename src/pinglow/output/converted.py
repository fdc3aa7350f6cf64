"""What sinks have in common whose files cannot grow frame by frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pinglow.files import open_whole
from pinglow.output.sink import FrameRecord
from pinglow.output.tables import LinesSink


class ConvertedSink(LinesSink):
    """Keeps a hidden file of lines, and makes its own file of them when the job ends.

    That file is whole or not there, also where the job was interrupted: then it has the frames
    that were done. The lines stay beside it, so that a job can be resumed, also one that was
    killed. No more than some frames at a time are in memory.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._place = folder / self.place

    def convert(self, file: BinaryIO) -> None:
        """Write the file, from `read_lines`."""
        raise NotImplementedError

    def read_lines(self) -> Iterator[dict[str, Any]]:
        """What `line` gave of each frame, in order; it can be asked for more than once."""
        assert self._path is not None
        with self._path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                if line.endswith("\n"):  # the last one may be cut short
                    yield json.loads(line)

    def write(self, record: FrameRecord) -> None:
        """Keep what there is to say of one frame."""
        if not self._begun:
            self._place.unlink(missing_ok=True)  # an earlier job's
        super().write(record)

    def close(self) -> None:
        """Make the file."""
        super().close()
        if self._begun:
            with open_whole(self._place) as file:
                self.convert(file)
