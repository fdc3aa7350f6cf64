"""Sparse pixel lists against dense numpy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import DTypeLike, NDArray

from pinglow.metrics.pixels import check_probability, pixels_above, shared_pixels

masks = hnp.arrays(np.bool_, (6, 9), elements=st.booleans())


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 0.999), st.sampled_from([np.float16, np.float32, np.float64]))
def test_comparison_is_exact_in_every_type(threshold: float, dtype: DTypeLike) -> None:
    # The threshold rounded to the type, and its neighbors: where a rounded comparison errs.
    rounded = np.asarray(threshold, dtype=dtype)
    down, up = np.nextafter(rounded, dtype(-1)), np.nextafter(rounded, dtype(1))
    values = np.array([[down, rounded, up]], dtype=dtype)
    expected = [Fraction(float(value)) > Fraction(threshold) for value in values[0]]
    listed = pixels_above(values, threshold)
    assert listed.position.tolist() == np.flatnonzero(expected).tolist()
    np.testing.assert_array_equal(listed.value, values[0, listed.position])


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32)), st.floats(0, 0.99))
def test_higher_lists_are_subsets(values: NDArray[np.float32], threshold: float) -> None:
    low = pixels_above(values, threshold / 2)
    assert (
        low.above(threshold).position.tolist() == pixels_above(values, threshold).position.tolist()
    )
    assert low.above(threshold / 2) is low


@settings(max_examples=100, deadline=None)
@given(masks, masks)
def test_shared_pixels_are_the_intersection(
    first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> None:
    one, other = pixels_above(first, 0), pixels_above(second, 0)
    of_one, of_other = shared_pixels(one, other)
    expected = np.flatnonzero(first & second).tolist()
    assert one.position[of_one].tolist() == other.position[of_other].tolist() == expected


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float16, np.float32, np.float64])
def test_zeros_and_ones_of_any_type_are_probabilities(dtype: DTypeLike) -> None:
    values = np.array([[0, 1], [1, 0]], dtype=dtype)
    checked = check_probability(values, (2, 2))
    assert np.issubdtype(checked.dtype, np.floating)
    assert pixels_above(checked, 0.5).position.tolist() == [1, 2]
