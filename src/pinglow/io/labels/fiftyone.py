"""FiftyOne's own export (FiftyOneDataset): samples.json beside data/.

Coordinates are shares of the frame's sides. A detection's mask is a NumPy array, compressed by
zlib, in base64, which lies over its box; it is never unpickled.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError
from pinglow.io.labels.boxes import Shape, check_shape
from pinglow.io.labels.marks import (
    Box,
    LabeledFrame,
    Mark,
    Region,
    mask_region,
    point_mark,
    polygon_region,
    read_coordinates,
)
from pinglow.io.labels.text import read_json
from pinglow.structures import whole_pixels

_LISTS: Final = {"Detections": "detections", "Polylines": "polylines", "Keypoints": "keypoints"}
_TRUTH: Final = "ground_truth"
_HEADER: Final = 2**12  # bytes of an array's file beside its values
_WIDEST: Final = 8  # bytes a value
_MOST_OUT: Final = 2  # frames that a share may lie away from its own


def read_fiftyone(path: Path) -> Iterator[LabeledFrame]:
    """The frames of a samples.json.

    Raises:
        DataError: The file is missing or no such export, or it has several fields of labels and
            none of them is called ground_truth.
    """
    content = read_json(path)
    samples = content.get("samples") if isinstance(content, dict) else None
    if not isinstance(samples, list):
        raise DataError(f"{path} has no samples: export as fo.types.FiftyOneDataset")
    field = _choose_field(path, samples)
    for number, sample in enumerate(samples):
        place = f"{path}, sample {number}"
        name = sample.get("filepath") if isinstance(sample, dict) else None
        if not isinstance(name, str) or not name:
            raise DataError(f"{place} has no filepath: export it again")
        labels = sample.get(field) if field else None
        marks = functools.partial(_marks, place, sample, labels) if labels is not None else None
        yield LabeledFrame(name.replace("\\", "/"), path, marks)


def _choose_field(path: Path, samples: list[Any]) -> str | None:
    """The field with the labels: ground_truth, or the only one that there is."""
    fields = {
        key: value["_cls"]
        for sample in samples
        if isinstance(sample, dict)
        for key, value in sample.items()
        if isinstance(value, dict) and value.get("_cls") in (*_LISTS, "Segmentation")
    }
    if len(fields) > 1 and _TRUTH not in fields:
        raise DataError(
            f"{path} has the label fields {', '.join(fields)}: export one of them "
            "(label_field=...), or call it ground_truth"
        )
    field = _TRUTH if _TRUTH in fields else next(iter(fields), None)
    if field is not None and fields[field] == "Segmentation":
        raise DataError(
            f"{path} has masks of whole frames in the field {field}: export them as "
            "fo.types.ImageSegmentationDirectory and put them into masks/"
        )
    return field


def _marks(where: str, sample: dict[str, Any], labels: Any, shape: Shape) -> list[Mark]:
    stated = sample.get("metadata")
    if isinstance(stated, dict):
        height, width = stated.get("height"), stated.get("width")
        if isinstance(height, int) and isinstance(width, int):
            check_shape(where, (height, width), shape)
    kind = str(labels.get("_cls")) if isinstance(labels, dict) else ""
    rows = labels.get(_LISTS[kind]) if kind in _LISTS else None
    if not isinstance(rows, list):
        raise DataError(f"{where} has no list of labels: export it again")
    marks = []
    for number, row in enumerate(rows):
        place = f"{where}, {_LISTS[kind]} {number}"
        if not isinstance(row, dict):
            raise DataError(f"{place} is no label: export it again")
        name = str(row.get("label") or "")
        marks += [Mark(name, place, form) for form in _forms(kind, row, shape, place)]
    return marks


def _forms(kind: str, row: dict[str, Any], shape: Shape, place: str) -> list[Any]:
    if kind == "Keypoints":
        points = _pairs(row.get("points"), shape, place)
        return [point_mark(x, y, shape, place) for x, y in points]
    if kind == "Polylines":
        rings = row.get("points")
        if not isinstance(rings, list) or not rings:
            raise DataError(f"{place} has no points: mend or take it out")
        if not (row.get("filled") or row.get("closed")):
            raise DataError(f"{place} is an open line, which has no area: close it")
        return [polygon_region([_pairs(ring, shape, place) for ring in rings], shape, place)]
    values = row.get("bounding_box")
    x, y, w, h = _shares(values if isinstance(values, list) else [], 4, place)
    box = Box(x * shape[1], y * shape[0], w * shape[1], h * shape[0])
    if row.get("mask_path"):
        raise DataError(
            f"{place} keeps its mask in a file (mask_path): put it into the label "
            "(export with use_dirs=False) and export it again"
        )
    mask = row.get("mask")
    return (
        [box] if mask is None else [_over_box(_decode_array(mask, shape, place), box, shape, place)]
    )


def _pairs(values: Any, shape: Shape, place: str) -> list[tuple[float, float]]:
    points = []
    for pair in values if isinstance(values, list) else []:
        x, y = _shares(pair if isinstance(pair, list) else [], 2, place)
        points.append((x * shape[1], y * shape[0]))
    return points


def _shares(values: list[Any], count: int, place: str) -> list[float]:
    found = read_coordinates(values, place, "coordinates")
    if len(found) != count or any(abs(value) > _MOST_OUT for value in found):
        shown = ", ".join(f"{value:g}" for value in found[:4]) or "none"
        raise DataError(
            f"{place} has the coordinates {shown}: FiftyOne's are {count} shares of the frame's "
            "sides, from 0 to 1; export it again"
        )
    return found


def _over_box(mask: NDArray[np.bool_], box: Box, shape: Shape, place: str) -> Region:
    """A mask laid over the whole pixels of its box, by the nearest where the sizes differ."""
    (left, right), (top, bottom) = (
        whole_pixels(round(start, 6), round(length, 6))
        for start, length in ((box.left, box.width), (box.top, box.height))
    )
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in ((bottom - top, mask.shape[0]), (right - left, mask.shape[1]))
    )
    return mask_region(mask[rows][:, columns], left, top, shape, place)


def _decode_array(value: Any, shape: Shape, place: str) -> NDArray[np.bool_]:
    """(h, w) bool of an array in zlib and base64, as text or as MongoDB writes bytes."""
    text = value.get("$binary") if isinstance(value, dict) else value
    text = text.get("base64") if isinstance(text, dict) else text
    most = shape[0] * shape[1] * _WIDEST + _HEADER
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(str(text), validate=True), most)
        array = np.load(io.BytesIO(unpacked), allow_pickle=False)
    except (TypeError, binascii.Error, ValueError, zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{place} has no mask as a NumPy array in zlib and base64: export it again"
        ) from error
    if array.ndim != 2 or not array.size or array.dtype.kind not in "biuf":
        raise DataError(f"{place} has a mask of shape {array.shape}, not (h, w): export it again")
    return np.asarray(array > 0)
