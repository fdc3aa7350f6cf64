from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinglow.inference.tiling import choose_windows, cut_into_tiles, is_untiled, untiled_pixels


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    side=st.integers(160, 400),
    margin=st.integers(0, 64),
)
@settings(max_examples=150, deadline=None)
def test_cores_cover_the_frame_once_and_tiles_keep_their_margin(
    height: int, width: int, side: int, margin: int
) -> None:
    covered = np.zeros((height, width), dtype=int)
    for tile in cut_into_tiles(height, width, side, margin):
        covered[tile.core_rows, tile.core_columns] += 1
        for whole, core, length in (
            (tile.rows, tile.core_rows, height),
            (tile.columns, tile.core_columns, width),
        ):
            assert 0 <= whole.start <= core.start < core.stop <= whole.stop <= length
            assert whole.stop - whole.start <= side
            assert whole.start % 32 == 0
            assert core.start == 0 or core.start - whole.start >= margin
            assert core.stop == length or whole.stop - core.stop >= margin
        part = np.zeros((height, width), dtype=int)[tile.rows, tile.columns]
        part[tile.core] = 1
        assert part.sum() == covered[tile.core_rows, tile.core_columns].size
    assert (covered == 1).all()


def test_a_frame_of_one_tiles_size_is_one_tile() -> None:
    (tile,) = cut_into_tiles(256, 100, 256, 64)
    assert (tile.rows, tile.columns) == (slice(0, 256), slice(0, 100))
    assert (tile.core_rows, tile.core_columns) == (tile.rows, tile.columns)


@pytest.mark.parametrize("shape", [(1, 1), (100, 200), (200, 200), (10, 4000)])
def test_a_frame_of_four_windows_area_is_its_own_window(shape: tuple[int, int]) -> None:
    assert choose_windows(*shape, 100) == [(slice(0, shape[0]), slice(0, shape[1]))]


@pytest.mark.parametrize(("width", "alone"), [(1023, True), (1024, True), (1025, False)])
def test_a_frame_of_exactly_four_tiles_area_is_computed_at_once(width: int, alone: bool) -> None:
    assert untiled_pixels(256) == 256 * 1024
    assert is_untiled(256, width, 256) is alone
    assert is_untiled(width, 256, 256) is alone
    assert is_untiled(256, width, None)


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (99, [0]),
        (100, [0]),  # one window is the whole side
        (101, [0]),  # one in the middle
        (160, [30]),
        (199, [49]),
        (200, [0, 100]),  # from two windows on, one around each quarter: they touch, never overlap
        (201, [0, 100]),
        (400, [50, 250]),
        (1000, [200, 700]),
    ],
)
def test_windows_stand_around_the_quarters_of_a_side(length: int, starts: list[int]) -> None:
    other = 10_000  # so long that the frame never is its own window
    windows = choose_windows(length, other, 100)
    rows = [slice(start, min(start + 100, length)) for start in starts]
    columns = [slice(2450, 2550), slice(7450, 7550)]
    assert windows == [(row, column) for row in rows for column in columns]
    assert choose_windows(other, length, 100) == [
        (column, row) for column in columns for row in rows
    ]


@given(height=st.integers(1, 900), width=st.integers(1, 900), side=st.integers(10, 300))
def test_windows_lie_inside_are_few_and_no_larger_than_asked(
    height: int, width: int, side: int
) -> None:
    windows = choose_windows(height, width, side)
    assert 1 <= len(windows) <= 4
    for rows, columns in windows:
        assert 0 <= rows.start < rows.stop <= height
        assert 0 <= columns.start < columns.stop <= width
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert area <= 4 * side**2
    covered = np.zeros((height, width), dtype=int)
    for window in windows:
        covered[window] += 1
    assert covered.max() == 1  # none says twice what another says
