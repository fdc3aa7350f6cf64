"""The sink of crops: each target with its surroundings, in the frame's own counts."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pinglow.files import write_whole
from pinglow.output.sink import FrameRecord
from pinglow.output.tables import CsvTable, tracked
from pinglow.results import TARGET_COLUMNS, target_row
from pinglow.structures import Target

_SIDE: Final = 64  # px
_MOST: Final = 20  # crops of a frame


class CropSink(CsvTable):
    """crops/<name>_<rank>.png: a window around each of the best 20 targets of a frame.

    It holds counts as they were read: 8 or 16 bits, or where counts are of another type a TIFF of
    that type. It has 64 pixels a side, for targets of more than 32 twice theirs, and lies within
    the frame. crops/crops.csv says of each where it is from and what the target is.
    """

    place = "crops"
    table = "crops/crops.csv"
    columns = (
        *("source", "frame", "time", "file"),
        *("window_left", "window_top", "window_width", "window_height"),
        *TARGET_COLUMNS,
        "track",
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder / self.place
        self._folder.mkdir(parents=True, exist_ok=True)

    def rows(self, record: FrameRecord) -> Iterator[Sequence[Any]]:
        """Write the crops of a frame, and describe each."""
        for rank, (target, track) in enumerate(tracked(record), start=1):
            if rank > _MOST:
                break
            rows, columns = find_window(target, record.frame.shape)
            crop = record.frame[rows, columns]
            suffix, content = _encode(crop)
            name = f"{record.name}_{rank}{suffix}"
            write_whole(self._folder / name, content, durable=False)  # can be made again
            window = (columns.start, rows.start, crop.shape[1], crop.shape[0])
            start = (record.source, record.page, record.time, name)
            yield (*start, *window, *target_row(target), track)


def find_window(target: Target, shape: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of a window around a target that lies within an (H, W) frame."""
    side = max(_SIDE, 2 * max(target.bbox[2:]))
    slices = []
    for center, length in ((target.y, shape[0]), (target.x, shape[1])):
        start = max(0, min(round(center) - side // 2, length - side))
        slices.append(slice(start, min(length, start + side)))
    return slices[0], slices[1]


def _encode(crop: NDArray[Any]) -> tuple[str, bytes]:
    content = io.BytesIO()
    if crop.dtype in (np.uint8, np.uint16):
        Image.fromarray(np.ascontiguousarray(crop)).save(content, "PNG")
        return ".png", content.getvalue()
    tifffile.imwrite(content, crop)
    return ".tif", content.getvalue()
