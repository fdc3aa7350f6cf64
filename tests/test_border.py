from __future__ import annotations

import io
import logging
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pinglow.border import hide_border
from pinglow.preprocess import normalize_frame

Mask = NDArray[np.bool_]
SHAPE = 120, 160


def sky(seed: int = 0) -> NDArray[np.uint16]:
    """A smooth, noisy background with three targets."""
    rng = np.random.default_rng(seed)
    counts = ndimage.gaussian_filter(rng.normal(size=SHAPE), 12) * 900 + 7000
    counts += rng.normal(0, 12, SHAPE)
    for row, column in ((30, 40), (60, 120), (90, 80)):
        counts[row - 1 : row + 2, column - 1 : column + 2] += 300
    return counts.round().astype(np.uint16)


def bars(rows: int) -> Mask:
    outside = np.zeros(SHAPE, dtype=np.bool_)
    outside[:rows] = outside[len(outside) - rows :] = True
    return outside


def sides(columns: int) -> Mask:
    outside = np.zeros(SHAPE, dtype=np.bool_)
    outside[:, :columns] = outside[:, -columns:] = True
    return outside


def turned() -> Mask:
    return ndimage.rotate(np.ones(SHAPE), 7, reshape=False, order=0) == 0


def round_stop() -> Mask:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - 59.5, columns - 79.5) > 60


def small_round_stop() -> Mask:
    """Its picture touches no edge."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - 59.5, columns - 79.5) > 56


def one_corner() -> Mask:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return rows + columns < 30


@pytest.mark.parametrize("value", [0, 1, 65535])
@pytest.mark.parametrize(
    "outside",
    [
        *(bars(1), bars(4), bars(25), sides(4), bars(4) | sides(9)),
        *(turned(), round_stop(), small_round_stop(), one_corner()),
    ],
)
def test_a_border_of_one_value_is_no_pixels(outside: Mask, value: int) -> None:
    frame = np.where(outside, value, sky()).astype(np.uint16)
    hidden = hide_border(frame)
    np.testing.assert_array_equal(np.isnan(hidden), outside)
    np.testing.assert_array_equal(hidden[~outside], frame[~outside])
    without = np.where(outside, np.nan, sky())
    np.testing.assert_allclose(normalize_frame(frame), normalize_frame(without), atol=1e-5)


def faded(value: int, outside: Mask, pixels: int) -> tuple[NDArray[np.uint16], Mask]:
    """A sky with a border that fades into it over so many pixels, and all that is not only sky."""
    share = (ndimage.distance_transform_edt(~outside) / (pixels + 1)).clip(0, 1)
    frame = share * sky() + (1 - share) * value
    return frame.round().astype(np.uint16), share < 1


@pytest.mark.parametrize("value", [0, 65535])
@pytest.mark.parametrize("pixels", [1, 2, 4, 8])
@pytest.mark.parametrize("outside", [bars(8), sides(12), bars(4) | sides(9)])
def test_bars_with_a_soft_edge_are_hidden_with_it(outside: Mask, pixels: int, value: int) -> None:
    frame, border = faded(value, outside, pixels)
    hidden = np.isnan(hide_border(frame))
    assert hidden[border].mean() > 0.99
    assert (hidden & ~border).mean() < 0.002


@pytest.mark.parametrize("value", [0, 65535])
@pytest.mark.parametrize("pixels", [1, 4, 8])
@pytest.mark.parametrize("outside", [turned(), small_round_stop(), round_stop(), one_corner()])
def test_round_and_turned_borders_with_a_soft_edge_move_nothing(
    outside: Mask, pixels: int, value: int
) -> None:
    frame, border = faded(value, outside, pixels)
    hidden = np.isnan(hide_border(frame))
    assert hidden[outside].all()
    assert hidden[border & ~outside].mean() > 0.7  # not at the tips
    assert (hidden & ~border).mean() < 0.02
    scene = normalize_frame(np.where(border, np.nan, sky()))
    shown = ~border & ~hidden
    assert normalize_frame(frame)[shown].std() == pytest.approx(scene[shown].std(), rel=0.25)


@pytest.mark.parametrize("pixels", [1, 4, 8])
def test_cold_picture_that_touches_a_soft_edge_stays(pixels: int) -> None:
    frame, border = faded(0, bars(8), pixels)
    frame[8 + pixels : 20 + pixels, 50:62] -= 4000
    hidden = np.isnan(hide_border(frame))
    assert hidden[border].mean() > 0.99
    assert not hidden[11 + pixels : 20 + pixels, 50:62].any()


def test_a_clipped_sky_that_fades_out_over_more_than_a_soft_edge_stays() -> None:
    rows = np.mgrid[: SHAPE[0], : SHAPE[1]][0]
    frame = (sky() * ((rows - 20) / 40).clip(0, 1)).astype(np.uint16)
    assert hide_border(frame) is frame


def test_a_wire_under_a_clipped_sky_is_no_soft_edge() -> None:
    frame = np.tile(np.linspace(4, 26, SHAPE[0])[:, None] - 5, SHAPE[1]).clip(4).astype(np.uint8)
    frame[:30], frame[30], frame[31], frame[32:34], frame[34:40] = 0, 8, 11, 25, 4
    assert hide_border(frame) is frame


def test_bars_of_two_values_with_text_are_no_pixels() -> None:
    frame = sky()
    frame[:10], frame[-6:] = 0, 65535
    frame[3:7, 20:60:3] = 30000
    outside = np.zeros(SHAPE, dtype=np.bool_)
    outside[:10] = outside[-6:] = True
    np.testing.assert_array_equal(np.isnan(hide_border(frame)), outside)


@pytest.mark.parametrize("outside", [bars(13), sides(21), bars(13) | sides(21)])
def test_bars_that_lossy_compression_mixed_with_the_picture_are_no_pixels(outside: Mask) -> None:
    frame = np.where(outside, 16, sky() / 64).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(frame).save(encoded, "JPEG", quality=90)
    decoded = np.asarray(Image.open(encoded))
    assert (decoded[outside] != 16).any()
    np.testing.assert_array_equal(np.isnan(hide_border(decoded)), outside)


@pytest.mark.parametrize("outside", [bars(9), sides(14), bars(9) | sides(14)])
def test_black_bars_with_the_noise_of_lossy_video_are_no_pixels(outside: Mask) -> None:
    noise = np.random.default_rng(1).integers(0, 4, SHAPE)
    frame = np.where(outside, noise, sky() / 64).astype(np.uint8)
    np.testing.assert_array_equal(np.isnan(hide_border(frame)), outside)
    frame = np.where(outside, 10 * noise, sky() / 64).astype(np.uint8)  # no black
    assert hide_border(frame) is frame


def test_a_dark_sky_that_brightens_towards_the_ground_stays() -> None:
    rows = np.linspace(0, 60, SHAPE[0])[:, None] ** 2 / 40
    frame = (rows + np.random.default_rng(1).integers(0, 4, SHAPE)).astype(np.uint8)
    assert hide_border(frame) is frame


def test_text_in_a_border_all_around_is_no_pixels() -> None:
    frame, outside = sky(), bars(12) | sides(10)
    frame[outside] = 0
    frame[3:7, 20:60:3] = frame[-7:-3, 20:60:3] = 30000
    np.testing.assert_array_equal(np.isnan(hide_border(frame)), outside)


def test_a_frame_that_was_turned_smoothly_has_corners_of_no_pixels() -> None:
    frame = ndimage.rotate(sky().astype(float), 7, reshape=False, order=1).round()
    np.testing.assert_array_equal(np.isnan(hide_border(frame.astype(np.uint16))), frame == 0)


@pytest.mark.parametrize("rows", [slice(0, 2), slice(118, 120), slice(112, 120)])
def test_rows_of_telemetry_are_no_pixels(rows: slice) -> None:
    frame = sky()
    words = np.random.default_rng(1).integers(0, 65536, frame[rows].shape)
    frame[rows] = np.where(words % 4 == 0, 0, words)
    outside = np.zeros(SHAPE, dtype=np.bool_)
    outside[rows] = True
    if rows.stop - rows.start == 8:  # as many as may be picture of another kind
        outside[:] = False
    np.testing.assert_array_equal(np.isnan(hide_border(frame)), outside)


@pytest.mark.parametrize("rows", [slice(0, 0), slice(118, 120)])
@pytest.mark.parametrize("columns", [slice(0, 1), slice(0, 4), slice(153, 160)])
def test_columns_of_telemetry_are_no_pixels(columns: slice, rows: slice) -> None:
    frame, outside = sky(), np.zeros(SHAPE, dtype=np.bool_)
    outside[:, columns] = outside[rows] = True
    frame[outside] = np.random.default_rng(1).integers(0, 65536, np.count_nonzero(outside))
    np.testing.assert_array_equal(np.isnan(hide_border(frame)), outside)


@pytest.mark.parametrize("rows", [1, 8, 31])
@pytest.mark.parametrize("turned", [False, True])
def test_a_target_at_the_end_of_a_narrow_frame_is_no_telemetry(rows: int, turned: bool) -> None:
    frame = sky()[:rows]
    frame[rows // 5 : rows - rows // 5, 2:6] += 9000
    frame = frame.T if turned else frame
    assert hide_border(frame) is frame


def clipped_sky() -> NDArray[np.uint16]:
    """Cold sky clipped at 0 that fades into ground."""
    rows = np.mgrid[: SHAPE[0], : SHAPE[1]][0]
    ramp = (rows - 50.0) * 4 + np.random.default_rng(2).normal(0, 5, SHAPE)
    return ramp.clip(0, None).astype(np.uint16)


def clipped_sky_with_targets() -> NDArray[np.uint16]:
    """Cold sky clipped at 0, with targets, over a sharp roof line."""
    frame = sky()
    frame[:50] = 0
    frame[20:22, 30:33] = 400
    frame[30:32, 90:92] = 300
    return frame


def clipped_sky_with_a_target_high_up() -> NDArray[np.uint16]:
    frame = sky()
    frame[:50] = 0
    frame[5:8, 30:33] = 400
    return frame


@pytest.mark.parametrize(
    "make",
    [
        sky,
        clipped_sky_with_a_target_high_up,
        clipped_sky,
        clipped_sky_with_targets,
        lambda: np.full(SHAPE, 7, dtype=np.uint8),
        lambda: np.full(SHAPE, np.nan),
        lambda: np.zeros((1, 1)),
        lambda: np.zeros((1, 900), dtype=np.int16),
        lambda: np.array([[163, 136, 218, 107, 74, 169, 157, 18, 198, 251, 129, 3]], np.uint8),
        lambda: np.where(np.eye(40) > 0, np.inf, 0),
        lambda: np.where(bars(9) | sides(9), np.inf, sky()),
    ],
)
def test_picture_stays(make: Callable[[], NDArray[np.generic]]) -> None:
    frame = make()
    assert hide_border(frame) is frame


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), levels=st.sampled_from([1, 2, 3, 256]))
def test_nothing_is_hidden_in_noise_and_nothing_raises(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 70, 2)
    frame = rng.integers(0, levels, (height, width)).astype(np.uint8)
    assert hide_border(frame) is frame


def test_it_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("pinglow.terminal._said", set())
    frame = np.where(bars(6), 0, sky()).astype(np.uint16)
    with caplog.at_level(logging.WARNING, "pinglow"):
        hide_border(sky())
        assert not caplog.records
        hide_border(frame)
        hide_border(frame)
    (record,) = caplog.records
    assert "10 % of its pixels" in record.message
