"""What a process takes of its machine: cores and memory."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_CPU_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")
_THREADS: Final = "OMP_NUM_THREADS"


def limit_of_cores() -> int | None:
    """Cores that a process may keep busy: OMP_NUM_THREADS, or its container's limit (cgroup v2).

    Returns:
        At least 1; None: all there are.
    """
    try:
        return max(1, int(os.environ[_THREADS].partition(",")[0]))
    except (KeyError, ValueError):
        pass
    try:
        quota, period = _CPU_LIMIT.read_text().split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):  # no container, or "max"
        return None


def take_share(processes: int) -> None:
    """Keep this process, one of several alike, to its share of the cores.

    To be called before models are loaded. OMP_NUM_THREADS, where the user has set it, is left.

    Args:
        processes: How many there are; one alone has all.
    """
    if processes == 1 or os.environ.get(_THREADS):
        return
    share = max(1, (limit_of_cores() or _count_cores()) // processes)
    os.environ[_THREADS] = str(share)
    if "torch" in sys.modules:  # it has looked already
        sys.modules["torch"].set_num_threads(share)


def _count_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def trim_memory() -> None:
    """Give back to the system what the allocator keeps of memory that is free.

    Only glibc can; where threads free what others have made, it keeps more and more.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
