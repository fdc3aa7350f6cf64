"""CVAT for images 1.1: one XML file for all frames.

A ``mask`` is exact: the runs of its pixels in a box, row by row, off first. A ``points`` element
has a target at each point. Its ``track`` elements, of videos, name no image and are refused.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.io.labels.boxes import CLASS, Shape, check_shape, shorten
from pinglow.io.labels.marks import (
    Box,
    LabeledFrame,
    Mark,
    Point,
    Region,
    ellipse_region,
    expand_runs,
    mask_region,
    point_mark,
    polygon_region,
    read_coordinates,
    run_lengths,
)
from pinglow.io.labels.text import read_xml

_LARGEST: Final = 2**28  # bytes
_NUMBERS: Final = re.compile(r"[0-9]{1,10}(?:[.]0*)?")


def read_cvat(path: Path) -> Iterator[LabeledFrame]:
    """The frames of an XML file that CVAT has exported as "CVAT for images".

    Raises:
        DataError: The file is missing, or no such XML.
    """
    root = read_xml(path, largest=_LARGEST, root="annotations")
    images = root.findall("image")
    if not images and root.find("track") is not None:
        raise DataError(
            f"{path} is CVAT's XML for video, which names no images: export the task as "
            "'CVAT for images 1.1'"
        )
    for image in images:
        name = image.get("name", "").replace("\\", "/")
        yield LabeledFrame(name, path, functools.partial(_marks, path, image))


def _marks(path: Path, image: ElementTree.Element, shape: Shape) -> list[Mark]:
    where = f"{path}, image {image.get('name')}"
    width, height = image.get("width", ""), image.get("height", "")
    if _NUMBERS.fullmatch(width) and _NUMBERS.fullmatch(height):
        check_shape(where, (int(float(height)), int(float(width))), shape)
    marks = []
    counts: dict[str, int] = {}
    for item in image:
        if item.tag == "tag":  # of the whole frame
            continue
        counts[item.tag] = counts.get(item.tag, 0) + 1
        place = f"{where}, {item.tag} {counts[item.tag]}"
        name = item.get("label", "")
        marks += [Mark(name, place, form) for form in _forms(item, shape, place)]
    return marks


def _forms(
    item: ElementTree.Element, shape: Shape, place: str
) -> list[Region] | list[Point] | list[Box]:
    if item.tag == "box":
        x0, y0, x1, y1 = _attributes(item, ("xtl", "ytl", "xbr", "ybr"), place)
        return [_turn(x0, y0, x1, y1, *_attributes(item, ("rotation",), place, "0"))]
    if item.tag == "ellipse":
        x, y, a, b, turn = (
            *_attributes(item, ("cx", "cy", "rx", "ry"), place),
            *_attributes(item, ("rotation",), place, "0"),
        )
        return [ellipse_region((x, y), (a, b), shape, place, turn)]
    if item.tag == "mask":
        return [_mask(item, shape, place)]
    if item.tag == "polygon":
        return [polygon_region([_points(item, place)], shape, place)]
    if item.tag == "points":
        return [point_mark(x, y, shape, place) for x, y in _points(item, place)]
    raise DataError(f"{place} has no area: mark targets as polygon, mask, box or points")


def _attributes(
    item: ElementTree.Element, names: tuple[str, ...], place: str, absent: str | None = None
) -> list[float]:
    texts = (item.get(name, absent) for name in names)
    return read_coordinates(texts, place, ", ".join(names))


def _points(item: ElementTree.Element, place: str) -> list[tuple[float, float]]:
    points = []
    for text in item.get("points", "").split(";"):
        pair = read_coordinates(text.split(","), place, "points as x,y;x,y")
        if len(pair) != 2:
            raise DataError(f"{place} has no points as x,y;x,y in numbers: mend or take it out")
        points.append((pair[0], pair[1]))
    return points


def _turn(x0: float, y0: float, x1: float, y1: float, degrees: float) -> Box:
    """The upright box around a box that is turned about its middle."""
    width, height = abs(x1 - x0), abs(y1 - y0)
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    if degrees == 0:
        cosine, sine = 1.0, 0.0
    across, down = width * cosine + height * sine, width * sine + height * cosine
    return Box((x0 + x1 - across) / 2, (y0 + y1 - down) / 2, across, down)


def _mask(item: ElementTree.Element, shape: Shape, place: str) -> Region:
    left, top, width, height = map(
        int, _attributes(item, ("left", "top", "width", "height"), place)
    )
    runs = read_coordinates(item.get("rle", "").split(","), place, "rle of counts")
    if not 0 < width <= shape[1] or not 0 < height <= shape[0]:
        raise DataError(
            f"{place} has a mask of {width} x {height} px, but its frame has "
            f"{shape[1]} x {shape[0]}: use the label of this frame"
        )
    pixels = expand_runs([int(run) for run in runs], width * height, place)
    return mask_region(pixels.reshape(height, width), left, top, shape, place)


def write_cvat(path: Path, frames: Iterable[tuple[str, Shape, list[Region | Box]]]) -> None:
    """Write frames' targets as masks and boxes of an XML file that CVAT imports as "CVAT 1.1".

    Args:
        path: The XML file.
        frames: The image's name in the task, (H, W), and the pixels or the box of each target.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for number, (name, (height, width), targets) in enumerate(frames):
        size = {"width": str(width), "height": str(height)}
        image = ElementTree.SubElement(root, "image", {"id": str(number), "name": name, **size})
        for target in targets:
            common = {"label": CLASS, "source": "auto", "occluded": "0", "z_order": "0"}
            tag, own = _describe(target)
            ElementTree.SubElement(image, tag, {**common, **own})
    ElementTree.indent(root)
    write_whole(path, ElementTree.tostring(root, encoding="utf-8") + b"\n")


def _describe(target: Region | Box) -> tuple[str, dict[str, str]]:
    if isinstance(target, Box):
        right, bottom = target.left + target.width, target.top + target.height
        edges = {"xtl": target.left, "ytl": target.top, "xbr": right, "ybr": bottom}
        return "box", {edge: str(shorten(value)) for edge, value in edges.items()}
    height, width = target.pixels.shape
    size = {"left": target.left, "top": target.top, "width": width, "height": height}
    runs = ", ".join(map(str, run_lengths(target.pixels.ravel())))
    return "mask", {"rle": runs, **{side: str(value) for side, value in size.items()}}
