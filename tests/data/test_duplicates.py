from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.data import duplicates
from pinglow.data.duplicates import group_near_duplicates

Frame = NDArray[np.float64]


def clouds(seed: int, height: int = 240, width: int = 320) -> Frame:
    """A 1/f^1.5 random field in [0, 1]."""
    noise = np.fft.rfft2(np.random.default_rng(seed).standard_normal((height, width)))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    spectrum = noise / np.maximum(np.hypot(fy, fx), 1 / max(height, width)) ** 1.5
    field = np.fft.irfft2(spectrum, s=(height, width))
    return np.asarray((field - field.min()) / np.ptp(field))


def with_target(frame: Frame, y: int, x: int) -> Frame:
    frame = frame.copy()
    frame[y - 2 : y + 3, x - 2 : x + 3] += 2.0
    return frame


def same(first: Frame, second: Frame) -> bool:
    groups = group_near_duplicates([first, second])
    return bool(groups[0] == groups[1])


def test_different_scenes_stay_apart() -> None:
    groups = group_near_duplicates([clouds(seed) for seed in range(40)])
    np.testing.assert_array_equal(groups, np.arange(40))


def test_another_target_and_fresh_noise_on_one_background() -> None:
    noise = np.random.default_rng(5).normal(0, 0.02, (2, 240, 320))
    first = with_target(clouds(1), 50, 60) + noise[0]
    second = with_target(clouds(1), 200, 300) + noise[1]
    assert same(first, second)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.25, 90.0), (40.0, -3.0)])
def test_brightness_and_contrast_do_not_matter(gain: float, offset: float) -> None:
    frame = clouds(2)
    assert same(frame, gain * frame + offset)


def test_bit_depth_does_not_matter() -> None:
    frame = clouds(3)
    assert same((frame * 255).astype(np.uint8), (6000 + frame * 4000).astype(np.uint16))


def test_size_does_not_matter() -> None:
    frame = clouds(4, 480, 640)
    assert same(frame, ndimage.zoom(frame, 0.3, order=1))


def test_a_small_camera_shift_does_not_matter_and_a_large_one_does() -> None:
    wide = clouds(6, 240, 480)
    still, near, far = wide[:, :320], wide[6:, 8:328], wide[:, 160:]
    groups = group_near_duplicates([still, near, far])
    np.testing.assert_array_equal(groups, [0, 0, 1])


def test_a_sequence_is_one_group_though_its_ends_do_not_overlap() -> None:
    wide = clouds(7, 240, 480)
    pan = [wide[:, x : x + 320] for x in range(0, 161, 8)]
    assert not same(pan[0], pan[-1])
    np.testing.assert_array_equal(group_near_duplicates(pan), np.zeros(len(pan)))


def test_smooth_skies_are_not_alike_for_being_smooth() -> None:
    rng = np.random.default_rng(8)
    ys, xs = np.mgrid[-1:1:240j, -1:1:320j]
    frames = [
        a * ys + b * xs - c * (ys**2 + xs**2) + rng.normal(0, 0.01, ys.shape)
        for a, b, c in rng.uniform(0.2, 1, (12, 3))
    ]
    np.testing.assert_array_equal(group_near_duplicates(frames), np.arange(12))


def test_constant_frames_are_never_grouped() -> None:
    frames = [np.full((100, 120), 7, dtype=np.uint8)] * 2
    np.testing.assert_array_equal(group_near_duplicates(frames), [0, 1])


def test_a_mostly_saturated_frame_is_still_recognized() -> None:
    frame = np.maximum(clouds(9), 0.8)
    assert np.median(frame) == 0.8
    assert same(frame, frame * 3)


def test_a_tiny_frame_is_accepted() -> None:
    frame = clouds(10, 40, 50)
    np.testing.assert_array_equal(
        group_near_duplicates([frame, clouds(11, 20, 9), frame]), [0, 1, 0]
    )


def test_no_frames() -> None:
    assert group_near_duplicates([]).shape == (0,)


def test_a_stream_of_frames_is_accepted() -> None:
    stream = (clouds(seed) for seed in (1, 2, 1))
    np.testing.assert_array_equal(group_near_duplicates(stream), [0, 1, 0])


def test_holes_in_a_float_frame_do_not_matter() -> None:
    frame = clouds(12)
    holed = frame.copy()
    holed[100:104, 30:34] = np.nan
    holed[7, 9] = np.inf
    assert same(frame, holed)


def test_blocks_give_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [clouds(seed) for seed in (1, 2, 3, 1, 4, 3, 5, 1)]
    monkeypatch.setattr(duplicates, "_BLOCK", 3)
    np.testing.assert_array_equal(group_near_duplicates(frames), [0, 1, 2, 0, 3, 2, 4, 0])
