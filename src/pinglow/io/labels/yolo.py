"""YOLO: a text file a frame."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.io.labels.boxes import BoxArray, Shape, fit_box, parse_numbers, stack_boxes
from pinglow.io.labels.text import read_text

_MOST_SHARE: Final = 2  # of a frame, in a box: half of it may stick out


def read_yolo(path: Path, shape: Shape) -> BoxArray:
    """Boxes of a YOLO label file; none if the file is not there but its folder is.

    Args:
        path: The file.
        shape: (H, W) of the frame.

    Raises:
        DataError: The folder is missing, or a line is wrong.
    """
    if path.parent.is_dir() and not path.exists() and not path.is_symlink():
        return stack_boxes([])
    height, width = shape
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        _, x, y, w, h = parse_numbers(line.split(), place, "class, x, y, width, height", 5)
        if _MOST_SHARE < max(w, h) < math.inf:
            raise DataError(
                f"{place} has a box of {w:g} x {h:g} frames: YOLO's numbers are shares of the "
                "frame's width and height, not pixels"
            )
        box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        rows.append(fit_box(box, shape, place))
    return stack_boxes(rows)


def write_yolo(path: Path, boxes: BoxArray, shape: Shape) -> None:
    """Write a frame's boxes as a YOLO label file; an empty one where there are none.

    Its 12 digits are exact to 1e-6 px up to frames of 300,000 px a side.
    """
    height, width = shape
    lines = (
        f"0 {(x + w / 2) / width:.12g} {(y + h / 2) / height:.12g} {w / width:.12g} "
        f"{h / height:.12g}\n"
        for x, y, w, h in boxes.tolist()
    )
    write_whole(path, "".join(lines).encode())
