"""Outlines and run-length codes against independent rasterizers, and what a wrong one says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures import full_mask
from pinglow.errors import DataError
from pinglow.io.labels.marks import Region, ellipse_region, polygon_region
from pinglow.io.labels.rle import decode_rle
from pinglow.structures import BoolArray

SHAPE = (20, 26)
Ring = list[tuple[float, float]]


def whole(region: Region) -> BoolArray:
    return full_mask(SHAPE, region.left, region.top, region.pixels)


# Corners off the grid of pixel centers, so that no center lies on an edge.
corners = st.tuples(
    st.integers(0, 25).map(lambda x: x + 0.137), st.integers(0, 19).map(lambda y: y + 0.293)
)


@given(ring=st.lists(corners, min_size=3, max_size=7, unique=True))
@settings(max_examples=100, deadline=None)
def test_a_polygon_holds_the_pixels_whose_centers_are_inside(ring: Ring) -> None:
    measure = pytest.importorskip("skimage.measure", reason="needs scikit-image, independent")
    centers = [(x + 0.5, y + 0.5) for y in range(SHAPE[0]) for x in range(SHAPE[1])]
    expected = measure.points_in_poly(centers, ring).reshape(SHAPE)
    found = whole(polygon_region([ring], SHAPE, "it"))
    if expected.any():
        assert (found == expected).all()
    else:
        assert found.sum() == 1  # a target is never lost


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_polygons_that_share_an_edge_share_no_pixel(shift: float) -> None:
    left = [(2 + shift, 3 + shift), (6 + shift, 3 + shift), (6 + shift, 9 + shift)]
    right = [(2 + shift, 3 + shift), (6 + shift, 9 + shift), (2 + shift, 9 + shift)]
    square = [left[0], left[1], left[2], right[2]]
    one, other, both = (
        whole(polygon_region([ring], SHAPE, "it")) for ring in (left, right, square)
    )
    assert not (one & other).any()
    assert ((one | other) == both).all()
    assert both.sum() == 24


@given(mask=st.lists(st.booleans(), min_size=12, max_size=12))
@settings(max_examples=60, deadline=None)
def test_pixels_outlined_along_their_edges_come_back(mask: list[bool]) -> None:
    pixels = np.array(mask).reshape(3, 4)
    rings = [
        [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for y, x in np.argwhere(pixels).tolist()
    ]
    if rings:
        assert (whole(polygon_region(rings, SHAPE, "it"))[:3, :4] == pixels).all()


def test_a_speck_is_the_pixel_that_its_middle_is_in_and_the_frame_cuts() -> None:
    speck = polygon_region([[(3.6, 4.6), (3.9, 4.6), (3.7, 4.9)]], SHAPE, "it")
    assert (speck.left, speck.top, speck.pixels.tolist()) == (3, 4, [[True]])
    large = whole(polygon_region([[(-3, -3), (29, -3), (29, 22), (-3, 22)]], SHAPE, "it"))
    assert large.all()


@pytest.mark.parametrize(
    ("ring", "message"),
    [
        ([(1, 1), (2, 2)], "polygon of 2 points: it needs three"),
        ([(1, 1), (2, 2), (float("nan"), 3)], "NaN"),
        ([(100, 1), (120, 1), (120, 9)], "outside its frame of 26 x 20"),
        ([(-100, 1), (5, 1), (5, 9)], "outside its frame of 26 x 20"),
    ],
)
def test_a_polygon_that_cannot_be_is_named(ring: Ring, message: str) -> None:
    with pytest.raises(DataError, match=f"it .*{message}"):
        polygon_region([ring], SHAPE, "it")


def test_an_ellipse_holds_the_centers_inside_and_turns_clockwise() -> None:
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    expected = ((xs - 12.2) / 5) ** 2 + ((ys - 9.4) / 2) ** 2 <= 1
    assert (whole(ellipse_region((12.2, 9.4), (5, 2), SHAPE, "it")) == expected).all()
    turned = whole(ellipse_region((12.2, 9.4), (5, 2), SHAPE, "it", 45))
    assert turned[12, 15]  # down and to the right
    assert not turned[6, 15]
    assert whole(ellipse_region((3.2, 3.2), (0.1, 0.1), SHAPE, "it")).sum() == 1
    with pytest.raises(DataError, match="without a size"):
        ellipse_region((3, 3), (0, 1), SHAPE, "it")


@given(share=st.floats(0, 1), seed=st.integers(0, 99), shape=st.tuples(*[st.integers(1, 40)] * 2))
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_codes_of_pycocotools_are_read(share: float, seed: int, shape: tuple[int, int]) -> None:
    tools = pytest.importorskip("pycocotools.mask", reason="needs pycocotools, independent")
    mask = np.random.default_rng(seed).random(shape) < share
    code = tools.encode(np.asfortranarray(mask, dtype=np.uint8))
    code["counts"] = code["counts"].decode()
    assert (decode_rle(code, shape, "it") == mask).all()


def test_a_code_that_does_not_fit_is_named() -> None:
    mask = np.zeros((4, 5), dtype=np.bool_)
    mask[1, 2] = True
    assert (decode_rle({"size": [4, 5], "counts": [9, 1, 10]}, (4, 5), "it") == mask).all()
    for code, message in (
        ({"size": [5, 4], "counts": [9, 1, 10]}, r"size \[5, 4\], but the frame has \[4, 5\]"),
        ({"counts": "x"}, r"size None"),
        ({"size": [4, 5], "counts": [9, 1, 9]}, "of 19 pixels, but its mask has 20"),
        ({"size": [4, 5], "counts": [30, -10]}, "of 20 pixels"),
        ({"size": [4, 5], "counts": "o"}, "cut short"),
        ({"size": [4, 5], "counts": "é"}, "no compressed"),
        ({"size": [4, 5], "counts": None}, "without counts"),
    ):
        with pytest.raises(DataError, match=message):
            decode_rle(code, (4, 5), "it")
