"""Pascal VOC: an XML file a frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.io.labels.boxes import (
    CLASS,
    BoxArray,
    Shape,
    check_shape,
    fit_box,
    parse_numbers,
    shorten,
    stack_boxes,
)
from pinglow.io.labels.marks import Box, LabeledFrame, Mark
from pinglow.io.labels.text import read_xml

_LARGEST_XML: Final = 2**22  # bytes: 10,000 boxes, and a tree that fits into memory
_WHOLE: Final = re.compile("[0-9]{1,9}")
_EDGES: Final = ("xmin", "ymin", "xmax", "ymax")


def read_voc_marks(path: Path) -> Iterator[LabeledFrame]:
    """The one frame of a VOC XML file, called as the file is: many name another in ``filename``."""
    yield LabeledFrame(path.stem, path, partial(_marks, path))


def _marks(path: Path, shape: Shape) -> list[Mark]:
    return [Mark(name, place, Box(*box)) for name, place, box in _read_objects(path, shape)]


def read_voc(path: Path, shape: Shape) -> BoxArray:
    """Boxes of a VOC XML file; a ``size`` of 0 or none at all is not looked at.

    Args:
        path: The file.
        shape: (H, W) of the frame.

    Raises:
        DataError: The file is missing, broken or of a frame of another size, or a box is wrong.
    """
    return stack_boxes(box for _, _, box in _read_objects(path, shape))


def _read_objects(path: Path, shape: Shape) -> list[tuple[str, str, tuple[float, ...]]]:
    """Name, place and (left, top, width, height) of each object, cut to its frame."""
    root = read_xml(path, largest=_LARGEST_XML, root="annotation")
    width, height = (root.findtext(f"size/{side}", "").strip() for side in ("width", "height"))
    if _WHOLE.fullmatch(width) and _WHOLE.fullmatch(height) and int(width) and int(height):
        check_shape(path, (int(height), int(width)), shape)
    edges = []
    for number, item in enumerate(root.iterfind("object"), start=1):
        place = f"{path}, object {number}"
        texts = [item.findtext(f"bndbox/{edge}", "") for edge in _EDGES]
        numbers = parse_numbers(texts, place, f"a bndbox of {', '.join(_EDGES)}")
        edges.append((item.findtext("name", "").strip(), place, numbers))
    if edges and all(0 < x1 <= 1 and 0 < y1 <= 1 for _, _, (_, _, x1, y1) in edges):
        raise DataError(f"{path} has boxes as shares of the frame: VOC's are in pixels, from 1")
    return [
        (name, place, fit_box((x0 - 1, y0 - 1, x1 - x0, y1 - y0), shape, place))
        for name, place, (x0, y0, x1, y1) in edges
    ]


def write_voc(path: Path, boxes: BoxArray, shape: Shape, file_name: str) -> None:
    """Write a frame's boxes as VOC XML; ``file_name`` is that of its image."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name
    size = ElementTree.SubElement(root, "size")
    for side, pixels in (("width", shape[1]), ("height", shape[0]), ("depth", 1)):
        ElementTree.SubElement(size, side).text = str(pixels)
    for left, top, width, height in boxes.tolist():
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = CLASS
        bndbox = ElementTree.SubElement(item, "bndbox")
        corners = (left + 1, top + 1, left + width + 1, top + height + 1)
        for edge, value in zip(_EDGES, corners, strict=True):
            ElementTree.SubElement(bndbox, edge).text = str(shorten(value))
    ElementTree.indent(root)
    write_whole(path, ElementTree.tostring(root, encoding="utf-8") + b"\n")
