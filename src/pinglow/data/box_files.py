"""Files of boxes, read and written: Pascal VOC, YOLO and COCO.

A box is (left, top, width, height) in pixels, where pixel i covers [i, i + 1): the same as
``Target.bbox`` and COCO. There is one class, "target"; in a file that is read, every class is one.

======  ===========================  ==========================================================
format  files in a data folder       a box
======  ===========================  ==========================================================
voc     boxes/NAME.xml               xmin, ymin, xmax, ymax: its edges, counted from 1, so that
                                     xmin = left + 1 and xmax = left + width + 1. That is what
                                     SIRST's files hold; the original PASCAL VOC counts its last
                                     pixel in, so that its xmax is smaller by 1
yolo    labels/NAME.txt              class, centre x and y, width, height over the frame's size
coco    annotations/SPLIT.json, or   bbox: left, top, width, height; annotations with iscrowd 1
        annotations.json             are left out
======  ===========================  ==========================================================

Boxes are rounded to 1e-6 px in reading, so boxes given to 1e-6 px come back as they were. A box
that sticks out of its frame is cut to it; one that is empty or wholly outside is an error.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from pinglow.data.datasets import strip_suffix
from pinglow.errors import DataError

BoxArray = NDArray[np.float64]
"""(n, 4) rows (left, top, width, height) in pixels, pixel i covering [i, i + 1)."""
Shape = tuple[int, ...]
"""(H, W) of a frame in pixels."""

_DECIMALS: Final = 6
_LARGEST_XML: Final = 2**24  # bytes
_EDGES: Final = ("xmin", "ymin", "xmax", "ymax")
_CLASS: Final = "target"


# --- Pascal VOC ----------------------------------------------------------------------------------


def read_voc(path: Path, shape: Shape) -> BoxArray:
    """Boxes of a VOC XML file; a ``size`` of 0 or none at all is not looked at.

    Args:
        path: The file.
        shape: (H, W) of the frame.

    Raises:
        DataError: The file is missing, broken or of a frame of another size, or a box is wrong.
    """
    if path.is_file() and path.stat().st_size > _LARGEST_XML:
        raise DataError(f"{path} has over {_LARGEST_XML >> 20} MB: boxes of one frame are smaller")
    text = _read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can grow beyond any memory
        raise DataError(f"{path} declares a DOCTYPE or entities: take them out of the file")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not whole XML ({error}): export it again") from error
    if root.tag != "annotation":
        raise DataError(f"{path} holds <{root.tag}>: VOC files hold <annotation>")
    width, height = (root.findtext(f"size/{side}", "").strip() for side in ("width", "height"))
    if width.isdecimal() and height.isdecimal() and int(width) and int(height):
        check_shape(path, (int(height), int(width)), shape)
    rows = []
    for number, item in enumerate(root.iterfind("object"), start=1):
        place = f"{path}, object {number}"
        texts = [item.findtext(f"bndbox/{edge}", "") for edge in _EDGES]
        x0, y0, x1, y1 = _parse_numbers(texts, place, f"a bndbox of {', '.join(_EDGES)}")
        rows.append(_fit((x0 - 1, y0 - 1, x1 - x0, y1 - y0), shape, place))
    return stack_boxes(rows)


def write_voc(path: Path, boxes: BoxArray, shape: Shape, file_name: str) -> None:
    """Write a frame's boxes as VOC XML; ``file_name`` is that of its image."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name
    size = ElementTree.SubElement(root, "size")
    for side, pixels in (("width", shape[1]), ("height", shape[0]), ("depth", 1)):
        ElementTree.SubElement(size, side).text = str(pixels)
    for left, top, width, height in boxes.tolist():
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = _CLASS
        bndbox = ElementTree.SubElement(item, "bndbox")
        corners = (left + 1, top + 1, left + width + 1, top + height + 1)
        for edge, value in zip(_EDGES, corners, strict=True):
            ElementTree.SubElement(bndbox, edge).text = str(_plain(value))
    ElementTree.indent(root)
    write_whole(path, ElementTree.tostring(root, encoding="utf-8") + b"\n")


# --- YOLO ----------------------------------------------------------------------------------------


def read_yolo(path: Path, shape: Shape) -> BoxArray:
    """Boxes of a YOLO label file; none if the file is not there but its folder is.

    Args:
        path: The file.
        shape: (H, W) of the frame.

    Raises:
        DataError: The folder is missing, or a line is wrong.
    """
    if path.parent.is_dir() and not path.exists():
        return stack_boxes([])
    height, width = shape
    rows = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        _, x, y, w, h = _parse_numbers(line.split(), place, "class, x, y, width, height", 5)
        box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        rows.append(_fit(box, shape, place))
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


# --- COCO ----------------------------------------------------------------------------------------


class _Image(BaseModel):
    id: int | str
    file_name: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class _Annotation(BaseModel):
    image_id: int | str
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _Coco(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]


def read_coco(path: Path) -> dict[str, tuple[Shape, BoxArray]]:
    """Size (H, W) and boxes of each image of a COCO JSON file, by file name without suffix.

    Raises:
        DataError: The file is missing or broken, names an image twice, or a box is wrong.
    """
    try:
        coco = _Coco.model_validate_json(_read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        raise DataError(f"{path} is not COCO JSON: {place}: {first['msg']}") from error
    rows: dict[int | str, list[tuple[float, ...]]] = {image.id: [] for image in coco.images}
    shapes = {image.id: (image.height, image.width) for image in coco.images}
    names = {strip_suffix(image.file_name.replace("\\", "/")): image.id for image in coco.images}
    if not len(names) == len(rows) == len(coco.images):
        raise DataError(f"{path} has an id or a file_name of two images: give each its own")
    for number, annotation in enumerate(coco.annotations):
        place, image = f"{path}, annotations.{number}", annotation.image_id
        if image not in rows:
            raise DataError(f"{place} is of image_id {image}, which is not among the images")
        if not annotation.iscrowd:
            rows[image].append(_fit(annotation.bbox, shapes[image], place))
    return {name: (shapes[image], stack_boxes(rows[image])) for name, image in names.items()}


def write_coco(path: Path, frames: Iterable[tuple[str, Shape, BoxArray]]) -> None:
    """Write COCO JSON from the file name, (H, W) and boxes of each frame."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for file_name, (height, width), boxes in frames:
        image = len(images) + 1
        images.append({"id": image, "file_name": file_name, "width": width, "height": height})
        for box in boxes.tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [_plain(value) for value in box],
                    "area": _plain(box[2] * box[3]),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": _CLASS}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    write_whole(path, f"{json.dumps(coco, ensure_ascii=False, indent=1)}\n".encode())


# --- shared by the formats -----------------------------------------------------------------------


def write_whole(path: Path, content: bytes) -> None:
    """Write a file and the folders that it is in; it appears under its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error


def _parse_numbers(texts: list[str], place: str, wanted: str, count: int = 4) -> list[float]:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise DataError(f"{place} is not {wanted} in numbers; mend or take out that box")
    return numbers


def check_shape(place: Path | str, stated: Shape, shape: Shape) -> None:
    """Refuse boxes that were drawn in a frame of another size."""
    if stated != shape:
        raise DataError(
            f"{place} is of a frame of {stated[1]} x {stated[0]}, but the frame has "
            f"{shape[1]} x {shape[0]}; use the boxes of this frame"
        )


def _fit(box: tuple[float, ...], shape: Shape, place: str) -> tuple[float, ...]:
    """Round a box to 1e-6 px and cut it to the frame."""
    if not all(math.isfinite(value) for value in box):
        raise DataError(f"{place} has a box of NaN or infinity; mend or take out that box")
    left, top, width, height = (round(value, _DECIMALS) for value in box)
    if width <= 0 or height <= 0:
        raise DataError(
            f"{place} has a box of {width:g} x {height:g} px; mend or take out that box"
        )
    x0, y0 = max(left, 0.0), max(top, 0.0)
    x1, y1 = min(left + width, float(shape[1])), min(top + height, float(shape[0]))
    cut = x0, y0, round(x1 - x0, _DECIMALS), round(y1 - y0, _DECIMALS)
    if cut[2] <= 0 or cut[3] <= 0:
        raise DataError(
            f"{place} has a box at x {left:g}, y {top:g} px, outside its frame of "
            f"{shape[1]} x {shape[0]}; mend or take out that box"
        )
    return cut


def stack_boxes(rows: Iterable[tuple[float, ...]]) -> BoxArray:
    """Rows (left, top, width, height), or none at all, as an (n, 4) array."""
    return np.array(list(rows), dtype=np.float64).reshape(-1, 4)


def _plain(value: float) -> int | float:
    """A number as short as it can be written to 1e-6."""
    rounded = round(value, _DECIMALS)
    return int(rounded) if rounded == int(rounded) else rounded
