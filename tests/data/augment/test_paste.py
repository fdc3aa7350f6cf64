from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pinglow.data.augment.counter import mix
from pinglow.data.augment.paste import (
    Pasting,
    TargetPatch,
    draw_pasting,
    lift_target,
    paste_targets,
)
from pinglow.structures import BoolArray, FloatArray, find_targets

YS, XS = np.mgrid[:60, :80].astype(np.float32)
# Harmonic, so that the background behind the target is known exactly.
BACKGROUND = 0.02 * XS - 0.03 * YS + 1e-3 * (XS**2 - YS**2)


def scene(y: int, x: int, height: int = 3, width: int = 5) -> tuple[FloatArray, BoolArray]:
    """A frame with a bar of brightness 1.5 and a rim of 0.5 around it, and its mask."""
    frame, mask = BACKGROUND.copy(), np.zeros(BACKGROUND.shape, dtype=np.bool_)
    frame[y - 1 : y + height + 1, x - 1 : x + width + 1] += 0.5
    frame[y : y + height, x : x + width] += 1.0
    mask[y : y + height, x : x + width] = True
    return frame, mask


@given(
    y=st.integers(8, 49), x=st.integers(8, 67), height=st.integers(1, 3), width=st.integers(1, 5)
)
@settings(max_examples=50, deadline=None)
def test_a_lifted_target_is_what_was_added_to_the_background(
    y: int, x: int, height: int, width: int
) -> None:
    frame, mask = scene(y, x, height, width)
    (target,) = find_targets(mask)
    patch = lift_target(frame, mask, target)
    assert patch is not None
    rows, columns = np.s_[y - 8 : y + height + 8], np.s_[x - 8 : x + width + 8]
    expected = (frame - BACKGROUND)[rows, columns]
    # The rim's corners lie beyond the two steps that light is looked for in.
    reach = np.abs(patch.light) > 0
    assert np.array_equal(patch.mask, mask[rows, columns])
    assert np.allclose(patch.light[patch.mask], 1.5, atol=2e-3)
    assert np.allclose(patch.light[reach], expected[reach], atol=2e-3)


@pytest.mark.parametrize(("y", "x"), [(7, 30), (50, 30), (30, 7), (30, 68)])
def test_a_target_near_the_border_is_left(y: int, x: int) -> None:
    frame, mask = scene(y, x)
    (target,) = find_targets(mask)
    assert lift_target(frame, mask, target) is None


def test_a_target_with_a_neighbor_or_of_more_than_400_pixels_is_left() -> None:
    frame, mask = scene(20, 30)
    mask[20, 42] = True
    assert [lift_target(frame, mask, target) for target in find_targets(mask)] == [None, None]
    frame, mask = scene(10, 10, 20, 21)
    assert lift_target(frame, mask, find_targets(mask)[0]) is None
    frame, mask = scene(10, 10, 20, 20)
    assert lift_target(frame, mask, find_targets(mask)[0]) is not None


def bar_patch(clutter: float = 1.0) -> TargetPatch:
    light = np.zeros((6, 9), dtype=np.float32)
    light[2:4, 2:7] = 1
    return TargetPatch(light, light > 0, clutter)


def paste(
    patch: TargetPatch,
    frames: FloatArray,
    masks: BoolArray,
    *,
    rotate: bool = True,
    side: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames and masks (B, S, S) with one to three of the patch, and its pixels in them."""
    pasting = Pasting.collect([[], [patch]])
    assert pasting is not None
    count = len(frames)
    shares = torch.tensor([0.0, 1.0], dtype=torch.float64)
    keys = mix(torch.tensor(1), torch.arange(count))
    drawn = draw_pasting(pasting, shares, 1.0, torch.full((count,), rotate), keys)
    image, truth = torch.from_numpy(frames.copy()), torch.from_numpy(masks.astype(np.float32))
    sides = torch.full((count,), side or frames.shape[1])
    points, there = paste_targets(pasting, drawn, image, truth, sides)
    return image, truth, points, there


def test_pasting_adds_light_exactly_where_the_mask_grows() -> None:
    frames, masks = np.zeros((60, 40, 40), dtype=np.float32), np.zeros((60, 40, 40), dtype=np.bool_)
    masks[:, 5, 5] = True
    images, truths, points, there = paste(bar_patch(), frames, masks, side=30)
    counts = set()
    for image, truth, point, used in zip(images, truths, points, there, strict=True):
        assert set(truth.unique().tolist()) == {0.0, 1.0}
        assert truth[5, 5] == 1
        assert not image[:, 30:].any()
        assert not image[30:].any()
        truth[5, 5] = 0
        assert torch.equal(image > 0, truth > 0)
        assert all(truth[tuple(place)] == 1 for place in point[used])
        assert truth.sum() == 10 * used.sum()
        assert image.max() <= 1.2
        assert (image[truth > 0] >= 0.8).all()
        counts.add(int(used.sum()))
    assert {1, 2, 3} <= counts


def test_a_share_of_the_views_is_pasted_into_by_one_to_three() -> None:
    pasting = Pasting.collect([[bar_patch()]])
    assert pasting is not None
    keys = mix(torch.tensor(2), torch.arange(3000))
    one = torch.ones(1, dtype=torch.float64)
    used = draw_pasting(pasting, one, 0.4, torch.ones(3000, dtype=torch.bool), keys).used.sum(1)
    shares = torch.bincount(used, minlength=4) / 3000
    assert shares.tolist() == pytest.approx([0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3], abs=0.03)


def test_each_of_a_frames_targets_comes_and_none_of_a_frame_without() -> None:
    patches = [bar_patch(clutter) for clutter in (1.0, 2.0, 3.0)]
    pasting = Pasting.collect([patches[:1], [], patches[1:]])
    assert pasting is not None
    shares = torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64)
    keys = mix(torch.tensor(3), torch.arange(2000))
    drawn = draw_pasting(pasting, shares, 1.0, torch.ones(2000, dtype=torch.bool), keys)
    first = drawn.used[:, 0]
    assert first.float().mean().item() == pytest.approx(0.6, abs=0.05)
    seen = torch.bincount(drawn.patch[first, 0], minlength=3) / first.sum()
    assert seen.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=0.05)
    assert Pasting.collect([[], []]) is None


@pytest.mark.parametrize(("rotate", "count"), [(True, 8), (False, 2)])
def test_all_turns_occur_that_may(rotate: bool, count: int) -> None:
    light = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
    inside = light > 3  # its first pixel, and so its kept one, is not at a corner
    frames, masks = np.zeros((150, 9, 9), dtype=np.float32), np.zeros((150, 9, 9), dtype=np.bool_)
    images, truths, points, there = paste(
        TargetPatch(light, inside, 1.0), frames, masks, rotate=rotate
    )
    eight = [np.rot90(each, k) for each in (light, light[:, ::-1]) for k in range(4)]
    allowed = {(each.shape, tuple(np.argsort(each.ravel()))) for each in eight}
    seen = set()
    for image, truth, point, used in zip(images, truths, points, there, strict=True):
        if used.sum() == 1:
            box = find_targets((image > 0).numpy())[0].bbox
            cut = image[box[1] : box[1] + box[3], box[0] : box[0] + box[2]].numpy()
            seen.add((cut.shape, tuple(np.argsort(cut.ravel()))))
            (place,) = point[used]
            assert truth[tuple(place)] == 1
            assert image[tuple(place)] == pytest.approx(4 / 12 * image.max().item(), rel=1e-5)
    assert len(seen) == count
    assert seen <= allowed


@pytest.mark.parametrize(("clutter", "gain"), [(1.0, 1.0), (10.0, 1.0), (0.25, 2.0), (0.01, 4.0)])
def test_light_rises_with_clutter_up_to_four_times(clutter: float, gain: float) -> None:
    chess = np.tile(np.float32([[0.5, -0.5], [-0.5, 0.5]]), (20, 20))  # deviation 0.5 anywhere
    frames = np.repeat(chess[None], 20, axis=0)
    images, truths, _, there = paste(bar_patch(clutter), frames, np.zeros(frames.shape, np.bool_))
    added = (images - torch.from_numpy(frames))[truths > 0]
    assert there.any(dim=1).all()
    if gain == 1.0 or clutter == 0.01:  # what was pasted before is clutter, too
        assert 0.8 * gain - 1e-5 <= added.min()
        assert added.max() <= 1.2 * gain + 1e-5
    assert 0.8 * gain <= added.median() <= 1.35 * gain


@pytest.mark.parametrize(("whole", "side"), [(12, 5), (5, 5), (7, 7)])
def test_without_room_nothing_changes(whole: int, side: int) -> None:
    # Also where the patch, 6 x 9, is larger than all that is kept of a window.
    shape = (9, whole, whole)
    frames, masks = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    images, truths, _, there = paste(bar_patch(), frames, masks, side=side)
    assert not there.any()
    assert not images.any()
    assert not truths.any()


def test_nothing_is_pasted_over_a_target() -> None:
    frames, masks = np.zeros((20, 10, 10), dtype=np.float32), np.zeros((20, 10, 10), dtype=np.bool_)
    masks[:, 4:6, 4:6] = True  # inside of every place that is large enough
    images, truths, _, there = paste(bar_patch(), frames, masks, rotate=False)
    assert not there.any()
    assert not images.any()
    assert truths.sum() == 20 * 4
