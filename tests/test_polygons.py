"""Polygons are filled as other rasterizers do, and bad ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from pinglow.errors import DataError
from pinglow.polygons import fill_rings, read_polygons


def test_pixels_are_those_whose_centers_matplotlib_finds_inside() -> None:
    random = np.random.default_rng(0)
    centers = np.stack(np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5), -1).reshape(-1, 2)
    for corners in (3, 4, 5, 9):
        # In order of the angle, so that the outline does not cross itself; some leave the frame.
        angles = np.sort(random.uniform(0, 2 * np.pi, corners))
        reach = random.uniform(5, 25, corners)
        ring = np.stack([20 + reach * np.cos(angles), 15 + reach * np.sin(angles)], 1)
        for each in (ring, ring[::-1]):
            inside = Outline(each).contains_points(centers).reshape(30, 40)
            np.testing.assert_array_equal(fill_rings([each], (30, 40)), inside)


def test_whole_pixels_neighbors_and_holes() -> None:
    square = np.array([(1, 1), (6, 1), (6, 5), (1, 5)], float)
    expected = np.zeros((6, 8), bool)
    expected[1:5, 1:6] = True
    np.testing.assert_array_equal(fill_rings([square], (6, 8)), expected)
    hole = np.array([(2, 2), (4, 2), (4, 4), (2, 4)], float)
    expected[2:4, 2:4] = False
    np.testing.assert_array_equal(fill_rings([square, hole], (6, 8)), expected)
    # Two that meet at an edge through centers: each pixel is in one of them.
    left = np.array([(0, 0), (8, 8), (0, 8)], float)
    right = np.array([(0, 0), (8, 0), (8, 8)], float)
    areas = fill_rings([left], (8, 8)).astype(int) + fill_rings([right], (8, 8))
    assert (areas == 1).all()
    assert not fill_rings([], (3, 3)).any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<xml>", "is not JSON: save polygons as labelme or GeoJSON"),
        ("[1]", "is neither labelme's JSON nor GeoJSON"),
        ('{"images": []}', "is neither labelme's JSON nor GeoJSON"),
        ('{"shapes": []}', "has no polygon"),
        ('{"shapes": [{"points": [[0, 0], [5, 5]]}]}', "shape 1 has 2 different points"),
        ('{"shapes": [{"points": [[0, 0], [5, 5], ["a"]]}]}', "shape 1 is no polygon"),
        ('{"shapes": [{"points": [[0, 0], [5, 5], [NaN, 0]]}]}', "shape 1 is no polygon"),
        ('{"type": "Point", "coordinates": [0, 0]}', "has no polygon"),
        (
            '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}',
            "polygon 1 has 2 different points",
        ),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "area.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_polygons(tmp_path / "area.json")


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_polygons(tmp_path / "gone.json")
