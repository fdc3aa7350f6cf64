"""Which of the things that come one by one are computed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def fill_batches(
    items: Iterable[_Item], size_of: Callable[[_Item], int], limit: int
) -> Iterator[list[_Item]]:
    """Neighbors whose sizes add up to ``limit`` at most; a larger one comes alone.

    What has no size waits for nothing: it comes with those before it that wait, or alone.
    """
    batch: list[_Item] = []
    total = 0
    for item in items:
        size = size_of(item)
        if batch and total + size > limit:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
        if total == 0 or total >= limit:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
