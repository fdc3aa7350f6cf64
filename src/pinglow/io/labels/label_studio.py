"""Label Studio: one JSON export ("JSON", not "JSON-MIN") for all tasks.

Coordinates are hundredths of the frame's sides. A brush is the packed alpha of a picture in its
colors (thi.ng's rle-pack): 32 bits of how many values follow, the bits of a value, four lengths of
counts, then runs and stretches of values, all bit by bit.
"""

from __future__ import annotations

import functools
import math
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from pinglow.errors import DataError
from pinglow.io.frames import strip_suffix
from pinglow.io.labels.boxes import Shape, check_shape
from pinglow.io.labels.marks import (
    Box,
    LabeledFrame,
    Mark,
    ellipse_region,
    point_mark,
    polygon_region,
    read_coordinates,
    trim_region,
)
from pinglow.io.labels.text import read_json
from pinglow.structures import BoolArray

_KINDS: Final = ("rectangle", "polygon", "brush", "keypoint", "ellipse")
_MOST_VALUES: Final = 2**28
_UPLOADED: Final = re.compile(r"[0-9a-f]{8}-")
_SIDES: Final = {"x": 1, "width": 1, "radiusX": 1, "y": 0, "height": 0, "radiusY": 0}


def read_label_studio(path: Path) -> Iterator[LabeledFrame]:
    """The frames of an export; of several annotations of one task the ground truth or the first.

    Raises:
        DataError: The file is missing, or no such export.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list):
        raise DataError(f"{path} is no list of tasks: export from Label Studio as JSON")
    for number, task in enumerate(tasks):
        place = f"{path}, task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise DataError(f"{place} has no data: export as JSON, not as JSON-MIN")
        name = _image_name(task["data"], place)
        result = _choose_result(task)
        marks = None if result is None else functools.partial(_marks, place, result)
        yield LabeledFrame(name, path, marks)


def _image_name(data: dict[str, Any], place: str) -> str:
    """The image's file: the first text of the task's data that is called as frames are."""
    for text in data.values():
        if not isinstance(text, str):
            continue
        address = urllib.parse.urlsplit(text)
        local = urllib.parse.parse_qs(address.query).get("d", [""])[0]  # ?d= of local files
        name = local or urllib.parse.unquote(address.path)
        if strip_suffix(name) != name:
            return name.replace("\\", "/").lstrip("/")
    raise DataError(f"{place} names no image in its data: export the project again")


def uploaded_name(name: str) -> str:
    """The name that an image had before Label Studio put eight digits in front of it."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{_UPLOADED.sub('', file, count=1)}" if folder else _UPLOADED.sub("", file)


def _choose_result(task: dict[str, Any]) -> list[Any] | None:
    listed = task.get("annotations")
    found = [
        each
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
        and not each.get("was_cancelled")
        and isinstance(each.get("result"), list)
    ]
    found.sort(key=lambda each: not each.get("ground_truth"))
    return found[0]["result"] if found else None


def _marks(where: str, result: list[Any], shape: Shape) -> list[Mark]:
    marks = []
    names = {
        item["id"]: _names(item) for item in result if isinstance(item, dict) and _names(item)
        and isinstance(item.get("id"), str)
    }  # fmt: skip  # a region and its name may be two results
    seen: set[str] = set()
    for number, item in enumerate(result):
        place = f"{where}, result {number}"
        value = item.get("value") if isinstance(item, dict) else None
        if not isinstance(value, dict):
            continue  # a relation of two regions
        kind = str(item.get("type", "")).removesuffix("labels")
        if kind in ("choices", "rating", "textarea", "taxonomy", "number", "") or (
            item.get("id") in seen
        ):
            continue
        if kind not in _KINDS:
            raise DataError(
                f"{place} is of the type {kind[:40]}, which marks no target: use rectangles, "
                "polygons, brushes or key points"
            )
        stated = item.get("original_height"), item.get("original_width")
        if isinstance(stated[0], int) and isinstance(stated[1], int) and all(stated):
            check_shape(place, (stated[0], stated[1]), shape)
        if isinstance(item.get("id"), str):
            seen.add(item["id"])
        label = _names(item) or names.get(str(item.get("id"))) or [""]
        marks.append(Mark(label[0], place, _form(kind, value, shape, place)))
    return marks


def _names(item: dict[str, Any]) -> list[str]:
    value = item.get("value")
    kind = str(item.get("type", ""))
    listed = value.get(kind) if isinstance(value, dict) and kind.endswith("labels") else None
    return [str(name) for name in listed] if isinstance(listed, list) else []


def _form(kind: str, value: dict[str, Any], shape: Shape, place: str) -> Any:
    if kind == "brush":
        return _brush(value, shape, place)
    if kind == "polygon":
        pairs = value.get("points")
        if not isinstance(pairs, list):
            raise DataError(f"{place} has no points: mend or take it out")
        ring = []
        for pair in pairs:
            x, y = _percent(pair if isinstance(pair, list) else [None], place)
            ring.append((x * shape[1] / 100, y * shape[0] / 100))
        return polygon_region([ring], shape, place)
    if kind == "keypoint":
        x, y = _sides(value, ("x", "y"), shape, place)
        return point_mark(x, y, shape, place)
    turn = read_coordinates([value.get("rotation", 0)], place, "rotation")[0]
    if kind == "ellipse":
        x, y, a, b = _sides(value, ("x", "y", "radiusX", "radiusY"), shape, place)
        return ellipse_region((x, y), (a, b), shape, place, turn)
    left, top, width, height = _sides(value, ("x", "y", "width", "height"), shape, place)
    if turn % 360 == 0:
        return Box(left, top, width, height)
    # It is turned about its upper left corner: the upright box around that.
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    xs = 0, width * cosine, -height * sine, width * cosine - height * sine
    ys = 0, width * sine, height * cosine, width * sine + height * cosine
    return Box(left + min(xs), top + min(ys), max(xs) - min(xs), max(ys) - min(ys))


def _percent(values: list[Any], place: str) -> list[float]:
    found = read_coordinates(values, place, "x and y")
    if len(found) < 2 or any(not -50 <= value <= 150 for value in found):
        shown = ", ".join(f"{value:g}" for value in found[:4])
        raise DataError(
            f"{place} has the coordinates {shown}: Label Studio's are percent of the frame's "
            "sides, from 0 to 100; export it again"
        )
    return found


def _sides(value: dict[str, Any], keys: tuple[str, ...], shape: Shape, place: str) -> list[float]:
    percent = _percent([value.get(key) for key in keys], place)
    return [number * shape[_SIDES[key]] / 100 for key, number in zip(keys, percent, strict=True)]


def _brush(value: dict[str, Any], shape: Shape, place: str) -> Any:
    code = value.get("rle")
    if (
        value.get("format") != "rle"
        or not isinstance(code, list)
        or not all(type(byte) is int and 0 <= byte < 256 for byte in code)
    ):
        raise DataError(f"{place} is a brush without an rle of bytes: export it again")
    values = unpack_rle(bytes(code), place)
    if len(values) != 4 * shape[0] * shape[1]:
        raise DataError(
            f"{place} is a brush of {len(values) // 4} pixels, but its frame has "
            f"{shape[0] * shape[1]}: use the label of this frame"
        )
    drawn: BoolArray = values.reshape(shape[0], shape[1], 4)[..., 3] > 0
    return trim_region(drawn, place)


def unpack_rle(code: bytes, place: str) -> Any:
    """(n,) uint8 values of a packed brush.

    Raises:
        DataError: It was cut short, or claims more values than a frame has.
    """
    bits = int.from_bytes(code, "big")
    left = len(code) * 8

    def read(count: int) -> int:
        nonlocal left
        left -= count
        if left < 0:
            raise DataError(f"{place} is a brush that was cut short: export it again")
        return (bits >> left) & ((1 << count) - 1)

    total = read(32)
    if total > _MOST_VALUES:
        raise DataError(f"{place} is a brush of {total} values, more than any frame has")
    width = read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values = np.zeros(total, dtype=np.uint8)
    done = 0
    while done < total:
        is_run = read(1)
        end = min(done + 1 + read(lengths[read(2)]), total)
        if is_run:
            values[done:end] = read(width) & 255
        else:
            values[done:end] = [read(width) & 255 for _ in range(done, end)]
        done = end
    return values
