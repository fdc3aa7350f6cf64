from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinglow.data.paste import TargetPatch, lift_target, paste_target
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


def test_a_target_with_a_neighbour_or_of_more_than_400_pixels_is_left() -> None:
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


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_pasting_adds_light_exactly_where_the_mask_grows(seed: int) -> None:
    frame, mask = np.zeros((40, 50), dtype=np.float32), np.zeros((40, 50), dtype=np.bool_)
    mask[5, 5] = True
    corner = paste_target(frame, mask, bar_patch(), np.random.default_rng(seed))
    assert mask[5, 5]
    if corner is None:  # the place that was drawn held the other target
        assert mask.sum() == 1
        assert not frame.any()
    else:
        mask[5, 5] = False
        assert mask[corner]
        assert np.array_equal(frame > 0, mask)
        assert {target.area for target in find_targets(mask)} == {10}
        assert 0.8 <= frame.max() <= 1.2


@pytest.mark.parametrize(("rotate", "count"), [(True, 8), (False, 2)])
def test_all_turns_occur_that_may(rotate: bool, count: int) -> None:
    seen = set()
    light = np.arange(12, dtype=np.float32).reshape(3, 4)
    for seed in range(100):
        frame, mask = np.zeros((9, 9), dtype=np.float32), np.zeros((9, 9), dtype=np.bool_)
        patch = TargetPatch(light, light > -1, 1.0)
        paste_target(frame, mask, patch, np.random.default_rng(seed), rotate)
        box = find_targets(mask)[0].bbox
        cut = frame[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        seen.add((box[2:], tuple(np.argsort(cut.ravel()))))
    assert len(seen) == count


@pytest.mark.parametrize(("clutter", "gain"), [(1.0, 1.0), (10.0, 1.0), (0.25, 2.0), (0.01, 4.0)])
def test_light_rises_with_clutter_up_to_four_times(clutter: float, gain: float) -> None:
    frame = np.tile(np.float32([[0.5, -0.5], [-0.5, 0.5]]), (20, 20))  # deviation 0.5 anywhere
    before, mask = frame.copy(), np.zeros(frame.shape, dtype=np.bool_)
    paste_target(frame, mask, bar_patch(clutter), np.random.default_rng(0))
    added = (frame - before)[mask].mean()
    assert 0.8 * gain <= added <= 1.2 * gain


def test_without_room_nothing_changes() -> None:
    frame, mask = np.zeros((5, 5), dtype=np.float32), np.zeros((5, 5), dtype=np.bool_)
    assert paste_target(frame, mask, bar_patch(), np.random.default_rng(0)) is None
    assert not frame.any()
    assert not mask.any()


def test_nothing_is_pasted_over_a_target() -> None:
    frame, mask = np.zeros((10, 10), dtype=np.float32), np.zeros((10, 10), dtype=np.bool_)
    mask[4:6, 4:6] = True  # inside of every place that is large enough
    for seed in range(20):
        assert paste_target(frame, mask, bar_patch(), np.random.default_rng(seed), False) is None
    assert not frame.any()
    assert mask.sum() == 4
