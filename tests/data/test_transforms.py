from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage
from torch import Tensor

from pinglow.data.transforms import Augmentation, random_view
from pinglow.structures import label_targets

# Geometry only: what is left of the image equals the mask where both start equal.
STILL = {"gain": 0.0, "offset": 0.0, "noise": 0.0, "scale": (1.0, 1.0), "crop": 32}


def view(
    mask: NDArray[np.bool_], seed: int, enlarge: float = 1.0, **changes: object
) -> tuple[Tensor, Tensor]:
    """A view of a frame that equals its mask."""
    settings_ = Augmentation.model_validate(STILL | changes)
    corners = np.argwhere(mask)
    random = np.random.default_rng(seed)
    return random_view(mask.astype(np.float32), mask, corners, enlarge, settings_, random)


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    seed=st.integers(0, 2**32),
    bias=st.floats(0, 1),
)
@settings(max_examples=150, deadline=None)
def test_at_scale_1_the_mask_goes_exactly_where_the_image_goes(
    height: int, width: int, seed: int, bias: float
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.05
    image, truth = view(mask, seed, target_bias=bias)
    assert image.shape == truth.shape == (1, 32, 32)
    assert image.dtype == truth.dtype == torch.float32
    assert torch.equal(image, truth)


@given(seed=st.integers(0, 2**32), scale=st.floats(0.5, 3))
@settings(max_examples=80, deadline=None)
def test_a_scaled_mask_is_the_scaled_image_cut_at_one_half(seed: int, scale: float) -> None:
    mask = np.random.default_rng(seed).random((90, 70)) < 0.02
    image, truth = view(mask, seed, enlarge=scale)
    kept = truth - (image > 0.5).float()  # a pixel of a target that would have vanished
    assert kept.min() >= 0
    assert kept.sum() <= label_targets(mask)[1]


@pytest.mark.parametrize("shape", [(100, 120), (40, 300), (20, 25), (33, 10)])
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_views_drawn_towards_targets_hold_one(shape: tuple[int, int], scale: float) -> None:
    rng = np.random.default_rng(5)
    for seed in range(60):
        mask = np.zeros(shape, dtype=bool)
        mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
        image, _ = view(mask, seed, enlarge=scale, target_bias=1.0)
        assert image.max() > 0.2  # one enlarged pixel spreads over its neighbours


def test_the_bias_is_the_share_of_views_with_a_target() -> None:
    mask = np.zeros((256, 256), dtype=bool)
    mask[17, 200] = True
    held = [view(mask, seed, target_bias=0.6)[1].any().item() for seed in range(500)]
    assert np.mean(held) == pytest.approx(0.6, abs=0.07)  # + 1 % by chance


def test_views_reach_every_part_of_the_frame() -> None:
    seen = np.zeros((50, 70))
    frame = np.arange(50 * 70, dtype=np.float32).reshape(50, 70)
    empty = np.zeros((50, 70), dtype=bool)
    corners = np.zeros((0, 2), dtype=np.int64)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        image, _ = random_view(frame, empty, corners, 1.0, Augmentation.model_validate(STILL), rng)
        values = image.numpy().astype(int).ravel()
        assert len(np.unique(values)) == 32 * 32  # no pixel twice: no reflection is needed
        seen.flat[values] += 1
    assert seen.any(axis=0).all()
    assert seen.any(axis=1).all()


@pytest.mark.parametrize("scale", [1.5, 2.0, 3.0])
def test_an_enlarged_target_grows_with_the_square_of_the_scale(scale: float) -> None:
    mask = np.zeros((128, 128), dtype=bool)
    mask[60:68, 50:60] = True
    areas = [
        area
        for seed in range(40)
        if (area := int(view(mask, seed, enlarge=scale, crop=96, target_bias=1)[1].sum())) > 0
        and not _touches_the_edge(view(mask, seed, enlarge=scale, crop=96, target_bias=1)[1])
    ]
    assert len(areas) > 5
    assert np.mean(areas) == pytest.approx(80 * scale**2, rel=0.1)


def _touches_the_edge(truth: Tensor) -> bool:
    return bool(truth[0, [0, -1]].any() or truth[0, :, [0, -1]].any())


def test_the_rest_of_the_views_has_the_exact_scale() -> None:
    frame = np.random.default_rng(0).random((128, 128)) < 0.1
    exact = [
        torch.equal(*view(frame, seed, scale=(1.5, 1.6), scale_share=0.7)) for seed in range(200)
    ]
    assert np.mean(exact) == pytest.approx(0.3, abs=0.1)


def test_an_enlarged_target_stays_one_target() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[30, 31] = True
    for seed in range(30):
        _, truth = view(mask, seed, enlarge=2, crop=64, target_bias=1)
        assert label_targets(truth[0].numpy() > 0)[1] == 1


def test_every_flip_and_turn_occurs_equally_often() -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[0, :5] = mask[:2, 0] = True  # no symmetry
    seen: dict[bytes, int] = {}
    for seed in range(800):
        key = view(mask, seed)[1].numpy().tobytes()
        seen[key] = seen.get(key, 0) + 1
    square = mask.astype(np.float32)
    eight = {
        np.rot90(side, turns).tobytes() for side in (square, square[:, ::-1]) for turns in range(4)
    }
    assert set(seen) == eight
    assert min(seen.values()) > 60  # 100 expected


def test_flips_and_turns_can_be_left_out() -> None:
    mask = np.random.default_rng(0).random((32, 32)) < 0.1
    for seed in range(20):
        _, truth = view(mask, seed, flip=False, rotate=False)
        np.testing.assert_array_equal(truth[0].numpy(), mask)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_a_seed_gives_one_view(seed: int) -> None:
    mask = np.random.default_rng(seed).random((50, 60)) < 0.05
    changes = {"gain": 0.3, "offset": 0.2, "noise": 0.1, "scale": (0.7, 1.5)}
    first, second = (view(mask, seed, **changes) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_intensity_changes_leave_the_mask_alone_and_stay_in_their_range() -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:20, 8:20] = True
    gains, offsets, sigmas = [], [], []
    for seed in range(200):
        image, truth = view(mask, seed, gain=0.3, offset=0.2)
        values = torch.unique(image)
        assert len(values) == 2
        assert torch.equal(truth, (image > values.mean()).float())
        offsets.append(values[0].item())
        gains.append((values[1] - values[0]).item())
        image, truth = view(mask, seed, noise=0.1)
        sigmas.append((image - truth).std().item())
    assert 0.7 <= min(gains) < 0.75 < 1.25 < max(gains) <= 1.3 + 1e-6
    assert -0.2 <= min(offsets) < -0.15 < 0.15 < max(offsets) <= 0.2
    assert min(sigmas) < 0.02 < 0.08 < max(sigmas) < 0.11


def test_stuck_pixels_lie_beside_targets_and_leave_the_mask_alone() -> None:
    rng = np.random.default_rng(2)
    mask = rng.random((40, 50)) < 0.3
    counts, signs = set(), set()
    for seed in range(60):
        plain, truth = view(mask, seed, target_bias=1.0, flip=False, rotate=False)
        image, after = view(mask, seed, target_bias=1.0, flip=False, rotate=False, stuck=1.0)
        assert torch.equal(truth, after)
        changed = image != plain
        assert not (changed & (truth > 0)).any()
        assert ((image[changed].abs() >= 3) & (image[changed].abs() <= 10)).all()
        counts.add(int(changed.sum()))
        signs |= set(image[changed].sign().tolist())
    assert {1, 2, 3, 4} <= counts <= {0, 1, 2, 3, 4}  # 0: all of them would have hit targets
    assert signs == {-1.0, 1.0}


def test_a_stuck_pixel_is_enlarged_with_the_frame() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    image, _ = view(mask, 1, enlarge=2.0, stuck=1.0)
    assert (image != 0).sum() >= 16  # bilinear: a pixel reaches 4 x 4 at twice the size


def test_the_frame_is_not_changed() -> None:
    frame = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    before = frame.copy()
    empty = np.zeros(frame.shape, dtype=bool)
    corners = np.zeros((0, 2), dtype=np.int64)
    settings_ = Augmentation(crop=32, scale=(1, 1))
    random_view(frame, empty, corners, 1.0, settings_, np.random.default_rng(0))
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize(
    "change",
    [
        {"scale": [0, 1]},
        {"scale": [-1, 1]},
        {"scale": [1.3, 0.8]},
        {"scale": [1, float("inf")]},
        {"scale": [float("nan"), 1]},
        {"crop": 31},
        {"target_bias": 1.1},
        {"scale_share": 1.5},
        {"gain": 1},
        {"noise": -0.1},
        {"blur": 1},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Augmentation.model_validate(change)


@pytest.mark.parametrize("factor", [0.8, 1.1, 1.4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2)])
def test_a_tiny_target_survives_scaling(factor: float, shape: tuple[int, int]) -> None:
    frame = np.zeros((96, 96), dtype=np.float32)
    mask = np.zeros(frame.shape, dtype=np.bool_)
    mask[40 : 40 + shape[0], 50 : 50 + shape[1]] = True
    frame[mask] = 50
    corners = np.array([[40, 50]])
    still = Augmentation(
        crop=64, target_bias=1, scale=(factor, factor), gain=0, offset=0, noise=0, flip=False
    )
    for seed in range(40):
        image, truth = random_view(frame, mask, corners, 1.0, still, np.random.default_rng(seed))
        assert 1 <= truth.sum() <= 6
        brightest = np.unravel_index(int(image.argmax()), image.shape)
        y, x = np.argwhere(truth[0].numpy()).mean(axis=0)
        assert abs(y - brightest[1]) <= 1.5
        assert abs(x - brightest[2]) <= 1.5


def test_the_hole_of_a_ring_stays_a_hole() -> None:
    mask = np.zeros((96, 96), dtype=np.bool_)
    mask[30:60, 30:60] = True
    mask[34:56, 34:56] = False
    still = Augmentation(crop=64, target_bias=1, scale=(1.1, 1.1), rotate=False, flip=False)
    corner = np.array([[45, 58]])
    for seed in range(10):
        random = np.random.default_rng(seed)
        _, truth = random_view(mask.astype(np.float32), mask, corner, 1.0, still, random)
        _, count = ndimage.label(truth[0].numpy(), np.ones((3, 3)))
        assert count <= 1


def test_a_frame_smaller_than_the_view_lies_anywhere_in_it() -> None:
    mask = np.random.default_rng(0).random((20, 20)) < 0.1
    views = [view(mask, seed, flip=False, rotate=False)[0].numpy().tobytes() for seed in range(30)]
    assert len(set(views)) > 20
