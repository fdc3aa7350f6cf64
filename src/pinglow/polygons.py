"""Polygons in pixels of a frame: read from a file, and filled.

Coordinates are those of edges, as annotation tools have them: pixel i covers [i, i + 1), so that
(0, 0), (4, 0), (4, 3), (0, 3) are the rectangle of the first 4 x 3 pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError
from pinglow.files import read_whole
from pinglow.structures import BoolArray

Ring = NDArray[np.float64]
"""(n, 2) x, y of the corners of a closed line."""

_LABELME: Final = {"polygon": 3, "rectangle": 2}  # the fewest points of its shapes that are areas


def fill_rings(rings: Sequence[Ring], shape: tuple[int, int]) -> BoolArray:
    """(H, W) bool: the pixels whose centers lie in an odd number of closed lines.

    So a ring in a ring is a hole. Of centers on an edge, those to the left of or below the area are
    in it, so that neighbors share no pixel.

    Args:
        rings: The lines; what leaves the frame is cut off.
        shape: Height and width of the frame.
    """
    height, width = shape
    crossings = np.zeros((height, width + 1), dtype=np.int32)
    for ring in rings:
        ends = np.roll(ring, -1, axis=0)
        for (x, y), (next_x, next_y) in zip(ring.tolist(), ends.tolist(), strict=True):
            if y == next_y:
                continue
            low, high = sorted((y, next_y))
            # Rows whose centers, at i + 0.5, lie in [low, high).
            first, last = (int(np.clip(np.ceil(at - 0.5), 0, height)) for at in (low, high))
            rows = np.arange(first, last)
            at = x + (rows + 0.5 - y) * ((next_x - x) / (next_y - y))
            columns = np.clip(np.ceil(at - 0.5), 0, width).astype(int)
            np.add.at(crossings, (rows, columns), 1)
    return np.asarray(np.cumsum(crossings[:, :width], axis=1) % 2 == 1, dtype=np.bool_)


def check_ring(points: Any, where: str) -> Ring:
    """Points as a ring.

    Raises:
        DataError: They are no pairs of numbers, or less than three different ones.
    """
    try:
        ring = np.array(points, dtype=np.float64)
    except (TypeError, ValueError):
        ring = np.empty(0)
    if ring.ndim != 2 or ring.shape[1] < 2 or not np.isfinite(ring).all():
        raise DataError(f"{where} is no polygon: give its corners as pairs x, y of numbers")
    corners = len(np.unique(ring[:, :2], axis=0))
    if corners < 3:
        raise DataError(f"{where} has {corners} different points: a polygon has 3 or more")
    return ring[:, :2]


def read_polygons(path: Path) -> list[list[Ring]]:
    """The areas in a file of labelme or GeoJSON, each an outline and its holes.

    Args:
        path: The file. Of labelme polygons and rectangles are taken; of GeoJSON, whose coordinates
            are pixels, Polygon and MultiPolygon.

    Raises:
        DataError: It cannot be read, is neither, or an area has less than three points.
    """
    try:
        content = json.loads(read_whole(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: save polygons as labelme or GeoJSON") from error
    try:
        found = _of_labelme(path, content) if "shapes" in content else _of_geojson(path, content)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is neither labelme's JSON nor GeoJSON: save it as one") from error
    if not found:
        raise DataError(f"{path} has no polygon: draw one, or a rectangle in labelme")
    return found


def _of_labelme(path: Path, content: dict[str, Any]) -> list[list[Ring]]:
    found = []
    for number, shape in enumerate(content["shapes"], start=1):
        kind = shape.get("shape_type") or "polygon"
        if kind not in _LABELME:
            continue
        points = shape["points"]
        if kind == "rectangle" and len(points) == 2:
            (x, y), (right, bottom) = points
            points = [(x, y), (right, y), (right, bottom), (x, bottom)]
        found.append([check_ring(points, f"{path}: shape {number}")])
    return found


def _of_geojson(path: Path, content: dict[str, Any]) -> list[list[Ring]]:
    kind = content["type"]
    if kind == "FeatureCollection":
        return [area for each in content["features"] for area in _of_geojson(path, each)]
    if kind == "GeometryCollection":
        return [area for each in content["geometries"] for area in _of_geojson(path, each)]
    if kind == "Feature":
        return _of_geojson(path, content["geometry"] or {"type": "none"})
    areas = {"Polygon": [content.get("coordinates")], "MultiPolygon": content.get("coordinates")}
    return [
        [check_ring(ring, f"{path}: polygon {number}") for ring in area]
        for number, area in enumerate(areas.get(kind) or [], start=1)
    ]
