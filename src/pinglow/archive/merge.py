"""Tables of a whole archive from its parts, part by part: memory does not grow with it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from pinglow._version import __version__
from pinglow.archive.parts import FRAME, Keys, read_part, schema
from pinglow.archive.place import Place
from pinglow.archive.plans import read_units
from pinglow.data.pack.reader import work_through
from pinglow.extras import import_extra
from pinglow.files import open_whole
from pinglow.io.labels.boxes import CLASS
from pinglow.results import TARGET_COLUMNS

_READ: Final = 16  # parts at a time
_GROUP: Final = 2**16  # rows of a row group
_PACK: Final = 2**10  # tables
_FRAME_COLUMNS: Final = ("source", "frame", "time", "frame_width", "frame_height")
_CATEGORY: Final = 1


@dataclass
class Merged:
    """What tables were made of.

    Attributes:
        units: Parts that were read.
        missing: Units without a part.
        frames: Frames that were predicted.
        broken: Frames that could not be.
        targets: Targets.
    """

    units: int = 0
    missing: int = 0
    frames: int = 0
    broken: int = 0
    targets: int = 0


def merge(
    place: Place, out: Path, on_progress: Callable[[int], None] = lambda done: None
) -> Merged:
    """Write targets.parquet, targets.csv, coco.json and frames.parquet.

    Rows are sorted by source and frame, whatever runs have made the parts and in which order.

    Args:
        place: The folder of the results of one model and its options.
        out: A local folder, made if need be.
        on_progress: Called after each part with the number of parts.

    Raises:
        PlaceError: A part or a manifest cannot be read.
        FrameError: A part is damaged.
        OSError: The folder cannot be written to.
    """
    merged = Merged()
    keys = Keys(place)

    def read(key: str) -> Any:
        state = keys.state(key)
        return None if state is None else read_part(place, key, broken=state == "broken")

    with _open_tables(out) as tables:
        for part in work_through(read, (key for key, _ in read_units(place)), _READ):
            if part is None:
                merged.missing += 1
                continue
            merged.units += 1
            tables.add(part, merged)
            on_progress(merged.units)
    return merged


class _Tables:
    """The four files, open, and what is in them."""

    def __init__(self, stack: ExitStack, out: Path, waiting: IO[bytes]) -> None:
        def create(name: str) -> BinaryIO:
            return stack.enter_context(open_whole(out / name))

        self._text = io.TextIOWrapper(create("targets.csv"), encoding="utf-8", newline="")
        self._csv = csv.writer(self._text, lineterminator="\n")
        self._csv.writerow(("source", "frame", *TARGET_COLUMNS, "time", "track"))
        self._coco = _Coco(create("coco.json"), waiting)
        self._targets = _Parquet(
            stack, create("targets.parquet"), (*_FRAME_COLUMNS, *TARGET_COLUMNS)
        )
        self._frames = _Parquet(
            stack, create("frames.parquet"), (*_FRAME_COLUMNS, "targets", "problem")
        )

    def add(self, part: Any, merged: Merged) -> None:
        """Add the rows of a part, and count them."""
        compute = import_extra("pyarrow.compute", "archive", "merging")
        is_frame = compute.equal(part["kind"], FRAME)
        self._frames.add(part.filter(is_frame))
        self._targets.add(part.filter(compute.invert(is_frame)))
        for row in part.to_pylist():
            if row["kind"] != FRAME:
                merged.targets += 1
                values = (row[name] for name in TARGET_COLUMNS)
                self._csv.writerow((row["source"], row["frame"], *values, row["time"], None))
                self._coco.add_target(row)
            elif row["problem"] is None:
                merged.frames += 1
                self._coco.add_frame(row)
            else:
                merged.broken += 1

    def finish(self) -> None:
        """Write what is left."""
        self._text.detach()
        self._coco.finish()
        self._targets.flush()
        self._frames.flush()


@contextmanager
def _open_tables(out: Path) -> Iterator[_Tables]:
    """The tables; they appear under their names when the block ends well."""
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack, tempfile.TemporaryFile(dir=out) as waiting:
        tables = _Tables(stack, out, waiting)
        yield tables
        tables.finish()


class _Parquet:
    """A table that is written in groups of rows."""

    def __init__(self, stack: ExitStack, file: BinaryIO, columns: Sequence[str]) -> None:
        self._arrow = import_extra("pyarrow", "archive", "merging")
        parquet = import_extra("pyarrow.parquet", "archive", "merging")
        self._columns = list(columns)
        kind = self._arrow.schema([schema().field(name) for name in columns])
        self._writer = stack.enter_context(parquet.ParquetWriter(file, kind, compression="zstd"))
        self._waiting: list[Any] = []  # tables of some rows each, which take 6 KB and more
        self._packed: list[Any] = []  # of more rows
        self._rows = 0

    def add(self, rows: Any) -> None:
        if rows.num_rows:
            self._waiting.append(rows.select(self._columns))
            self._rows += rows.num_rows
        if len(self._waiting) >= _PACK:
            self._packed.append(self._join(self._waiting))
            self._waiting = []
        if self._rows >= _GROUP:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._join(self._packed + self._waiting))
        self._waiting, self._packed, self._rows = [], [], 0

    def _join(self, tables: list[Any]) -> Any:
        return self._arrow.concat_tables(tables).combine_chunks()


class _Coco:
    """coco.json as `pinglow predict` writes it: images, then annotations, which wait in a file."""

    def __init__(self, file: BinaryIO, waiting: IO[bytes]) -> None:
        self._file, self._waiting = file, waiting
        self._images = self._annotations = 0
        info = {"description": "targets found by pinglow", "version": __version__}
        categories = [{"id": _CATEGORY, "name": CLASS}]
        file.write(f'{{"info": {json.dumps(info)},\n'.encode())
        file.write(f'"categories": {json.dumps(categories)},\n"images": ['.encode())

    def add_frame(self, row: dict[str, Any]) -> None:
        self._images += 1
        several = row["time"] is not None or row["frame"] > 0
        image = {
            "id": self._images,
            "file_name": row["source"] + f"#{row['frame']}" * several,
            "source": row["source"],
            "frame": row["frame"],
            "width": row["frame_width"],
            "height": row["frame_height"],
        }
        if row["time"] is not None:
            image["time"] = row["time"]
        _write_row(self._file, image, self._images)

    def add_target(self, row: dict[str, Any]) -> None:
        self._annotations += 1
        box = [float(row[name]) for name in ("left", "top", "width", "height")]
        annotation = {
            **{"id": self._annotations, "image_id": self._images, "category_id": _CATEGORY},
            **{"bbox": box, "score": row["score"], "area": row["area"], "iscrowd": 0},
        }
        if row["outline"] is not None:
            size = [row["frame_height"], row["frame_width"]]
            annotation["segmentation"] = {"size": size, "counts": row["outline"]}
        _write_row(self._waiting, annotation, self._annotations)

    def finish(self) -> None:
        self._file.write(b'],\n"annotations": [')
        self._waiting.seek(0)
        shutil.copyfileobj(self._waiting, self._file)
        self._file.write(b"]}\n")


def _write_row(file: IO[bytes], row: dict[str, Any], number: int) -> None:
    file.write(f"{',' * (number > 1)}\n{json.dumps(row)}".encode())
