"""COCO: one JSON file for all frames."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.io.frames import strip_suffix
from pinglow.io.labels.boxes import CLASS, BoxArray, Shape, fit_box, shorten, stack_boxes
from pinglow.io.labels.text import read_text

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


@dataclass
class CocoImage:
    """What a COCO file says of an image.

    Attributes:
        shape: (H, W) in pixels, or None where the file does not say.
        rows: Place in the file, and left, top, width and height of each box.
        fault: Why its boxes cannot be used.
    """

    shape: Shape | None
    rows: list[tuple[str, tuple[float, float, float, float]]] = field(default_factory=list)
    fault: str | None = None

    def boxes(self, shape: Shape) -> BoxArray:
        """(n, 4) boxes in a frame of (H, W) pixels.

        Raises:
            DataError: A box is wrong.
        """
        if self.fault is not None:
            raise DataError(self.fault)
        if _are_shares(self.rows):
            raise DataError(f"{self.rows[0][0]} {_SHARES}")
        return stack_boxes(fit_box(box, shape, place) for place, box in self.rows)


_SHARES: Final = "has a box in its frame's first pixel, as a share of the frame: COCO's are pixels"


def read_coco(path: Path) -> dict[str, CocoImage]:
    """What a COCO JSON file says of each image, by file name without suffix.

    Annotations with iscrowd 1 are taken as any other, because tools set it wherever a mask is kept
    as RLE; that is said. What is wrong with one image is said when its boxes are asked for.

    Raises:
        DataError: The file is missing or no COCO JSON, none of its annotations is of one of its
            images, or all of its boxes are shares of the frame.
    """
    coco = _parse(path)
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
    return images


def _index_images(
    path: Path, rows: list[_ImageRow]
) -> tuple[dict[str, CocoImage], dict[str, CocoImage]]:
    """The images of a file by name and by id; a wrong one keeps its fault."""
    images: dict[str, CocoImage] = {}
    by_id: dict[str, CocoImage] = {}
    for number, row in enumerate(rows):
        try:
            name, entry = _Named.model_validate(vars(row)).file_name, CocoImage(None)
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
        key = strip_suffix(name.replace("\\", "/"))
        if key in images:
            entry.fault = f"{path} has two images with the file_name {name!r}: take one out"
        images[key] = entry
    return images, by_id


def _parse(path: Path) -> _Coco:
    try:
        return _Coco.model_validate_json(read_text(path, largest=_LARGEST))
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
                    "bbox": [shorten(value) for value in box],
                    "area": shorten(box[2] * box[3]),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": CLASS}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    write_whole(path, f"{json.dumps(coco, ensure_ascii=False, indent=1)}\n".encode())
