"""The sink of Parquet tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from pinglow.extras import import_extra
from pinglow.output.converted import ConvertedSink
from pinglow.output.sink import FrameRecord
from pinglow.output.tables import frame_line, tracked
from pinglow.results import TARGET_COLUMNS, target_row

_ROWS: Final = 2**16  # of a row group


class ParquetSink(ConvertedSink):
    """targets.parquet: a row a target; a frame without any has one row with nulls for a target's.

    The columns are those of the CSV with the frame's name, width and height. It is written in
    groups of 65,536 rows, compressed by zstd.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    place = "targets.parquet"
    table = ".targets.parquet.lines"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._arrow = import_extra("pyarrow", "tables", "--save parquet")
        self._parquet = import_extra("pyarrow.parquet", "tables", "--save parquet")

    def line(self, record: FrameRecord) -> dict[str, Any]:
        """The frame's columns, and those of each target."""
        targets = [(*target_row(target), track) for target, track in tracked(record)]
        return {**frame_line(record), "targets": targets}

    def convert(self, file: BinaryIO) -> None:
        """Write the rows group by group."""
        schema = self._schema()
        rows = self._rows()
        with self._parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            while group := list(itertools.islice(rows, _ROWS)):
                columns = [list(column) for column in zip(*group, strict=True)]
                writer.write_table(self._arrow.table(columns, schema=schema))

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        nothing = (None,) * (len(TARGET_COLUMNS) + 1)
        for line in self.read_lines():
            frame = (line["source"], line["frame"], line["name"], line.get("time"))
            for target in line["targets"] or [nothing]:
                yield (*frame, line["width"], line["height"], *target)

    def _schema(self) -> Any:
        arrow = self._arrow
        targets = {name: arrow.from_numpy_dtype(kind) for name, kind in TARGET_COLUMNS.items()}
        return arrow.schema(
            {
                **{"source": arrow.string(), "frame": arrow.int64(), "name": arrow.string()},
                **{"time": arrow.float64()},
                **{"frame_width": arrow.int32(), "frame_height": arrow.int32()},
                **targets,
                "track": arrow.int64(),
            }
        )
