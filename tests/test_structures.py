"""Targets against a flood fill, and what follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pinglow.structures import (
    Detections,
    Prediction,
    ScoreOf,
    binarize_mask,
    find_targets,
    label_targets,
    peak_score,
)

shapes = st.tuples(st.integers(1, 9), st.integers(1, 11))
masks = hnp.arrays(np.bool_, shapes, elements=st.booleans())
maps = hnp.arrays(np.float32, shapes, elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1]))


def flood(mask: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Pixels (y, x) of each 8-connected component, components in raster order."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    components = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        stack, component = [start], []
        while stack:
            y, x = stack.pop()
            component.append((y, x))
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    stack.append(near)
        components.append(component)
    return components


@settings(deadline=None)
@given(mask=masks)
def test_labels_are_the_flood_fills(mask: NDArray[np.bool_]) -> None:
    labels, count = label_targets(mask)
    expected = np.zeros(mask.shape, dtype=np.int32)
    components = flood(mask)
    for number, component in enumerate(components, start=1):
        for pixel in component:
            expected[pixel] = number
    assert count == len(components)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


@settings(deadline=None)
@given(probability=maps)
def test_targets_are_the_flood_fills(probability: NDArray[np.float32]) -> None:
    mask = probability > 0.25
    expected = []
    for component in flood(mask):
        ys, xs = [y for y, _ in component], [x for _, x in component]
        box = (min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1)
        score = max(float(probability[pixel]) for pixel in component)
        expected.append((sum(xs) / len(xs), sum(ys) / len(ys), box, len(component), score))
    expected.sort(key=lambda target: -target[-1])  # stable: ties stay in raster order
    found = find_targets(mask, probability)
    assert len(found) == len(expected)
    for target, (x, y, box, area, score) in zip(found, expected, strict=True):
        assert (target.x, target.y) == pytest.approx((x, y))
        assert (target.bbox, target.area, target.score) == (box, area, score)


def test_corners_connect_and_gaps_do_not() -> None:
    mask = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=bool)
    diagonal, column = find_targets(mask)
    assert (diagonal.x, diagonal.y, diagonal.bbox, diagonal.area) == (0.5, 0.5, (0, 0, 2, 2), 2)
    assert (column.x, column.y, column.bbox, column.area) == (4, 0.5, (4, 0, 1, 2), 2)


def test_a_score_is_not_taken_from_a_neighbor_in_the_same_box() -> None:
    ring = np.ones((5, 5), dtype=bool)
    ring[1:4, 1:4] = False
    ring[2, 2] = True  # a target inside another one's box
    probability = np.where(ring, 0.6, 0).astype(np.float32)
    probability[2, 2] = 0.9
    inner, outer = find_targets(ring, probability)
    assert (inner.area, inner.score) == (1, pytest.approx(0.9))
    assert (outer.area, outer.score) == (16, pytest.approx(0.6))


def test_without_a_probability_every_score_is_one() -> None:
    assert [target.score for target in find_targets(np.eye(3, dtype=bool))] == [1.0]
    assert find_targets(np.zeros((3, 3), dtype=bool)) == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([False, True], [0, 1]),
        (np.array([0, 1], np.uint8), [0, 1]),
        (np.array([0, 127, 128, 255], np.uint8), [0, 0, 1, 1]),
        (np.array([0, 3, 250, 255], np.uint8), [0, 0, 1, 1]),  # compressed
        (np.array([0, 32767, 32768, 65535], np.uint16), [0, 0, 1, 1]),
        (np.array([0.0, 0.5, 0.51, 1.0], np.float32), [0, 0, 1, 1]),
        (np.array([0, 0], np.uint8), [0, 0]),
        (np.array([255, 255], np.uint8), [1, 1]),
        (np.zeros((1, 0), np.uint8), []),
    ],
)
def test_a_mask_is_cut_at_half_its_own_maximum(values: Any, expected: list[int]) -> None:
    mask = np.atleast_2d(np.asarray(values))
    binary = binarize_mask(mask)
    assert binary.dtype == np.bool_
    assert binary.shape == mask.shape
    assert binary.ravel().tolist() == [bool(value) for value in expected]


@settings(deadline=None)
@given(mask=masks, scale=st.integers(1, 255))
def test_a_mask_of_two_values_keeps_its_pixels(mask: NDArray[np.bool_], scale: int) -> None:
    np.testing.assert_array_equal(binarize_mask((mask * scale).astype(np.uint8)), mask)
    np.testing.assert_array_equal(binarize_mask(mask), mask)


@settings(deadline=None)
@given(probability=maps, threshold=st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_a_prediction_is_consistent(probability: NDArray[np.float32], threshold: float) -> None:
    prediction = Prediction(probability, threshold, min_score=threshold)
    np.testing.assert_array_equal(prediction.mask, probability > threshold)
    assert prediction.targets == find_targets(prediction.mask, probability)
    assert sum(target.area for target in prediction.targets) == prediction.mask.sum()
    scores = [target.score for target in prediction.targets]
    assert scores == sorted(scores, reverse=True)
    assert all(threshold < score <= 1 for score in scores)


def test_a_prediction_starts_at_one_half() -> None:
    assert Prediction(np.array([[0.5, 0.0, 0.51]], np.float32)).mask.tolist() == [[0, 0, 1]]


@settings(deadline=None, max_examples=50)
@given(
    probability=maps,
    scores=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=4),
    score_of=st.sampled_from([peak_score, lambda p, each: 1 - float(each.pixels_of(p).mean())]),
)
def test_a_higher_smallest_score_only_takes_detections_away(
    probability: NDArray[np.float32], scores: list[float], score_of: ScoreOf
) -> None:
    """What is left is the same, pixel by pixel, however the score is made."""
    found = [Prediction(probability, 0.5, least, score_of) for least in sorted([0.0, *scores])]
    for fewer, more in zip(found[1:], found[:-1], strict=True):
        assert fewer.targets == more.targets[: len(fewer.targets)]
        assert all(target.score <= fewer.min_score for target in more.targets[len(fewer.targets) :])
        assert not (fewer.mask & ~more.mask).any()
    for each in found:
        assert label_targets(each.mask)[1] == len(each.targets)
        assert sum(target.area for target in each.targets) == each.mask.sum()


def test_what_is_faint_everywhere_is_a_candidate_by_its_lower_outline() -> None:
    row = [0, 0.3, 0.4, 0, 0.3, 0.9, 0.3, 0, 0.05, 0]  # faint, bright with a faint rim, nothing
    probability = np.array([row], np.float32)
    bright, faint = Prediction(probability, min_score=0).targets
    assert (bright.bbox, bright.score) == ((5, 0, 1, 1), pytest.approx(0.9))
    assert (faint.bbox, faint.score) == ((1, 0, 2, 1), pytest.approx(0.4))
    assert Prediction(probability).targets == (bright,)


def test_boxes_become_targets_in_the_same_coordinates() -> None:
    """A box around a target's pixels has the target's centroid and box."""
    mask = np.zeros((20, 30), dtype=bool)
    mask[4:7, 10:15] = True
    (target,) = find_targets(mask)
    boxes = np.array([target.bbox], dtype=np.float64)
    assert Detections(boxes, np.array([1.0])).targets == (target,)


def test_fractional_boxes_are_rounded_and_keep_a_pixel() -> None:
    boxes = np.array([[3.4, 5.6, 2.2, 0.1], [0.0, 0.0, 0.2, 0.2]])
    first, second = Detections(boxes, np.array([0.9, 0.8])).targets
    assert (first.bbox, first.area, first.score) == ((3, 5, 3, 1), 3, 0.9)
    assert (first.x, first.y) == pytest.approx((4.0, 5.15))
    assert second.bbox == (0, 0, 1, 1)
    (last,) = Detections(np.array([[9.6, 9.6, 0.4, 0.4]]), np.array([0.5])).targets
    assert last.bbox == (9, 9, 1, 1)  # in a frame of 10 x 10


def test_no_boxes_are_no_targets() -> None:
    assert Detections(np.zeros((0, 4)), np.zeros(0)).targets == ()
