from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from pinglow.inference.batches import fill_batches


@given(st.lists(st.integers(0, 9)), st.integers(0, 20))
def test_batches_hold_all_in_order_and_no_more_than_they_may(sizes: list[int], limit: int) -> None:
    batches = list(fill_batches(enumerate(sizes), lambda item: item[1], limit))
    assert [item for batch in batches for item in batch] == list(enumerate(sizes))
    totals = [sum(size for _, size in batch) for batch in batches]
    for batch, total in zip(batches, totals, strict=True):
        assert total <= limit or len(batch) == 1
    for total, following in zip(totals, batches[1:], strict=False):  # none could have taken more
        assert total in (0, limit) or total + following[0][1] > limit or total > limit


def test_nothing_waits_that_need_not() -> None:
    taken: list[int] = []

    def take() -> Iterator[int]:
        for size in (0, 3, 1, 1, 0, 1):
            taken.append(size)
            yield size

    batches = fill_batches(take(), int, 3)
    assert [(batch, len(taken)) for batch in batches] == [([0], 1), ([3], 2), ([1, 1, 0, 1], 6)]
