"""The parts of the results: a Parquet file a key, there whole or not at all.

A part has a row a frame and a row a target. One whose frames could not all be read is called
KEY.broken.parquet; it is done, too, and its unit is done again only if that is asked for.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.archive.place import Place
from pinglow.errors import FrameError
from pinglow.extras import import_extra
from pinglow.results import TARGET_COLUMNS, target_row
from pinglow.structures import Detections, Prediction

PARTS: Final = "parts"
"""The folder of the parts, with a folder for each two first digits of a key."""

_BROKEN: Final = ".broken.parquet"
_WHOLE: Final = ".parquet"
_DIGITS: Final = 2
_GROUP: Final = 2**16  # rows
_LONG: Final = 64  # rows from which on compression helps

FRAME: Final = "frame"
TARGET: Final = "target"
"""The two kinds of rows."""


@cache
def schema() -> Any:
    """The columns of a part, in Arrow's words."""
    arrow = import_extra("pyarrow", "archive", "an archive")
    targets = {name: arrow.from_numpy_dtype(kind) for name, kind in TARGET_COLUMNS.items()}
    return arrow.schema(
        {
            **{"kind": arrow.string(), "source": arrow.string(), "frame": arrow.int64()},
            **{"time": arrow.float64()},
            **{"frame_width": arrow.int32(), "frame_height": arrow.int32()},
            **{"targets": arrow.int32(), "problem": arrow.string()},
            **targets,
            "outline": arrow.string(),
        }
    )


_NO_TARGET: Final = (None,) * (len(TARGET_COLUMNS) + 1)


class Rows:
    """The rows of a part, as they come.

    Attributes:
        frames: Frames that were predicted.
        targets: Targets in them.
        broken: Source and reason of each frame that was not.
    """

    def __init__(self) -> None:
        self.frames = self.targets = 0
        self.broken: list[tuple[str, str]] = []
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[Any] = []

    def add(
        self,
        source: str,
        index: int,
        time: float | None,
        shape: tuple[int, ...],
        found: Prediction | Detections,
    ) -> None:
        """Add a frame and its targets; shape: (H, W) of the frame."""
        height, width = shape
        count = len(found.targets)
        frame = (source, index, time, width, height)
        self._rows.append((FRAME, *frame, count, None, *_NO_TARGET))
        if count:
            for target, entry in zip(found.targets, found.to_coco(0), strict=True):
                outline = entry.get("segmentation", {}).get("counts")
                self._rows.append((TARGET, *frame, None, None, *target_row(target), outline))
        self.frames += 1
        self.targets += count
        if len(self._rows) >= _GROUP:
            self._pack()

    def add_broken(self, source: str, index: int, time: float | None, reason: str) -> None:
        """Add a frame that could not be read or predicted."""
        self._rows.append((FRAME, source, index, time, None, None, None, reason, *_NO_TARGET))
        self.broken.append((source, reason))

    def content(self) -> bytes:
        """The Parquet file: equal rows give equal bytes."""
        arrow = import_extra("pyarrow", "archive", "an archive")
        parquet = import_extra("pyarrow.parquet", "archive", "an archive")
        self._pack()
        file = io.BytesIO()
        # Most parts have a row or two: what helps long columns would be most of the file.
        rows = sum(batch.num_rows for batch in self._batches)
        options: dict[str, Any] = {
            **{"compression": "none" if rows < _LONG else "zstd", "store_schema": False},
            **{"write_statistics": False, "use_dictionary": False},
        }
        with parquet.ParquetWriter(file, schema(), **options) as writer:
            if self._batches:
                writer.write_table(arrow.Table.from_batches(self._batches), row_group_size=_GROUP)
        return file.getvalue()

    def _pack(self) -> None:
        """Turn what has come into columns, which take a tenth of the memory."""
        if self._rows:
            arrow = import_extra("pyarrow", "archive", "an archive")
            columns = zip(*self._rows, strict=True)
            arrays = [
                arrow.array(column, kind)
                for column, kind in zip(columns, schema().types, strict=True)
            ]
            self._batches.append(arrow.record_batch(arrays, schema=schema()))
            self._rows = []


def part_name(key: str, *, broken: bool = False) -> str:
    """Where the part of a key is, in the folder of the results."""
    return f"{PARTS}/{key[:_DIGITS]}/{key}{_BROKEN if broken else _WHOLE}"


def write_part(place: Place, key: str, rows: Rows) -> None:
    """Write the part of a key; where it is there already, nothing changes.

    Raises:
        PlaceError: The store does not take it.
        OSError: The disk does not.
    """
    broken = bool(rows.broken)
    # Parts of one key are equal, but for why a frame is broken.
    place.write(part_name(key, broken=broken), rows.content(), replace=broken)


def read_part(place: Place, key: str, *, broken: bool) -> Any:
    """The rows of a part, as an Arrow table.

    Raises:
        PlaceError: It cannot be read.
        FrameError: It is no part.
    """
    parquet = import_extra("pyarrow.parquet", "archive", "an archive")
    arrow = import_extra("pyarrow", "archive", "an archive")
    name = part_name(key, broken=broken)
    content = place.read(name)
    try:
        return parquet.read_table(arrow.BufferReader(content)).cast(schema())
    except (arrow.ArrowException, ValueError) as error:
        raise FrameError(
            f"{place}/{name} is damaged: delete it and run again, which makes it anew"
        ) from error


class Keys:
    """The keys that have a part; a folder of them is listed when it is first asked about.

    They take 64 bytes each.

    Attributes:
        bytes: Of the parts in the folders that were listed.
    """

    def __init__(self, place: Place) -> None:
        self.bytes = 0
        self._place = place
        self._folders: dict[str, tuple[NDArray[np.bytes_], NDArray[np.bytes_]]] = {}

    def state(self, key: str) -> str | None:
        """Whether the part of a key is "whole" or "broken"; None: there is none."""
        whole, broken = self._folder(key[:_DIGITS])
        return "whole" if _holds(whole, key) else "broken" if _holds(broken, key) else None

    def count(self) -> int:
        """How many parts there are."""
        for number in range(16**_DIGITS):
            self._folder(f"{number:0{_DIGITS}x}")
        return sum(len(each) for pair in self._folders.values() for each in pair)

    def _folder(self, digits: str) -> tuple[NDArray[np.bytes_], NDArray[np.bytes_]]:
        if digits not in self._folders:
            whole, broken = [], []
            for name, size in self._place.entries(f"{PARTS}/{digits}"):
                self.bytes += size
                if not size:  # what a power cut has left on some disks
                    continue
                if name.endswith(_BROKEN):
                    broken.append(name.removesuffix(_BROKEN).encode())
                elif name.endswith(_WHOLE):
                    whole.append(name.removesuffix(_WHOLE).encode())
            self._folders[digits] = _sorted(whole), _sorted(broken)
        return self._folders[digits]


def _sorted(names: list[bytes]) -> NDArray[np.bytes_]:
    return np.sort(np.array(names, "S64"))


def _holds(names: NDArray[np.bytes_], key: str) -> bool:
    place = int(np.searchsorted(names, key.encode()))
    return place < len(names) and bool(names[place] == key.encode())


def remove_broken(place: Place, key: str) -> None:
    """Remove what was there of a unit whose frames could not all be read.

    Raises:
        PlaceError: It cannot be removed.
    """
    place.remove(part_name(key, broken=True))
