"""Pascal VOC: an XML file a frame."""

from __future__ import annotations

import re
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
from pinglow.io.labels.text import read_xml_text

_LARGEST_XML: Final = 2**22  # bytes: 10,000 boxes, and a tree that fits into memory
_WHOLE: Final = re.compile("[0-9]{1,9}")
_EDGES: Final = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path, shape: Shape) -> BoxArray:
    """Boxes of a VOC XML file; a ``size`` of 0 or none at all is not looked at.

    Args:
        path: The file.
        shape: (H, W) of the frame.

    Raises:
        DataError: The file is missing, broken or of a frame of another size, or a box is wrong.
    """
    text = read_xml_text(path, largest=_LARGEST_XML)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can grow beyond any memory
        raise DataError(f"{path} declares a DOCTYPE or entities: take them out of the file")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not whole XML ({error}): export it again") from error
    if root.tag != "annotation":
        raise DataError(f"{path} holds <{root.tag}>: VOC files hold <annotation>")
    width, height = (root.findtext(f"size/{side}", "").strip() for side in ("width", "height"))
    if _WHOLE.fullmatch(width) and _WHOLE.fullmatch(height) and int(width) and int(height):
        check_shape(path, (int(height), int(width)), shape)
    edges = []
    for number, item in enumerate(root.iterfind("object"), start=1):
        place = f"{path}, object {number}"
        texts = [item.findtext(f"bndbox/{edge}", "") for edge in _EDGES]
        edges.append((place, parse_numbers(texts, place, f"a bndbox of {', '.join(_EDGES)}")))
    if edges and all(0 < x1 <= 1 and 0 < y1 <= 1 for _, (_, _, x1, y1) in edges):
        raise DataError(f"{path} has boxes as shares of the frame: VOC's are in pixels, from 1")
    return stack_boxes(
        fit_box((x0 - 1, y0 - 1, x1 - x0, y1 - y0), shape, place)
        for place, (x0, y0, x1, y1) in edges
    )


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
