"""Which of the things that come one by one are computed together, and what if memory ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from numpy.typing import NDArray

from pinglow.errors import FrameError

_Item = TypeVar("_Item")
_DOES_NOT_FIT: Final = re.compile(
    "allocate memory|bad.?alloc|out of memory|_ALLOC_FAILED"
    # cuDNN, where it has no room to work in; kernels that count elements in 32 bits.
    "|unable to find an engine|INT_MAX",
    re.IGNORECASE,
)


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


def does_not_fit(error: Exception) -> bool:
    """Whether an error of PyTorch or a runtime says that memory, or a kernel, is too small."""
    return isinstance(error, MemoryError) or bool(_DOES_NOT_FIT.search(str(error)))


@contextmanager
def memory_guard(frame: NDArray[Any]) -> Iterator[None]:
    """Turn a lack of memory into a FrameError, so that a job goes on with the next frame."""
    try:
        yield
    except Exception as error:  # the runtimes have exceptions of their own, without a common base
        if not does_not_fit(error):
            raise
        size = f"{frame.shape[1]} x {frame.shape[0]}"
        raise FrameError(
            f"a frame of {size} pixels does not fit into memory; use a smaller tile, or cut it "
            "into smaller ones"
        ) from error
