"""Known shifts come out to a fraction of a pixel; what is no camera motion is 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from pinglow.inference.camera_motion import CameraMotion
from pinglow.structures import Target


def make_scene(seed: int, size: tuple[int, int], grain: float = 2) -> Any:
    random = np.random.default_rng(seed)
    scene = ndimage.gaussian_filter(random.normal(size=size), grain)
    return 8000 + 100 * scene / scene.std()


def noisy(frame: Any, seed: int, sigma: float = 5) -> Any:
    return frame + np.random.default_rng(seed).normal(0, sigma, frame.shape)


def shift_of(first: Any, second: Any, targets: Any = ((), ())) -> tuple[float, float]:
    motion = CameraMotion()
    assert motion.update(first, targets[0]) == (0, 0)
    return motion.update(second, targets[1])


@pytest.mark.parametrize("shift", [(3, 0), (-7, 12), (0.75, -1.3), (20.4, 9.6), (-31, -25)])
@pytest.mark.parametrize("scale", [1, 3])
def test_known_shifts(shift: tuple[float, float], scale: int) -> None:
    scene = make_scene(0, (240 * scale, 300 * scale), 2 * scale)
    # The Fourier shift is exact; the border, where it wraps around, is cut off.
    by = ndimage.fourier_shift(np.fft.fft2(scene), np.array(shift[::-1]) * scale)
    cut = np.s_[40 * scale : -40 * scale, 40 * scale : -40 * scale]
    first, second = scene[cut], np.fft.ifft2(by).real[cut]
    found = shift_of(noisy(first, 1), noisy(second, 2))
    np.testing.assert_allclose(found, np.array(shift) * scale, atol=0.15 * scale)


def test_a_camera_that_stands_has_not_moved() -> None:
    scene = make_scene(3, (200, 240))
    assert shift_of(noisy(scene, 1), noisy(scene, 2)) == (0, 0)


def test_what_moves_in_the_picture_is_not_the_camera() -> None:
    still = make_scene(4, (200, 240))
    clouds = make_scene(5, (200, 300), 4)
    frames = []
    for by in (0, 5):
        frame = still.copy()
        frame[:80] = clouds[:80, by : by + 240]  # two fifths of the picture
        frames.append(noisy(frame, by))
    assert shift_of(*frames) == (0, 0)


def test_a_target_over_nothing_is_not_the_camera() -> None:
    frames, targets = [], []
    for x in (50, 62):
        frame = np.full((200, 240), 8000.0)
        frame[90:98, x : x + 9] = 9000
        frames.append(noisy(frame, x))
        targets.append([Target(x + 4.0, 94.0, (x, 90, 9, 8), 72, 0.9)])
    assert shift_of(*frames, targets) == (0, 0)
    assert shift_of(*frames) == (0, 0)  # not even one that was missed


def test_frames_that_say_nothing() -> None:
    scene = make_scene(6, (64, 64))
    flat = np.full((64, 64), 7.0)
    noise = [np.random.default_rng(seed).normal(size=(200, 240)) for seed in range(2)]
    assert shift_of(flat, flat) == (0, 0)
    assert shift_of(flat, scene) == (0, 0)
    assert shift_of(np.full((64, 64), np.nan), scene) == (0, 0)
    assert shift_of(scene, np.roll(scene, 5)[:40]) == (0, 0)  # of another size
    assert shift_of(scene[:20, :20], scene[2:22, :20]) == (0, 0)  # too small
    assert shift_of(*noise) == (0, 0)


def test_integers_and_holes_do_not_matter() -> None:
    scene = make_scene(7, (220, 260), 3)
    first, second = scene[10:210, 10:250], scene[10:210, 4:244]
    holed = second.copy()
    holed[50:60, 80:120] = np.nan
    np.testing.assert_allclose(shift_of(first.astype(np.uint16), holed), (6, 0), atol=0.15)
