"""Which device computes: one rule for prediction, evaluation, benchmarks and training."""

from __future__ import annotations

import ctypes
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Final

import torch

from pinglow.backends.base import CPU
from pinglow.errors import MissingExtraError, OptionError
from pinglow.extras import import_extra, is_installed

_CARD: Final = re.compile(r"cuda(?::(\d+))?")


def choose_device(name: str = "auto", runtimes: Sequence[str] = ("torch",)) -> torch.device:
    """The device that a name stands for.

    Args:
        name: "cpu", "cuda" (the first card), "cuda:N" (the card of that index), or "auto": the
            first card if one of the runtimes can use it, else the CPU.
        runtimes: What may compute: torch, onnxruntime, openvino. If none of them can use the card,
            PyTorch's reason is told, or the last one's.

    Raises:
        OptionError: The name is unknown, or none of the runtimes can use that card.
    """
    if name == "cpu":
        return CPU
    if name == "auto":
        return _first_card(runtimes)
    card = _CARD.fullmatch(name)
    if card is None:
        raise OptionError(f"device {name!r} is unknown: use cpu, cuda, cuda:N or auto")
    index = int(card[1] or 0)
    reasons = {}
    for runtime in runtimes:
        reason = why_not(runtime, index)
        if reason is None:
            return torch.device("cuda", index)
        reasons[runtime] = reason
    told = reasons.get("torch", reasons[runtimes[-1]])
    raise OptionError(f"device {name!r} cannot be used: {told}, or use cpu")


def _first_card(runtimes: Sequence[str]) -> torch.device:
    usable = any(why_not(runtime, 0) is None for runtime in runtimes)
    return torch.device("cuda", 0) if usable else CPU


def why_not(runtime: str, index: int) -> str | None:
    """Why a runtime cannot compute on a card, and what to do; None: it can."""
    return _REASONS[runtime](index)


def describe_device(device: torch.device) -> str:
    """A device as people call it: cpu, or cuda:0 with the card's name if PyTorch knows it."""
    if device.type == "cuda" and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _why_not_torch(index: int) -> str | None:
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            "the installed PyTorch is built for the CPU only; install one with CUDA "
            "(https://pytorch.org/get-started/locally)"
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count and said:  # a driver that is too old, for one
        fault = str(said[0].message).removeprefix("CUDA initialization: ").splitlines()[0]
        return f"PyTorch cannot use it ({fault.split('. ')[0].rstrip('.')}); update the driver"
    if not count:
        return "PyTorch finds no CUDA device; see whether nvidia-smi lists one"
    if index >= count:
        return _other_index("PyTorch", count)
    try:
        _compute_on(torch.device("cuda", index))
    except RuntimeError as error:  # a card too old for this PyTorch, or taken by others
        fault = str(error).strip().splitlines()[0][:150].rstrip(".")
        return f"PyTorch cannot compute on it ({fault}); free it or use another one"
    return None


def _why_not_onnxruntime(index: int) -> str | None:
    if not is_installed("onnxruntime"):
        return "ONNX Runtime is not installed; pip install 'pinglow[gpu]'"
    count = _count_cards()
    if not count:
        return "the NVIDIA driver shows no CUDA device; see whether nvidia-smi lists one"
    try:
        runtime = import_extra("onnxruntime", "gpu", "the backend onnxruntime")
    except MissingExtraError as error:
        return str(error)
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        return (
            "the installed ONNX Runtime is built for the CPU only; pip uninstall onnxruntime, "
            "then pip install 'pinglow[gpu]'"
        )
    return _other_index("ONNX Runtime", count) if index >= count else None


def _why_not_openvino(index: int) -> str | None:
    return "OpenVINO computes on the CPU only; use the backend torch or onnxruntime"


_REASONS: Final[dict[str, Callable[[int], str | None]]] = {
    "torch": _why_not_torch,
    "onnxruntime": _why_not_onnxruntime,
    "openvino": _why_not_openvino,
}


def _other_index(runtime: str, count: int) -> str:
    listed = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
    return f"{runtime} finds {listed} and no more; use {'that' if count == 1 else 'one of them'}"


def _compute_on(device: torch.device) -> None:
    """See that a kernel runs: that a card is listed does not say so."""
    torch.ones(1, device=device).add_(1).cpu()


def _count_cards() -> int:
    """CUDA devices that the NVIDIA driver shows; for a runtime that does not count them itself."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
