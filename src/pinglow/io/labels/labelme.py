"""labelme: a JSON file beside each image.

A ``mask`` shape is exact: a PNG of its pixels between two corners, the second of them counted in.
What labelme draws (polygon, circle, rectangle) is in its coordinates, where pixel i covers
[i, i + 1). Lines mark no area and are refused.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.io.labels.boxes import CLASS, Shape, check_shape
from pinglow.io.labels.marks import (
    Box,
    LabeledFrame,
    Mark,
    Region,
    ellipse_region,
    mask_region,
    point_mark,
    polygon_region,
    read_coordinates,
)
from pinglow.io.labels.text import read_json
from pinglow.structures import BoolArray


def read_labelme(path: Path) -> Iterator[LabeledFrame]:
    """The one frame of a labelme file.

    Raises:
        DataError: The file is missing or no labelme JSON.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError(f"{path} is no labelme JSON, which has a list of shapes: export it again")
    image = content.get("imagePath")
    if not isinstance(image, str) or not image:
        raise DataError(f"{path} names no image (imagePath): save it again with labelme")
    yield LabeledFrame(image.replace("\\", "/"), path, functools.partial(_marks, path, content))


def _marks(path: Path, content: dict[str, Any], shape: Shape) -> list[Mark]:
    stated = content.get("imageHeight"), content.get("imageWidth")
    if isinstance(stated[0], int) and isinstance(stated[1], int) and all(stated):
        check_shape(path, (stated[0], stated[1]), shape)
    marks = []
    for number, item in enumerate(content["shapes"]):
        place = f"{path}, shapes.{number}"
        if not isinstance(item, dict):
            raise DataError(f"{place} is no shape: mend or take it out")
        kind = str(item.get("shape_type") or "polygon")
        points = _points(item.get("points"), place)
        name = str(item.get("label"))
        if kind == "points":
            forms = [point_mark(x, y, shape, place) for x, y in points]
        else:
            forms = [_form(kind, points, item, shape, place)]
        marks += [Mark(name, place, form) for form in forms]
    return marks


def _points(values: Any, place: str) -> list[tuple[float, float]]:
    if not isinstance(values, list):
        raise DataError(f"{place} has no points: mend or take it out")
    points = []
    for value in values:
        pair = value if isinstance(value, list) and len(value) == 2 else [None]
        x, y = read_coordinates(pair, place, "points of x and y")
        points.append((x, y))
    return points


def _form(
    kind: str, points: list[tuple[float, float]], item: dict[str, Any], shape: Shape, place: str
) -> Any:
    needed = {"rectangle": 2, "circle": 2, "mask": 2, "point": 1}
    if kind in needed and len(points) != needed[kind]:
        raise DataError(f"{place} is a {kind} of {len(points)} points: mend or take it out")
    if kind in ("polygon", "oriented_rectangle"):
        return polygon_region([points], shape, place)
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        return Box(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
    if kind == "circle":
        radius = math.dist(*points)
        return ellipse_region(points[0], (radius, radius), shape, place)
    if kind == "point":
        return point_mark(*points[0], shape, place)
    if kind == "mask":
        left, top = (int(min(values)) for values in zip(*points, strict=True))
        return mask_region(_decode_mask(item.get("mask"), shape, place), left, top, shape, place)
    raise DataError(
        f"{place} is a {kind[:40]}, which has no area: draw a polygon, a rectangle or a point"
    )


def _decode_mask(text: Any, shape: Shape, place: str) -> BoolArray:
    try:
        data = base64.b64decode(text, validate=True)
        # Not Image.open: ultralytics replaces that by one that installs packages.
        with PngImageFile(io.BytesIO(data)) as image:
            if image.height > shape[0] or image.width > shape[1]:
                raise DataError(
                    f"{place} is a mask of {image.width} x {image.height} px, but its frame has "
                    f"{shape[1]} x {shape[0]}: use the label of this frame"
                )
            return np.asarray(np.asarray(image.convert("L")) > 0)
    except (TypeError, binascii.Error, ValueError, OSError, SyntaxError) as error:
        raise DataError(f"{place} has no mask as PNG in base64: save it again") from error


def write_labelme(
    path: Path, image_path: str, shape: Shape, targets: Iterable[tuple[Region | Box, str]]
) -> None:
    """Write the targets of a frame: pixels as ``mask`` shapes, which labelme 5.3 and later shows.

    Args:
        path: The JSON file.
        image_path: The way from its folder to the image.
        shape: (H, W) of the frame.
        targets: The pixels or the box of each target, and what is noted of it.
    """
    shapes = []
    for target, note in targets:
        shapes.append(
            {
                "label": CLASS,
                "group_id": None,
                "description": note,
                "flags": {},
                **(_describe_box(target) if isinstance(target, Box) else _describe(target)),
            }
        )
    content: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": shape[0],
        "imageWidth": shape[1],
    }
    write_whole(path, f"{json.dumps(content, ensure_ascii=False, indent=1)}\n".encode())


def _describe_box(box: Box) -> dict[str, Any]:
    corners = [box.left, box.top], [box.left + box.width, box.top + box.height]
    return {"shape_type": "rectangle", "points": list(corners), "mask": None}


def _describe(region: Region) -> dict[str, Any]:
    height, width = region.pixels.shape
    picture = io.BytesIO()
    Image.fromarray(region.pixels.astype(np.uint8) * 255).convert("1").save(picture, "PNG")
    corners = [region.left, region.top], [region.left + width - 1, region.top + height - 1]
    return {
        "shape_type": "mask",
        "points": [list(map(float, corner)) for corner in corners],
        "mask": base64.b64encode(picture.getvalue()).decode(),
    }
