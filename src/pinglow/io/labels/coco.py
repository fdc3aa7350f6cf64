"""COCO: one JSON file for all frames."""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field, ValidationError

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.io.frames import strip_suffix
from pinglow.io.labels.boxes import (
    CLASS,
    BoxArray,
    Shape,
    check_shape,
    fit_box,
    shorten,
    stack_boxes,
)
from pinglow.io.labels.marks import (
    Box,
    LabeledFrame,
    Mark,
    Point,
    Region,
    point_mark,
    polygon_region,
    read_coordinates,
    trim_region,
)
from pinglow.io.labels.rle import decode_rle
from pinglow.io.labels.text import read_text
from pinglow.rle import encode_rle

_logger = logging.getLogger("pinglow")

_LARGEST: Final = 2**29  # bytes: COCO's own training annotations have 0.45e9

_Id = int | str


class _Named(BaseModel):
    file_name: str


class _Image(BaseModel):
    id: _Id
    width: int | None = Field(default=None, ge=0, le=2**31)
    height: int | None = Field(default=None, ge=0, le=2**31)


class _Annotation(BaseModel):
    bbox: tuple[float, float, float, float]


class _Of(BaseModel):
    image_id: _Id


class _ImageRow(BaseModel):
    id: Any = None
    file_name: Any = None
    width: Any = None
    height: Any = None


class _AnnotationRow(BaseModel):
    image_id: Any = None
    bbox: Any = None
    iscrowd: Any = 0


class _Coco(BaseModel):
    """Rows of a file, looked at one by one, without what takes the room: outlines and masks."""

    images: list[_ImageRow]
    annotations: list[_AnnotationRow]


class _OutlinedRow(_AnnotationRow):
    category_id: Any = None
    segmentation: Any = None
    keypoints: Any = None
    segments_info: Any = None  # of the panoptic kind


class _OutlinedCoco(BaseModel):
    images: list[_ImageRow]
    annotations: list[_OutlinedRow]
    categories: list[Any] = []


_File = TypeVar("_File", _Coco, _OutlinedCoco)


@dataclass
class CocoImage:
    """What a COCO file says of an image.

    Attributes:
        file_name: As the file has it, with slashes.
        shape: (H, W) in pixels, or None where the file does not say.
        rows: Place in the file, and left, top, width and height of each box.
        fault: Why its boxes cannot be used.
    """

    file_name: str
    shape: Shape | None = None
    rows: list[tuple[str, tuple[float, float, float, float]]] = field(default_factory=list)
    fault: str | None = None

    def boxes(self, shape: Shape) -> BoxArray:
        """(n, 4) boxes in a frame of (H, W) pixels.

        Raises:
            DataError: A box is wrong.
        """
        if self.fault is not None:
            raise DataError(self.fault)
        for row in self.rows:
            if _are_shares([row]):
                raise DataError(f"{row[0]} {_SHARES}")
        if _are_corners((box, shape) for _, box in self.rows):
            raise DataError(f"{self.rows[0][0]} {_CORNERS}")
        return stack_boxes(fit_box(box, shape, place) for place, box in self.rows)


_CORNERS: Final = (
    "has boxes that reach out of their frames as x, y, width, height but fit as x0, y0, x1, y1: "
    "COCO's are the first; write x1 - x0 and y1 - y0 in place of the last two"
)
_SHARES: Final = "has a box in its frame's first pixel, as a share of the frame: COCO's are pixels"


def read_coco(path: Path) -> dict[str, CocoImage]:
    """What a COCO JSON file says of each image, by file name without suffix.

    Annotations with iscrowd 1 are taken as any other, because tools set it wherever a mask is kept
    as RLE; that is said. What is wrong with one image is said when its boxes are asked for.

    Raises:
        DataError: The file is missing or no COCO JSON, none of its annotations is of one of its
            images, or all of its boxes are shares of the frame.
    """
    coco = _parse(path, _Coco)
    images, by_id = _index_images(path, coco.images)
    crowds = strays = 0
    for number, row in enumerate(coco.annotations):
        place = f"{path}, annotations.{number}"
        try:
            of = by_id.get(str(_Of.model_validate(vars(row)).image_id))
        except ValidationError:
            of = None
        if of is None:
            strays += 1
            continue
        try:
            annotation = _Annotation.model_validate(vars(row))
        except ValidationError as error:
            of.fault = of.fault or f"{place}.{_explain(error)}; mend or take out that box"
        else:
            crowds += row.iscrowd in (1, "1")
            of.rows.append((place, annotation.bbox))
    _tell(path, len(coco.annotations), crowds, strays)
    with_boxes = [image for image in images.values() if image.rows]
    if with_boxes and all(_are_shares(image.rows) for image in with_boxes):
        raise DataError(f"{with_boxes[0].rows[0][0]} {_SHARES}")
    if _are_corners((box, each.shape) for each in with_boxes for _, box in each.rows):
        raise DataError(f"{path} {_CORNERS}")
    return images


def read_coco_marks(path: Path) -> Iterator[LabeledFrame]:
    """The frames of a COCO JSON file: of an annotation its outline, or else its box or key points.

    Raises:
        DataError: As `read_coco`.
    """
    coco = _parse(path, _OutlinedCoco)
    if any(row.segments_info is not None for row in coco.annotations):
        raise DataError(
            f"{path} is COCO's panoptic kind, whose outlines are in PNG files: export instances"
        )
    images, by_id = _index_images(path, coco.images)
    names = {
        str(each.get("id")): str(each.get("name", each.get("id")))
        for each in coco.categories
        if isinstance(each, dict)
    }
    rows: dict[int, list[tuple[str, str, _OutlinedRow]]] = defaultdict(list)
    boxes = []
    strays = 0
    for number, row in enumerate(coco.annotations):
        of = by_id.get(str(row.image_id))
        if of is None:
            strays += 1
            continue
        place = f"{path}, annotations.{number}"
        rows[id(of)].append((place, names.get(str(row.category_id), str(row.category_id)), row))
        if not row.segmentation and isinstance(row.bbox, list) and len(row.bbox) == 4:
            boxes.append((tuple(row.bbox), of.shape))
    _tell(path, len(coco.annotations), 0, strays)
    if _are_corners(boxes):
        raise DataError(f"{path} {_CORNERS}")
    for image in images.values():
        yield LabeledFrame(image.file_name, path, partial(_marks, path, image, rows[id(image)]))


def _marks(
    path: Path, image: CocoImage, rows: list[tuple[str, str, _OutlinedRow]], shape: Shape
) -> list[Mark]:
    if image.fault is not None:
        raise DataError(image.fault)
    if image.shape is not None:
        check_shape(f"{path}: {image.file_name}", image.shape, shape)
    return [
        Mark(name, place, form) for place, name, row in rows for form in _forms(row, shape, place)
    ]


def _forms(row: _OutlinedRow, shape: Shape, place: str) -> list[Region] | list[Box] | list[Point]:
    outline = row.segmentation
    if isinstance(outline, dict):
        return [trim_region(decode_rle(outline, shape, place), place)]
    if isinstance(outline, list) and outline:
        rings = []
        for ring in outline:
            numbers = read_coordinates(ring if isinstance(ring, list) else [None], place, "outline")
            if len(numbers) % 2:
                raise DataError(f"{place} has an outline with half a corner: mend or take it out")
            rings.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
        return [polygon_region(rings, shape, place)]
    if isinstance(row.bbox, list | tuple) and any(row.bbox[2:4]):
        left, top, width, height = (*read_coordinates(row.bbox, place, "bbox"), *[math.nan] * 4)[:4]
        return [Box(left, top, width, height)]
    if isinstance(row.keypoints, list) and row.keypoints:
        numbers = read_coordinates(row.keypoints, place, "keypoints")
        triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=False)
        return [point_mark(x, y, shape, place) for x, y, seen in triples if seen]
    raise DataError(f"{place} has no segmentation, bbox or keypoints: mend or take it out")


def _index_images(
    path: Path, rows: list[_ImageRow]
) -> tuple[dict[str, CocoImage], dict[str, CocoImage]]:
    """The images of a file by name and by id; a wrong one keeps its fault."""
    images: dict[str, CocoImage] = {}
    by_id: dict[str, CocoImage] = {}
    for number, row in enumerate(rows):
        try:
            name = _Named.model_validate(vars(row)).file_name.replace("\\", "/")
            entry = CocoImage(name)
        except ValidationError as error:
            raise DataError(
                f"{path} is not COCO JSON: images.{number}.{_explain(error)}"
            ) from error
        try:
            image = _Image.model_validate(vars(row))
        except ValidationError as error:
            entry.fault = f"{path}, images.{number}.{_explain(error)}; mend that image"
        else:
            if image.height and image.width:
                entry.shape = image.height, image.width
            if str(image.id) in by_id:
                entry.fault = f"{path} has two images with the id {image.id}: give each its own"
                by_id[str(image.id)].fault = entry.fault
            by_id[str(image.id)] = entry
        key = strip_suffix(name)
        if key in images:
            entry.fault = f"{path} has two images with the file_name {name!r}: take one out"
        images[key] = entry
    return images, by_id


def _parse(path: Path, kind: type[_File]) -> _File:
    try:
        return kind.model_validate_json(read_text(path, largest=_LARGEST))
    except ValidationError as error:
        raise DataError(f"{path} is not COCO JSON: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the text"
    return f"{place}: {first['msg']}"


def _tell(path: Path, total: int, crowds: int, strays: int) -> None:
    """Say what is unusual about a file's annotations."""
    if strays == total > 0:
        raise DataError(f"{path} has no image that one of its {total} annotations is of")
    if strays:
        _logger.warning(
            f"{path}: {strays} of {total} annotations are of no image in it and are left out"
        )
    if crowds:
        _logger.warning(
            f"{path}: {crowds} of {total} boxes have iscrowd 1 and are taken as any other"
        )


def _are_shares(rows: list[tuple[str, tuple[float, float, float, float]]]) -> bool:
    """Whether all boxes lie in the first pixel, and one does not fill it."""
    boxes = [box for _, box in rows]
    inside = all(
        min(left, top) >= 0 and 0 < width <= 1 and 0 < height <= 1
        and left + width <= 1 and top + height <= 1
        for left, top, width, height in boxes
    )  # fmt: skip
    return bool(boxes) and inside and any(box != (0, 0, 1, 1) for box in boxes)


def _are_corners(boxes: Iterable[tuple[tuple[Any, ...], Shape | None]]) -> bool:
    """Whether boxes are corners: a tenth of them reach far out of their frames, but none as those.

    Those of frames of unknown size do not count.
    """
    total = far = 0
    for box, shape in boxes:
        if shape is None:
            continue
        try:
            x, y, x1, y1 = map(float, box)
        except (TypeError, ValueError, OverflowError):
            return False
        if not (0 <= x < x1 <= shape[1] and 0 <= y < y1 <= shape[0]):
            return False
        total += 1
        far += x + x1 > 1.1 * shape[1] or y + y1 > 1.1 * shape[0]
    return far > 0 and far >= total / 10


def write_coco(path: Path, frames: Iterable[tuple[str, Shape, BoxArray]]) -> None:
    """Write COCO JSON from the file name, (H, W) and boxes of each frame."""
    _write(
        path,
        (
            (name, shape, [{"bbox": box, "area": box[2] * box[3]} for box in boxes.tolist()])
            for name, shape, boxes in frames
        ),
    )


def write_coco_masks(
    path: Path, frames: Iterable[tuple[str, Shape, list[tuple[Region | Box, float | None]]]]
) -> None:
    """Write COCO JSON with the pixels of targets as compressed RLE.

    Polygons would lose targets of few pixels: an outline through the middles of three has no area.

    Args:
        path: The file.
        frames: The file name, (H, W), and of each target its pixels or box and score, None where
            it is truth.
    """
    _write(
        path,
        (
            (name, shape, [_describe(target, score, shape) for target, score in targets])
            for name, shape, targets in frames
        ),
    )


def _describe(target: Region | Box, score: float | None, shape: Shape) -> dict[str, Any]:
    scored = {} if score is None else {"score": score}
    if isinstance(target, Box):
        box = [target.left, target.top, target.width, target.height]
        return {"bbox": box, "area": target.width * target.height, **scored}
    height, width = target.pixels.shape
    return {
        "bbox": [target.left, target.top, width, height],
        "area": int(target.pixels.sum()),
        "segmentation": encode_rle(target.pixels, (target.left, target.top), (shape[0], shape[1])),
        **scored,
    }


def _write(path: Path, frames: Iterable[tuple[str, Shape, list[dict[str, Any]]]]) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for file_name, (height, width), rows in frames:
        image = len(images) + 1
        images.append({"id": image, "file_name": file_name, "width": width, "height": height})
        for row in rows:
            own = {"id": len(annotations) + 1, "image_id": image, "category_id": 1}
            numbers = {"bbox": list(map(shorten, row["bbox"])), "area": shorten(row["area"])}
            annotations.append({**own, **row, **numbers, "iscrowd": 0})
    categories = [{"id": 1, "name": CLASS}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    write_whole(path, f"{json.dumps(coco, ensure_ascii=False, indent=1)}\n".encode())
