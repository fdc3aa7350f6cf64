from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from pinglow.data.augment.counter import mix
from pinglow.data.augment.views import Augmentation, FrameBank, Views, cut_views, draw_views
from pinglow.structures import label_targets

# Geometry only: what is left of the image equals the mask where both start equal.
STILL = {"gain": 0.0, "offset": 0.0, "noise": 0.0, "scale": (1.0, 1.0), "crop": 32}


def bank_of(
    *masks: NDArray[np.bool_],
    frames: list[NDArray[np.float32]] | None = None,
    points: list[NDArray[np.int64]] | None = None,
    enlarge: float = 1.0,
    changes: dict[str, object] | None = None,
) -> tuple[FrameBank, Augmentation]:
    """Frames that equal their masks, each pixel of these a target; and the settings."""
    settings_ = Augmentation.model_validate(STILL | (changes or {}))
    count = len(masks)
    bank = FrameBank.build(
        torch.from_numpy(
            np.concatenate([each.ravel() for each in frames or masks]).astype(np.float32)
        ),
        torch.from_numpy(np.concatenate([each.ravel() for each in masks])),
        [each.shape for each in masks],
        points or [np.argwhere(each) for each in masks],
        scale=[enlarge] * count,
        scale_share=[settings_.scale_share] * count,
        rotate=[settings_.rotate] * count,
        weights=[1.0] * count,
    )
    return bank, settings_


def keys_of(*seeds: int) -> Tensor:
    return mix(torch.tensor(seeds), 0)


def view(
    mask: NDArray[np.bool_], seed: int, enlarge: float = 1.0, **changes: object
) -> tuple[Tensor, Tensor]:
    """A view of a frame that equals its mask."""
    bank, settings_ = bank_of(mask, enlarge=enlarge, changes=changes)
    views = draw_views(bank, settings_, keys_of(seed))
    image, truth = cut_views(bank, settings_, views, int(views.side.max()))
    return image[0], truth[0]


def reference(frame: NDArray[np.float32], crop: int, views: Views, place: int) -> Tensor:
    """The same view of a frame, step by step, by what numpy and torch have for each."""
    side, top, left = (int(each[place]) for each in (views.side, views.top, views.left))
    margin = 2 * max(side, *frame.shape)
    wide = np.pad(frame, margin, mode="symmetric")
    window = wide[margin + top : margin + top + side, margin + left : margin + left + side]
    image = torch.from_numpy(window.copy())[None, None]
    if side != crop:
        image = F.interpolate(image, (crop, crop), mode="bilinear", antialias=side > crop)
    for flip, axis in ((views.flip_rows, -2), (views.flip_columns, -1)):
        image = image.flip(axis) if flip[place] else image
    return image[0, 0].T if views.transpose[place] else image[0, 0]


@given(seed=st.integers(0, 2**32), enlarge=st.floats(0.5, 3))
@settings(max_examples=60, deadline=None)
def test_views_are_cut_scaled_flipped_and_turned_as_libraries_do(seed: int, enlarge: float) -> None:
    rng = np.random.default_rng(seed)
    shapes = [(40, 60), (90, 20), (33, 33)]
    frames = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    masks = [rng.random(shape) < 0.1 for shape in shapes]
    changes = {"scale": (0.7, 1.6), "scale_share": 0.7}
    bank, settings_ = bank_of(*masks, frames=frames, enlarge=enlarge, changes=changes)
    views = draw_views(bank, settings_, keys_of(*range(seed, seed + 8)))
    images, _ = cut_views(bank, settings_, views, bank.largest_side(settings_))
    for place in range(8):
        expected = reference(frames[int(views.frame[place])], 32, views, place)
        torch.testing.assert_close(images[place, 0], expected, atol=2e-5, rtol=0)


def test_a_view_depends_on_its_own_key_alone() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((50, 40 + 9 * each)) < 0.02 for each in range(3)]
    changes = {"scale": (0.7, 1.6), "noise": 0.1, "gain": 0.3, "offset": 0.2, "stuck": 0.5}
    bank, settings_ = bank_of(*masks, changes=changes)
    whole = cut_views(bank, settings_, draw_views(bank, settings_, keys_of(*range(12))), 90)
    views = draw_views(bank, settings_, keys_of(7, 3))
    some = cut_views(bank, settings_, views, int(views.side.max()))
    one = cut_views(bank, settings_, views.part(slice(1, 2)), 64)
    for part in range(2):
        torch.testing.assert_close(some[part], whole[part][[7, 3]], atol=1e-6, rtol=0)
        torch.testing.assert_close(one[part], whole[part][[3]], atol=1e-6, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_views_are_the_same_on_a_card() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((80, 70)) < 0.02 for _ in range(4)]
    frames = [rng.normal(size=(80, 70)).astype(np.float32) for _ in masks]
    changes = {"scale": (0.7, 1.6), "noise": 0.1, "gain": 0.3, "offset": 0.2, "stuck": 0.5}
    bank, settings_ = bank_of(*masks, frames=frames, changes=changes)
    found = []
    for device in ("cpu", "cuda"):
        there = bank.to(torch.device(device))
        views = draw_views(there, settings_, keys_of(*range(64)).to(device))
        found.append([each.cpu() for each in cut_views(there, settings_, views, 64)])
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-4, rtol=0)
    assert torch.equal(found[0][1], found[1][1])


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
        assert image.max() > 0.2  # one enlarged pixel spreads over its neighbors


def test_the_bias_is_the_share_of_views_with_a_target() -> None:
    mask = np.zeros((256, 256), dtype=bool)
    mask[17, 200] = True
    held = [view(mask, seed, target_bias=0.6)[1].any().item() for seed in range(500)]
    assert np.mean(held) == pytest.approx(0.6, abs=0.07)  # + 1 % by chance


def test_views_reach_every_part_of_the_frame() -> None:
    seen = np.zeros((50, 70))
    frame = np.arange(50 * 70, dtype=np.float32).reshape(50, 70)
    empty = np.zeros((50, 70), dtype=bool)
    bank, settings_ = bank_of(empty, frames=[frame])
    views = draw_views(bank, settings_, keys_of(*range(300)))
    for image in cut_views(bank, settings_, views, 32)[0]:
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


def test_the_frames_are_not_changed() -> None:
    mask = np.random.default_rng(0).random((32, 32)) < 0.1
    bank, settings_ = bank_of(mask, changes={"stuck": 1.0, "noise": 0.1})
    before = bank.frames.clone(), bank.masks.clone()
    cut_views(bank, settings_, draw_views(bank, settings_, keys_of(*range(9))), 32)
    assert torch.equal(bank.frames, before[0])
    assert torch.equal(bank.masks, before[1])


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
    changes = {"crop": 64, "target_bias": 1.0, "scale": (factor, factor)}
    bank, settings_ = bank_of(mask, frames=[frame], points=[np.array([[40, 50]])], changes=changes)
    views = draw_views(bank, settings_, keys_of(*range(40)))
    for image, truth in zip(*cut_views(bank, settings_, views, 90), strict=True):
        assert 1 <= truth.sum() <= 6
        brightest = np.unravel_index(int(image.argmax()), image.shape)
        y, x = np.argwhere(truth[0].numpy()).mean(axis=0)
        assert abs(y - brightest[1]) <= 1.5
        assert abs(x - brightest[2]) <= 1.5


def test_the_hole_of_a_ring_stays_a_hole() -> None:
    mask = np.zeros((96, 96), dtype=np.bool_)
    mask[30:60, 30:60] = True
    mask[34:56, 34:56] = False
    changes = {"crop": 64, "target_bias": 1.0, "scale": (1.1, 1.1)}
    bank, settings_ = bank_of(mask, points=[np.array([[45, 58]])], changes=changes)
    views = draw_views(bank, settings_, keys_of(*range(10)))
    for truth in cut_views(bank, settings_, views, 64)[1]:
        assert label_targets(truth[0].numpy() > 0)[1] <= 1


def test_a_frame_smaller_than_the_view_lies_anywhere_in_it() -> None:
    mask = np.random.default_rng(0).random((20, 20)) < 0.1
    views = [view(mask, seed, flip=False, rotate=False)[0].numpy().tobytes() for seed in range(30)]
    assert len(set(views)) > 20
