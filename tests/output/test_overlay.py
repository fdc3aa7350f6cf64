"""Pictures of frames with their targets, looked at pixel by pixel."""

from __future__ import annotations

import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pinglow.output.overlay import draw_overlay
from pinglow.structures import Prediction, Target

MARK = (255, 176, 0)


class Record(NamedTuple):
    frame: NDArray[np.uint16]
    prediction: Prediction


def make_record(*spots: tuple[int, int, float]) -> Record:
    """Make a frame of 60 x 40 with one 3 x 3 target a spot (left, top, score)."""
    probability = np.zeros((40, 60), np.float32)
    for left, top, score in spots:
        probability[top : top + 3, left : left + 3] = score
    frame = np.random.default_rng(0).normal(8000, 20, (40, 60)).astype(np.uint16)
    return Record(frame, Prediction(probability))


def marked(image: Image.Image) -> NDArray[np.bool_]:
    return np.all(np.asarray(image) == MARK, axis=-1)


def test_a_small_frame_is_enlarged_and_a_huge_one_reduced() -> None:
    assert draw_overlay(np.zeros((40, 60)), ()).size[0] == 60 * 9
    assert draw_overlay(np.zeros((1000, 600)), ()).size[0] == 600
    assert draw_overlay(np.zeros((3000, 6000), np.uint16), ()).size[0] == 2048
    for shape in ((1, 1), (1, 5000), (5000, 1)):
        assert min(draw_overlay(np.zeros(shape), ()).size) >= 20


def test_the_box_surrounds_the_target_without_covering_it() -> None:
    record = make_record((20, 22, 0.9))
    plain = np.asarray(draw_overlay(record.frame, ()))
    overlay = draw_overlay(record.frame, record.prediction.targets)
    scale = 9
    inside = np.s_[22 * scale : 25 * scale, 20 * scale : 23 * scale]
    np.testing.assert_array_equal(np.asarray(overlay)[inside], plain[inside])
    marks = marked(overlay)
    rows, columns = np.nonzero(marks)
    assert rows.min() < 22 * scale < 25 * scale < rows.max()
    assert columns.min() < 20 * scale < 23 * scale < columns.max()
    assert np.hypot(rows - 23.5 * scale, columns - 21.5 * scale).max() < 12 * scale


def test_no_target_leaves_the_picture_unmarked_and_says_so() -> None:
    record = make_record()
    overlay = draw_overlay(record.frame, ())
    assert not marked(overlay).any()
    text = np.asarray(overlay)[40 * 9 :]
    assert text.shape[0] == 20
    assert (text > 128).any()


@pytest.mark.parametrize("corner", [(0, 0), (57, 0), (0, 37), (57, 37)])
def test_targets_in_the_corners_stay_visible(corner: tuple[int, int]) -> None:
    record = make_record((*corner, 0.9))
    picture = marked(draw_overlay(record.frame, record.prediction.targets))[: 40 * 9, : 60 * 9]
    assert picture.any(axis=1).sum() > 20
    assert picture.any(axis=0).sum() > 20


def test_the_inset_shows_a_dim_target_that_the_whole_frame_hides() -> None:
    ramp = np.linspace(0, 16000, 400)[None].repeat(200, axis=0)
    ramp[100:103, 200:203] += 300  # 2 % of the frame's range
    target = Target(201.0, 101.0, (200, 100, 3, 3), 9, 0.9)
    overlay = np.asarray(draw_overlay(ramp.astype(np.uint16), [target]))[..., 0].astype(int)
    inset = overlay[200 * 2 + 20 :, :125][:125]
    center, border = inset[55:70, 55:70].mean(), inset[55:70, 30:45].mean()
    assert center - border > 50
    whole = overlay[: 200 * 2, : 400 * 2]
    assert abs(whole[202, 402] - whole[300, 402]) < 15


def test_frames_of_any_values_can_be_drawn() -> None:
    target = Target(5.0, 5.0, (5, 5, 1, 1), 1, 0.9)
    broken = np.full((20, 20), np.nan, np.float32)
    mixed = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    mixed[0, :3] = np.nan, np.inf, -np.inf
    for frame in (broken, mixed, np.full((20, 20), 7), np.full((20, 20), 3e38, np.float32)):
        draw_overlay(frame, [target])
    assert np.asarray(draw_overlay(mixed, ()))[: 20 * 26, : 20 * 26].std() > 20
    assert not np.asarray(draw_overlay(mixed, ()))[2, 2].any()


def test_a_frame_full_of_false_alarms_can_be_drawn() -> None:
    probability = np.zeros((200, 200), np.float32)
    probability[::2, ::2] = 0.9
    overlay = draw_overlay(np.zeros((200, 200)), Prediction(probability).targets)
    assert marked(overlay).mean() > 0.1


def test_drawing_a_large_frame_needs_little_memory() -> None:
    frame = np.zeros((4096, 4096), np.uint16)
    frame[::7] = 900
    tracemalloc.start()
    draw_overlay(frame, ())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * frame.size


def test_what_is_ignored_is_hatched_and_moves_no_contrast() -> None:
    frame = make_record().frame.copy()
    ignored = np.zeros((40, 60), bool)
    ignored[:10, :20] = True
    plain = np.asarray(draw_overlay(np.where(ignored, np.nan, frame), ()).convert("L"))
    frame[ignored] = 65535
    drawn = np.asarray(draw_overlay(frame, (), ignored=ignored).convert("L"))
    assert set(np.unique(drawn[: 10 * 9, : 20 * 9])) == {120, 255 // 3}
    np.testing.assert_array_equal(drawn[90:], plain[90:])


def test_as_many_targets_as_fit_are_enlarged_and_the_rest_is_counted() -> None:
    spots = [(4 + 8 * number, 20, 0.9) for number in range(6)]
    for count in (2, 6):
        record = make_record(*spots[:count])
        overlay = np.asarray(draw_overlay(record.frame, record.prediction.targets)).astype(int)
        below = overlay[40 * 9 + 20 :][:125]
        filled = [below[:, left + 5 : left + 120].std() > 5 for left in range(0, 512, 128)]
        assert filled == [number < count for number in range(4)]


def test_an_outline_follows_the_pixels_where_they_are_large_enough() -> None:
    record = make_record((20, 22, 0.9))
    mask = record.prediction.mask
    plain = marked(draw_overlay(record.frame, record.prediction.targets))
    outlined = marked(draw_overlay(record.frame, record.prediction.targets, mask=mask)) & ~plain
    rows, columns = np.nonzero(outlined[: 40 * 9])
    assert (columns.min(), columns.max()) == (20 * 9 - 1, 23 * 9)
    assert (rows.min(), rows.max()) == (22 * 9 - 1, 25 * 9)
    assert not outlined[22 * 9 : 25 * 9, 20 * 9 : 23 * 9].any()
