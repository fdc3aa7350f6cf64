"""Masks grown from boxes and points, against blobs of known height."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pictures import full_mask
from pinglow.data.boxes import mask_regions
from pinglow.data.cores import grow_core
from pinglow.data.folder import FrameFolder
from pinglow.errors import DataError, OptionError
from pinglow.io.labels.marks import Box, Point, Region
from pinglow.structures import BoolArray

SHAPE = (40, 50)
CENTER = (20, 15)  # x, y


def blob(height: float, sigma: float = 1.2) -> NDArray[np.float64]:
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    squared = (xs - CENTER[0]) ** 2 + (ys - CENTER[1]) ** 2
    noise = np.random.default_rng(0).normal(0, 0.5, SHAPE)
    return 1000 + xs + noise + height * np.exp(-squared / 2 / sigma**2)


def whole(region: Region) -> BoolArray:
    return full_mask(SHAPE, region.left, region.top, region.pixels)


FORMS = [Box(18, 13, 5, 5), Box(14, 9, 13, 13), Point(20.5, 15.5), Point(22.2, 14.1)]


@pytest.mark.parametrize("height", [300, -300])
@pytest.mark.parametrize("form", FORMS)
def test_the_core_is_what_is_above_a_share_of_the_way(form: Box | Point, height: float) -> None:
    core = whole(grow_core(blob(height), form, "auto", "it"))
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(xs - CENTER[0], ys - CENTER[1])
    assert core[distance <= 1.2].all()  # well above half of the height
    assert not core[distance > 1.2 * np.sqrt(2 * np.log(5)) + 0.5].any()  # under a fifth
    polarity = "bright" if height > 0 else "dark"
    assert (whole(grow_core(blob(height), form, polarity, "it")) == core).all()


def test_nothing_grows_out_of_its_box_nor_without_end_from_a_point() -> None:
    frame = blob(0)
    frame[:, 18:] += 500  # an edge of a cloud
    assert not whole(grow_core(frame, Box(17, 12, 4, 4), "bright", "it"))[:, 21:].any()
    assert whole(grow_core(frame, Point(20.5, 15.5), "bright", "it")).sum() <= 17**2


def test_a_single_pixel_and_the_frame_s_corner() -> None:
    frame = np.full(SHAPE, 7, np.uint8)
    frame[0, 0] = 99
    for form in (Box(0, 0, 1, 1), Point(0.0, 0.0), Box(0, 0, 3, 3)):
        assert whole(grow_core(frame, form, "auto", "it")).nonzero() == ([0], [0])
    assert grow_core(frame, Box(0, 0, 50, 40), "auto", "it").pixels.sum() == 1


def test_missing_pixels_are_never_in() -> None:
    frame = blob(300)
    frame[15, 20] = np.nan
    frame[14, 20] = np.inf
    core = whole(grow_core(frame, Box(17, 12, 7, 7), "auto", "it"))
    assert core.any()
    assert not core[15, 20]
    assert not core[14, 20]
    with pytest.raises(DataError, match="it has no finite pixel"):
        grow_core(np.full(SHAPE, np.nan), Box(17, 12, 7, 7), "auto", "it")


def test_where_nothing_differs_it_is_said() -> None:
    flat = np.full(SHAPE, 5, np.uint16)
    with pytest.raises(DataError, match="it has nothing that is different from its surroundings"):
        grow_core(flat, Box(3, 3, 4, 4), "auto", "it")
    with pytest.raises(DataError, match="nothing that is darker than its surroundings"):
        grow_core(np.where(np.indices(SHAPE).sum(0) == 9, 9, flat), Point(4.5, 5.5), "dark", "it")
    with pytest.raises(OptionError, match="polarity 'red' is unknown"):
        grow_core(flat, Box(3, 3, 4, 4), "red", "it")


def test_boxes_of_real_frames_give_masks_like_the_drawn_ones(shared_data: Path) -> None:
    frames = FrameFolder(shared_data / "sirst", "trainval")
    overlaps = []
    for index in range(0, 340, 34):
        frame, mask = frames.pair(index)
        for region in mask_regions(mask):
            height, width = region.pixels.shape
            core = grow_core(frame, Box(region.left, region.top, width, height), "auto", "it")
            drawn, grown = (
                full_mask(frame.shape, each.left, each.top, each.pixels) for each in (region, core)
            )
            overlaps.append((drawn & grown).sum() / (drawn | grown).sum())
    assert np.mean(overlaps) > 0.75
