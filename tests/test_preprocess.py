from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from torch.nn import functional as F  # noqa: N812

from pinglow.preprocess import (
    NORMALIZATION,
    InputRule,
    bring_back,
    measure_frame,
    normalize_frame,
    resample,
)

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]


def scene(
    seed: int, spread: float = 30.0, shape: tuple[int, int] = (40, 56)
) -> NDArray[np.float64]:
    """A sloped, noisy background around 6000 counts."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 2 * spread, shape[1])
    return 6000 + slope + rng.normal(0, spread, shape)


def reference(frame: NDArray[np.number], floor: float) -> NDArray[np.float64]:
    """The formula of the docstring, in sorted order statistics and double precision."""
    values = np.sort(frame.astype(np.float64).ravel())

    def quantile(share: float) -> float:
        place = share * (len(values) - 1)
        below = int(place)
        above = min(below + 1, len(values) - 1)
        return float(values[below] + (place - below) * (values[above] - values[below]))

    middle = (quantile(0.95) - quantile(0.05)) / 3.29
    spread = max(middle if middle > 0 else float(values.std()) / 10, floor)
    return np.arcsinh((frame.astype(np.float64) - quantile(0.5)) / spread)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
)
def test_integer_frames_follow_the_formula(dtype: str) -> None:
    low, high = np.iinfo(dtype).min, min(np.iinfo(dtype).max, 50_000)
    middle = (low + high) / 2
    frame = ((scene(1) - 6000) / 100 * (high - middle) / 4 + middle).clip(low, high).astype(dtype)
    normal = normalize_frame(frame)
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal, reference(frame, 0.5), atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_frames_follow_the_formula(dtype: str) -> None:
    frame = (scene(2) / 3000).astype(dtype)
    normal = normalize_frame(frame)
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal, reference(frame, 0.0), atol=1e-3)


def test_a_boolean_frame_is_read_as_0_and_1() -> None:
    frame = np.zeros((20, 20), dtype=bool)
    frame[3:5, 3:5] = True
    np.testing.assert_allclose(normalize_frame(frame), reference(frame, 0.5), atol=1e-5)


@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1e4, 1e4), seed=st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_gain_and_offset_do_not_matter(gain: float, offset: float, seed: int) -> None:
    frame = scene(seed)
    moved = normalize_frame(gain * frame + offset)
    np.testing.assert_allclose(moved, normalize_frame(frame), rtol=1e-4, atol=1e-4)


@given(gain=st.integers(1, 10), offset=st.integers(0, 5000), seed=st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_integer_gain_and_offset_do_not_matter_above_the_floor(
    gain: int, offset: int, seed: int
) -> None:
    frame = (scene(seed, spread=5) - 5800).round().astype(np.uint16)
    moved = (gain * frame.astype(np.int64) + offset).astype(np.uint16)
    np.testing.assert_allclose(normalize_frame(moved), normalize_frame(frame), atol=1e-4)


def test_8_bit_and_the_same_frame_in_16_bit_are_equal() -> None:
    frame = (scene(3) / 50).astype(np.uint8)
    wide = frame.astype(np.uint16) * 257
    np.testing.assert_allclose(normalize_frame(wide), normalize_frame(frame), atol=1e-5)


def test_a_14_bit_frame_keeps_a_target_of_60_counts() -> None:
    rng = np.random.default_rng(0)
    noise = 12.0
    frame = (6000 + rng.normal(0, noise, (128, 128))).round().astype(np.uint16)
    frame[60:62, 70:72] += 60
    normal = normalize_frame(frame)
    background = np.ones(frame.shape, dtype=bool)
    background[58:64, 68:74] = False
    target = normal[60:62, 70:72].mean() - np.median(normal[background])
    contrast = target / normal[background].std()
    # asinh bends: 5 sigma in counts must stay more than 2 sigma in normalized units.
    assert 0.4 * 60 / noise < contrast < 1.2 * 60 / noise
    # An 8-bit conversion of the high byte would have left nothing of it:
    assert len(np.unique(frame[58:64, 68:74] >> 8)) == 1


@pytest.mark.parametrize("spread", [0.01, 3.0, 3000.0])
def test_no_two_counts_become_equal(spread: float) -> None:
    rng = np.random.default_rng(1)
    frame = (8000 + rng.normal(0, spread, (256, 256))).round().clip(0, 2**14 - 1)
    frame[:64] = np.arange(2**14).reshape(64, 256)  # every count there is
    normal = normalize_frame(frame.astype(np.uint16))
    assert (np.diff(normal[:64].ravel()) > 0).all()


def test_neighboring_counts_of_a_32_bit_frame_stay_apart() -> None:
    frame = np.full((64, 64), 2**31, dtype=np.uint32)
    frame[10, 10] += 1
    assert normalize_frame(frame)[10, 10] > normalize_frame(frame)[0, 0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (31, 17)])
def test_a_constant_frame_is_all_zero(dtype: str, shape: tuple[int, int]) -> None:
    normal = normalize_frame(np.full(shape, 200, dtype=dtype))
    assert normal.shape == shape
    assert normal.dtype == np.float32
    assert not normal.any()


def test_flicker_of_the_last_bit_stays_small() -> None:
    frame = np.full((64, 64), 100, dtype=np.uint8)
    frame[::7, ::5] = 101  # 3 % of the pixels
    assert 0 < normalize_frame(frame).max() < 1.5  # asinh(2) = 1.44


def test_pixels_that_are_no_numbers_count_as_the_median() -> None:
    frame = scene(4).astype(np.float32)
    frame[3, 4], frame[5, 6], frame[7, 8] = np.nan, np.inf, -np.inf
    normal = normalize_frame(frame)
    assert np.isfinite(normal).all()
    bad = ~np.isfinite(frame)
    assert not normal[bad].any()
    np.testing.assert_allclose(normal[~bad], reference(frame[~bad], 0.0), atol=1e-4)


def two_temperatures(seed: int, shape: tuple[int, int] = (120, 160)) -> tuple[FloatArray, Mask]:
    """Sky and 30 % hot, uneven ground below a slanted horizon; and where the ground is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    ground = rows > shape[0] * (0.6 + 0.2 * columns / shape[1])
    sky = rng.normal(7000, 12, shape)
    sky[20:23, 30:33] += 150
    frame = np.where(ground, rng.normal(9000, 60, shape), sky)
    return frame.astype(np.float32), ground


@pytest.mark.parametrize("sign", [1, -1])
def test_regions_of_two_temperatures_are_each_normalized_as_a_frame_of_their_own(
    sign: int,
) -> None:
    frame, ground = two_temperatures(0)
    whole, by_region = measure_frame(sign * frame)
    image = by_region(sign * frame)
    for region in (ground, ~ground):
        own = reference(sign * frame[region], 0.0)
        np.testing.assert_allclose(image[region], own, atol=1e-4)
    np.testing.assert_allclose(whole(frame * sign), reference(sign * frame, 0.0), atol=1e-4)
    np.testing.assert_array_equal(normalize_frame(sign * frame), image)
    assert abs(image[21, 31]) > 4 * abs(whole(sign * frame)[21, 31] - whole(sign * frame)[5, 5])


@pytest.mark.parametrize(
    "levels", [(7000, 9000, 9400), (7000, 7300, 9000), (7000, 8000, 9000, 20000)]
)
def test_regions_of_several_temperatures_are_each_normalized_as_a_frame_of_their_own(
    levels: tuple[int, ...],
) -> None:
    frame = np.random.default_rng(4).normal(0, 12, (120, 160)).astype(np.float32)
    strips = np.array_split(np.arange(120), len(levels))
    for level, rows in zip(levels, strips, strict=True):
        frame[rows] += level
    whole, by_region = measure_frame(frame)
    for rows in strips:
        np.testing.assert_allclose(by_region(frame)[rows], reference(frame[rows], 0), atol=1e-4)
    np.testing.assert_allclose(whole(frame), reference(frame, 0.0), atol=1e-4)
    place = slice(33, 101), slice(7, 130)
    np.testing.assert_array_equal(by_region(frame, place), by_region(frame)[place])


def test_bright_ground_that_is_clipped_does_not_hide_the_sky() -> None:
    frame, ground = two_temperatures(1)
    clipped = frame.clip(max=8500).round().astype(np.uint16)
    _, by_region = measure_frame(clipped)
    sky = by_region(clipped)[~ground]
    np.testing.assert_allclose(sky, reference(clipped[~ground], 0.5), atol=1e-4)


def test_targets_and_slopes_are_no_second_temperature() -> None:
    rng = np.random.default_rng(2)
    slope = np.linspace(0, 3000, 120)[:, None] + rng.normal(7000, 12, (120, 160))
    assert len(measure_frame(slope)) == 1
    large_target = rng.normal(7000, 12, (120, 160))
    large_target[40:66, 40:66] += 2000  # 3.5 % of the frame
    assert len(measure_frame(large_target)) == 1
    clutter = np.where(rng.random((120, 160)) < 0.3, 9000, 7000) + rng.normal(0, 12, (120, 160))
    assert len(measure_frame(clutter)) == 1  # single pixels, no region


def test_a_part_of_a_large_frame_is_normalized_as_in_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pinglow.preprocess._MOST_PIXELS", 2**11)  # cells of 4 pixels
    frame, ground = two_temperatures(3)
    _, by_region = measure_frame(frame)
    assert by_region.warm is not None
    assert by_region.warm.cell == 4
    image = by_region(frame)
    place = slice(61, 103), slice(7, 130)
    np.testing.assert_array_equal(by_region(frame, place), image[place])
    np.testing.assert_array_equal(by_region.warm.covers(frame, place), ground[place])


def test_a_frame_without_any_number_is_all_zero() -> None:
    assert not normalize_frame(np.full((4, 4), np.nan, dtype=np.float32)).any()


def test_the_frame_given_is_not_changed() -> None:
    frame = scene(5)
    frame[0, 0] = np.nan
    before = frame.copy()
    normalize_frame(frame)
    np.testing.assert_array_equal(frame, before)


def test_a_dead_pixel_and_a_hot_target_do_not_move_the_rest() -> None:
    frame = scene(6, shape=(256, 256)).astype(np.uint16)
    struck = frame.copy()
    struck[20:23, 30:33] = 2**14 - 1
    struck[0, 0] = 0
    rest = np.ones(frame.shape, dtype=bool)
    rest[20:23, 30:33] = rest[0, 0] = False
    moved = np.abs(normalize_frame(struck) - normalize_frame(frame))[rest]
    assert moved.max() < 0.1


@pytest.mark.parametrize("wrong", [-9999.0, 1e6, -32768.0, 3.4e38])
def test_telemetry_and_pixels_without_a_measurement_do_not_hide_the_rest(wrong: float) -> None:
    frame = scene(3, spread=0.05).astype(np.float32)
    clean = normalize_frame(frame)
    frame[0, :] = wrong  # one row of forty
    normal = normalize_frame(frame)
    assert np.isfinite(normal).all()
    np.testing.assert_allclose(normal[1:].std(), clean[1:].std(), rtol=0.1)


def test_a_float_frame_that_is_constant_but_for_a_few_pixels_stays_bounded() -> None:
    frame = np.full((40, 50), 300.0, dtype=np.float32)
    frame[5, 5:8] = 300.001
    assert 1 < normalize_frame(frame).max() < 10


@pytest.mark.parametrize("offset", [0.0, 1e15, -1e15])
def test_whole_counts_far_from_0_are_told_apart(offset: float) -> None:
    frame = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(float)
    frame[30:32, 30:32] += 20
    assert np.array_equal(normalize_frame(frame + offset), normalize_frame(frame))


def test_a_huge_frame_is_judged_by_a_grid_of_its_pixels() -> None:
    frame = scene(7, shape=(800, 1400)).astype(np.float32)
    np.testing.assert_allclose(normalize_frame(frame), reference(frame, 0.0), atol=0.02)


def test_the_name_of_the_rule_is_what_weights_hold() -> None:
    assert NORMALIZATION == "median-spread-asinh"


@given(
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    long_side=st.integers(32, 2048),
    max_scale=st.floats(1, 8),
)
def test_the_input_rule_reaches_the_long_side_within_its_limit(
    height: int, width: int, long_side: int, max_scale: float
) -> None:
    scale = InputRule(long_side=long_side, max_scale=max_scale).scale(height, width)
    assert 1 <= scale <= max_scale
    reached = scale * max(height, width)
    assert (
        reached == pytest.approx(long_side)  # brought to the long side,
        or (scale == 1 and reached >= long_side)  # or never shrunk,
        or (scale == max_scale and reached <= long_side)  # or not enlarged any further
    )


@pytest.mark.parametrize("change", [{"long_side": 31}, {"max_scale": 0.9}, {"side": 512}])
def test_an_impossible_input_rule_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        InputRule.model_validate(change)


def test_flicker_of_the_last_bit_is_the_same_whatever_the_number_type() -> None:
    frame = np.full((64, 64), -5, dtype=np.int16)
    frame[::16, ::16] += 1
    expected = normalize_frame(frame)
    assert np.abs(expected).max() < 2
    for kind in (np.int32, np.float32, np.float64):
        assert np.allclose(normalize_frame(frame.astype(kind)), expected)
    assert np.allclose(normalize_frame((frame + 100).astype(np.uint16)), expected)
    holed = frame.astype(np.float32)
    holed[1, 1] = np.nan
    assert np.allclose(normalize_frame(holed), expected)


@pytest.mark.parametrize("length", [1, 2, 5, 32, 37])
@pytest.mark.parametrize("wanted", [1, 3, 16, 37, 52, 74])
def test_resampling_is_pytorchs(length: int, wanted: int) -> None:
    images = np.random.default_rng(0).standard_normal((2, 1, length, 41)).astype(np.float32)
    size = (wanted, 41 if wanted == 1 else wanted + 7)
    # In float64, in which the weights are made here: float32 loses taps at the triangle's foot.
    expected = F.interpolate(
        torch.from_numpy(images).double(), size, mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(resample(images, size), expected.numpy(), atol=1e-6)
    if wanted >= length and size[1] >= 41:
        plain = F.interpolate(torch.from_numpy(images).double(), size, mode="bilinear")
        np.testing.assert_allclose(resample(images, size), plain.numpy(), atol=1e-6)


def test_what_is_brought_back_stays_a_probability() -> None:
    ones = np.ones((1, 1, 83, 97), dtype=np.float32)
    back = bring_back(ones, (51, 60))
    assert back.shape == (1, 1, 51, 60)
    assert back.max() <= 1
    np.testing.assert_allclose(back, 1, atol=1e-6)
