"""COCO: one JSON file for all frames."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.io.frames import strip_suffix
from pinglow.io.labels.boxes import CLASS, BoxArray, Shape, fit_box, read_text, shorten, stack_boxes


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
        coco = _Coco.model_validate_json(read_text(path))
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
            rows[image].append(fit_box(annotation.bbox, shapes[image], place))
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
                    "bbox": [shorten(value) for value in box],
                    "area": shorten(box[2] * box[3]),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": CLASS}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    write_whole(path, f"{json.dumps(coco, ensure_ascii=False, indent=1)}\n".encode())
