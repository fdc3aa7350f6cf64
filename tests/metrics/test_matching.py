"""Components and matching at sizes where the reference can try everything."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.metrics.matching import (
    Components,
    false_area,
    find_components,
    match_greedy,
    match_optimal,
)
from pinglow.metrics.pixels import pixels_above

masks = hnp.arrays(
    np.bool_,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14),
    elements=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(masks)
def test_components_equal_labeling_the_whole_image(mask: NDArray[np.bool_]) -> None:
    pixels = pixels_above(mask, 0)
    found = find_components(pixels)
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    numbers = range(1, count + 1)
    assert len(found) == count
    np.testing.assert_array_equal(found.number, labels[mask] - 1)
    np.testing.assert_array_equal(found.area, [np.sum(labels == k) for k in numbers])
    centers = np.array(ndimage.center_of_mass(mask, labels, numbers)).reshape(-1, 2)
    np.testing.assert_allclose(np.stack([found.rows, found.columns], 1), centers, atol=1e-12)


def test_far_apart_components_keep_their_places() -> None:
    mask = np.zeros((400, 500), dtype=bool)
    mask[3, 490:495] = mask[4, 10] = mask[398:, 0] = True
    found = find_components(pixels_above(mask, 0))
    assert found.area.tolist() == [5, 1, 2]  # raster order of the first pixel
    assert found.rows.tolist() == [3, 4, 398.5]
    assert found.columns.tolist() == [492, 10, 0]


def at(*places: tuple[float, float], area: int = 1) -> Components:
    """Components with given centroids."""
    rows, columns = np.array(places, dtype=float).reshape(-1, 2).T
    count = len(places)
    return Components(np.arange(count), np.full(count, area), rows, columns)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(0, 5))
def test_optimal_matching_equals_trying_all_permutations(seed: int, t: int, p: int) -> None:
    generator = np.random.default_rng(seed)
    # A half-pixel grid of 4 x 4 pixels: many ties and many candidates below 3 pixels.
    true, predicted = (at(*(generator.integers(0, 9, size=(n, 2)) / 2)) for n in (t, p))
    best = (0, 0.0)
    slots = [*range(p), *[None] * t]
    for choice in set(itertools.permutations(slots, t)):
        distances = [
            math.hypot(true.rows[i] - predicted.rows[j], true.columns[i] - predicted.columns[j])
            for i, j in enumerate(choice)
            if j is not None
        ]
        if all(distance < 3 for distance in distances):
            best = min(best, (-len(distances), sum(distances)))
    first, second = match_optimal(true, predicted)
    assert len(set(first.tolist())) == len(set(second.tolist())) == len(first) == -best[0]
    total = np.hypot(
        true.rows[first] - predicted.rows[second], true.columns[first] - predicted.columns[second]
    ).sum()
    assert total == pytest.approx(best[1], abs=1e-5)


def test_greedy_takes_the_first_not_the_nearest() -> None:
    true, predicted = at((5, 5)), at((3, 5), (5, 5))
    assert match_greedy(true, predicted)[1].tolist() == [0]
    assert match_optimal(true, predicted)[1].tolist() == [1]


def test_optimal_prefers_two_far_matches_to_one_near() -> None:
    true, predicted = at((0, 0), (0, 2.5)), at((0, 2.4), (0, 5))
    assert [pairs.tolist() for pairs in match_optimal(true, predicted)] == [[0, 1], [0, 1]]


def test_false_area() -> None:
    predicted = Components(
        np.repeat([0, 1, 2], [4, 4, 3]), np.array([4, 4, 3]), np.zeros(3), np.zeros(3)
    )
    assert false_area(predicted, np.array([0]), drop_equal_areas=False) == 7
    assert false_area(predicted, np.array([0]), drop_equal_areas=True) == 3
    assert false_area(predicted, np.array([], dtype=int), drop_equal_areas=True) == 11
