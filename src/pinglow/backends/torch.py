"""A network in PyTorch, on any of its devices. PyTorch is loaded where it is first needed."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from pinglow.backends.base import Backend
from pinglow.backends.device import CPU, Device, check_process, other_index
from pinglow.extras import how_to_install, import_extra, is_installed
from pinglow.structures import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pinglow.nn import GatedNetwork


class TorchBackend(Backend):
    """Runs a network as it is and where it is, which may change while it is trained.

    Args:
        network: Maps (N, 1, H, W) to logits of the same shape; in eval mode.
        precision: One of `PRECISIONS`; for a card.
    """

    name = "torch"
    suffixes = (".safetensors",)

    def __init__(self, network: nn.Module, precision: str = "float32") -> None:
        self._network = network
        self._precision = precision
        self._process = os.getpid()
        self._lock = threading.Lock()

    @classmethod
    def why_not(cls, device: Device) -> str | None:
        """See `Backend`."""
        if not is_installed("torch"):
            return f"PyTorch is not installed; {how_to_install('train')}"
        return None if device == CPU else _why_not_card(device)

    @classmethod
    def load(cls, model: Path | bytes, source: str, device: Device, precision: str) -> Self:
        """See `Backend`."""
        import_extra("torch", "train", "the backend torch")
        from pinglow.models.weights import load_network

        assert isinstance(model, Path)
        return cls.fastest(load_network(model)[0], device, precision)

    @classmethod
    def fastest(
        cls, network: nn.Module, device: Device | torch.device = CPU, precision: str = "float32"
    ) -> Self:
        """Run a network in the form that is fastest: folded, channels last."""
        import torch

        from pinglow.nn import fold_kernels, fold_norms

        folded = fold_norms(fold_kernels(network)).to(str(device))
        return cls(folded.to(memory_format=torch.channels_last), precision)

    @property
    def device(self) -> Device:
        """The network's."""
        weights = next(self._network.parameters(), None)
        return CPU if weights is None else Device(weights.device.type, weights.device.index or 0)

    def __call__(
        self,
        images: FloatArray,
        gates: FloatArray | None = None,
        size: tuple[int, int] | None = None,
    ) -> FloatArray:
        """See `Backend`; a card is sent the small images, and enlarges them itself."""
        import torch

        with torch.inference_mode():
            batch = self._place(images)
            found = self.compute(batch, None if gates is None else self._place(gates), size)
            return np.asarray(found.cpu().numpy())

    def run(self, images: FloatArray, gates: FloatArray | None) -> FloatArray:
        """See `Backend`."""
        return self(images, gates)

    def gates(self, images: FloatArray) -> FloatArray:
        """See `Backend`."""
        import torch

        with torch.inference_mode(), self._multiplying():
            gates: Tensor = self._run_gated(self._place(images), None)[1]
            return np.asarray(gates.float().cpu().numpy())

    def compute(self, images: Tensor, gates: Tensor | None, size: Sequence[int] | None) -> Tensor:
        """What `__call__` does, with tensors on the network's device."""
        import torch

        batch = images if size is None else _enlarge(images, size)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with self._multiplying():
            if gates is None:
                logits: Tensor = self._network(batch)
            else:
                logits = self._run_gated(batch, gates)[0]
        return _bring_back(torch.sigmoid(logits.float()).contiguous(), images.shape[-2:])

    def _multiplying(self) -> AbstractContextManager[None]:
        return tf32(self.device, self._precision == "tf32")

    def _place(self, values: FloatArray) -> Tensor:
        import torch

        check_process(self.device, self._process)
        return torch.from_numpy(values).to(str(self.device))

    def _run_gated(self, images: Tensor, gates: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits and gates; one thread at a time, because gates are set in the network itself."""
        with self._lock:
            found: tuple[Tensor, Tensor] = self._gated(images, gates)
            return found

    @functools.cached_property
    def _gated(self) -> GatedNetwork:
        from pinglow.nn import GatedNetwork

        return GatedNetwork(self._network).eval()


_PRECISION: Final = threading.RLock()
"""Held by the thread that has set how a card multiplies, which holds for all threads."""


@contextmanager
def tf32(device: Device, allowed: bool) -> Iterator[None]:
    """Let a card's convolutions multiply in TensorFloat-32, or not; PyTorch's default is to."""
    import torch

    if device == CPU:
        yield
        return
    cudnn: Any = torch.backends.cudnn
    with _PRECISION:
        before = cudnn.conv.fp32_precision
        cudnn.conv.fp32_precision = "tf32" if allowed else "ieee"
        try:
            yield
        finally:
            cudnn.conv.fp32_precision = before


def _enlarge(images: Tensor, size: Sequence[int]) -> Tensor:
    """`pinglow.preprocess.resample` of tensors, to larger sizes."""
    from torch.nn import functional as F

    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, list(size), mode="bilinear")


def _bring_back(probability: Tensor, size: Sequence[int]) -> Tensor:
    """`pinglow.preprocess.bring_back` of tensors."""
    from torch.nn import functional as F

    if tuple(probability.shape[-2:]) == tuple(size):
        return probability
    back = F.interpolate(probability, list(size), mode="bilinear", antialias=True)
    return back.clamp(0, 1)


def _why_not_card(device: Device) -> str | None:
    import torch

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
    if device.index >= count:
        return other_index("PyTorch", count)
    try:
        _compute_on(device)
    except RuntimeError as error:  # a card too old for this PyTorch, or taken by others
        fault = str(error).strip().splitlines()[0][:150].rstrip(".")
        return f"PyTorch cannot compute on it ({fault}); free it or use another one"
    return None


def _compute_on(device: Device) -> None:
    """See that a kernel runs: that a card is listed does not say so."""
    import torch

    torch.ones(1, device=str(device)).add_(1).cpu()
