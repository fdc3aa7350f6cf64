"""Which device computes: one rule for prediction, evaluation, benchmarks and training."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pinglow.errors import OptionError

if TYPE_CHECKING:
    from pinglow.backends.base import Backend

_CARD: Final = re.compile(r"cuda(?::(\d+))?")


@dataclass(frozen=True)
class Device:
    """Where something is computed.

    Attributes:
        type: cpu or cuda.
        index: Of the card, from 0.
    """

    type: str
    index: int = 0

    def __str__(self) -> str:
        """As in options, and as PyTorch writes it: cpu, cuda:0."""
        return self.type if self.type == "cpu" else f"{self.type}:{self.index}"


CPU: Final = Device("cpu")


def choose_device(name: str, backends: Sequence[type[Backend]]) -> Device:
    """The device that a name stands for.

    Args:
        name: "cpu", "cuda" (the first card), "cuda:N" (the card of that index), or "auto": the
            first card if one of the backends can use it, else the CPU.
        backends: What may compute. If none of them can use the card, PyTorch's reason is told, or
            the last one's.

    Raises:
        OptionError: The name is unknown, or none of the backends can use that card.
    """
    if name == "cpu":
        return CPU
    if name == "auto":
        return _first_card(backends)
    card = _CARD.fullmatch(name)
    if card is None:
        raise OptionError(f"device {name!r} is unknown: use cpu, cuda, cuda:N or auto")
    device = Device("cuda", int(card[1] or 0))
    reasons = {}
    for backend in backends:
        reason = backend.why_not(device)
        if reason is None:
            return device
        reasons[backend.name] = reason
    told = reasons.get("torch", reasons[backends[-1].name])
    raise OptionError(f"device {name!r} cannot be used: {told}, or use cpu")


def _first_card(backends: Sequence[type[Backend]]) -> Device:
    first = Device("cuda", 0)
    if not _has_driver():  # no backend need be loaded to be asked
        return CPU
    return first if any(backend.why_not(first) is None for backend in backends) else CPU


def _has_driver() -> bool:
    return count_cards() > 0 or Path("/dev/kfd").exists()  # NVIDIA's, AMD's


def check_process(device: Device, opened_by: int) -> None:
    """See that a card is used by the process that opened the model, and not by one forked off it.

    Args:
        device: Of the model.
        opened_by: Id of the process that opened it.

    Raises:
        OptionError: It is another process, which cannot use what is on the card.
    """
    if device != CPU and os.getpid() != opened_by:
        raise OptionError(
            f"a process that was forked cannot use a model that its parent opened on {device}: "
            'start it by multiprocessing.get_context("spawn") and open the model there'
        )


def count_cards() -> int:
    """CUDA devices that the NVIDIA driver shows; for a runtime that does not count them itself."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def other_index(runtime: str, count: int) -> str:
    """What to say of an index that is too high."""
    listed = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
    return f"{runtime} finds {listed} and no more; use {'that' if count == 1 else 'one of them'}"
