"""The second look at reduced scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow.inference.large import find_large
from pinglow.preprocess import InputRule
from pinglow.structures import Prediction

Frame = NDArray[Any]
RULE = InputRule()


def find_small(frames: Sequence[Frame], rule: InputRule) -> list[NDArray[np.float32]]:
    """What is bright and at most 40 pixels wide; of what is wider its two ends."""
    maps = []
    for frame in frames:
        bright = np.nan_to_num(frame, posinf=0) > 100
        if np.ptp(np.nonzero(bright)[1]) >= 40 if bright.any() else False:
            columns = np.nonzero(bright)[1]
            bright[:, columns.min() + 3 : columns.max() - 2] = False
        maps.append(bright.astype(np.float32) * np.float32(0.9))
    return maps


def make_frame(width: int, height: int = 97, across: int = 151) -> Frame:
    frame = np.random.default_rng(0).normal(20, 2, (height, across)).astype(np.float32)
    frame[30:50, 21 : 21 + width] = 200
    return frame


@pytest.mark.parametrize("width", [50, 70, 90])
def test_a_wide_target_is_one_and_lies_where_it_is(width: int) -> None:
    frame = make_frame(width)
    assert len(Prediction(find_small([frame], RULE)[0]).targets) == 2  # fragments

    (target,) = Prediction(find_large([frame], RULE, find_small)[0]).targets

    assert target.x == pytest.approx(21 + (width - 1) / 2, abs=2)
    assert target.y == pytest.approx(39.5, abs=2)  # half a pixel at a quarter of the scale
    assert target.bbox[2] == pytest.approx(width, abs=4)


def test_a_small_target_in_the_box_of_a_slanted_one_remains() -> None:
    frame = np.full((97, 151), 20, np.float32)
    for step in range(60):
        frame[20 + step : 26 + step, 20 + step : 26 + step] = 200
    frame[25:28, 70:73] = 200

    def find(frames: Sequence[Frame], rule: InputRule) -> list[NDArray[np.float32]]:
        return [np.where(each > 100, np.float32(0.9), 0) for each in frames]

    targets = Prediction(find_large([frame], RULE, find)[0]).targets
    assert {(target.x, target.y) for target in targets if target.area < 50} == {(71, 26)}
    assert len(targets) == 2


@pytest.mark.parametrize("width", [3, 20])
def test_what_is_small_is_the_first_looks(width: int) -> None:
    frame = make_frame(width)
    (found,) = find_large([frame], RULE, find_small)
    np.testing.assert_array_equal(found, find_small([frame], RULE)[0])


def test_frames_of_any_size_and_with_holes() -> None:
    tiny = np.full((9, 9), 20, np.float32)
    tiny[4, 4] = 200
    holed = make_frame(60)
    holed[:, 100:] = np.nan
    holed[0, 0] = np.inf
    frames = [tiny, holed, make_frame(60).astype(np.uint16)]

    found = find_large(frames, RULE, find_small)

    assert [each.shape for each in found] == [each.shape for each in frames]
    assert [len(Prediction(each).targets) for each in found] == [1, 1, 1]
    assert all(np.isfinite(each).all() for each in found)


def test_the_second_look_keeps_the_first_ones_enlargement() -> None:
    seen = []

    def find(frames: Sequence[Frame], rule: InputRule) -> list[NDArray[np.float32]]:
        seen.extend((frame.shape[1], rule.scale(*frame.shape)) for frame in frames)
        return find_small(frames, rule)

    find_large([make_frame(3, 256, 320)], RULE, find)

    assert seen == [(320, 1.6), (160, 1.6), (80, 1.6)]
