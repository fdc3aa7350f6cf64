"""YOLO: a text file a frame."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Final

import numpy as np

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.io.labels.boxes import BoxArray, Shape, fit_box, parse_numbers, stack_boxes
from pinglow.io.labels.marks import Box, LabeledFrame, Mark, polygon_region
from pinglow.io.labels.text import read_text

_MOST_SHARE: Final = 2  # of a frame, in a box: half of it may stick out
_DEPTH: Final = 3  # folders above the labels in which names of classes are looked for
_SHARES: Final = "YOLO's numbers are shares of the frame's width and height, not pixels"


def read_yolo(path: Path, shape: Shape) -> BoxArray:
    """Boxes of a YOLO label file; none if the file is not there but its folder is.

    An outline becomes the box around it.

    Args:
        path: The file.
        shape: (H, W) of the frame.

    Raises:
        DataError: The folder is missing, or a line is wrong.
    """
    if path.parent.is_dir() and not path.exists() and not path.is_symlink():
        return stack_boxes([])
    boxes = []
    for _, place, form in _read_lines(path, shape):
        if isinstance(form, Box):
            boxes.append(fit_box((form.left, form.top, form.width, form.height), shape, place))
        else:
            corners = np.array(form)
            low, high = corners.min(axis=0), corners.max(axis=0)
            boxes.append(fit_box((*low, *(high - low)), shape, place))
    return stack_boxes(boxes)


def read_yolo_marks(path: Path) -> Iterator[LabeledFrame]:
    """The one frame of a YOLO label file, called as the file is.

    Classes have the names of classes.txt or data.yaml in one of the folders around it, or else
    their numbers.
    """
    yield LabeledFrame(path.stem, path, partial(_marks, path))


def _marks(path: Path, shape: Shape) -> list[Mark]:
    names = _class_names(path.parent)
    return [
        Mark(
            names.get(number, number),
            place,
            form if isinstance(form, Box) else polygon_region([form], shape, place),
        )
        for number, place, form in _read_lines(path, shape)
    ]


@cache
def _class_names(folder: Path) -> dict[str, str]:
    """The name of each class by its number, from the nearest file of names."""
    for place in (folder, *list(folder.absolute().parents)[:_DEPTH]):
        if (place / "classes.txt").is_file():
            lines = read_text(place / "classes.txt").split("\n")
            return {str(number): line.strip() for number, line in enumerate(lines) if line.strip()}
        if (place / "data.yaml").is_file():
            return _yaml_names(read_text(place / "data.yaml"))
    return {}


def _yaml_names(text: str) -> dict[str, str]:
    """What stands under names: in ultralytics' file: a list, in one line or several, or a table."""
    block = re.search(r"^names:[ \t]*(.*(?:\n[ \t-].*)*)", text, re.MULTILINE)
    if block is None:
        return {}
    if block[1].startswith("["):
        items = block[1].strip("[] \t\n").split(",")
        return {str(number): item.strip(" '\"\t\n") for number, item in enumerate(items)}
    names = {}
    for number, line in enumerate(filter(str.strip, block[1].split("\n"))):
        match = re.match(r"\s*(?:-|(\d+)\s*:)\s*(.*)", line)
        if match:
            names[match[1] or str(number)] = match[2].strip(" '\"\t")
    return names


def _read_lines(
    path: Path, shape: Shape
) -> Iterator[tuple[str, str, Box | list[tuple[float, float]]]]:
    """Class, place, and a box or the corners of an outline in pixels, of each line."""
    height, width = shape
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        texts = line.split()
        outlined = len(texts) > 6 and len(texts) % 2 == 1
        wanted = "class, x, y, width, height"
        count = len(texts) if outlined else 5
        name, *shares = parse_numbers(texts, place, wanted, count)
        if outlined:
            if any(abs(share) > _MOST_SHARE for share in shares if math.isfinite(share)):
                raise DataError(f"{place} has corners in pixels: {_SHARES}")
            ring = [(x * width, y * height) for x, y in zip(shares[::2], shares[1::2], strict=True)]
            yield f"{name:g}", place, ring
            continue
        x, y, w, h = shares
        if _MOST_SHARE < max(w, h) < math.inf:
            raise DataError(f"{place} has a box of {w:g} x {h:g} frames: {_SHARES}")
        box = Box((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        yield f"{name:g}", place, box


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
