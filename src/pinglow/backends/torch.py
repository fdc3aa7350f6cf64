"""A network in PyTorch, on any of its devices."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from pinglow.backends.base import CPU, Backend
from pinglow.nn import GatedNetwork, fold_kernels, fold_norms


class TorchBackend(Backend):
    """Runs a network as it is and where it is, which may change while it is trained.

    Args:
        network: Maps (N, 1, H, W) to logits of the same shape; in eval mode.
        precision: One of `PRECISIONS`; for a card.
    """

    name = "torch"

    def __init__(self, network: nn.Module, precision: str = "float32") -> None:
        self._network = network
        self._precision = precision

    @classmethod
    def fastest(
        cls, network: nn.Module, device: torch.device = CPU, precision: str = "float32"
    ) -> Self:
        """Run a network in the form that is fastest: folded, channels last."""
        folded = fold_norms(fold_kernels(network))
        return cls(folded.to(device).to(memory_format=torch.channels_last), precision)

    @property
    def device(self) -> torch.device:
        """The network's."""
        weights = next(self._network.parameters(), None)
        return CPU if weights is None else weights.device

    def run(self, images: Tensor, gates: Tensor | None) -> Tensor:
        """See `Backend`."""
        batch = images.contiguous(memory_format=torch.channels_last)
        with tf32(self._precision == "tf32"):
            logits: Tensor = self._network(batch) if gates is None else self._gated(batch, gates)[0]
        return torch.sigmoid(logits.float()).contiguous()

    def run_gates(self, images: Tensor) -> Tensor:
        """See `Backend`."""
        with tf32(self._precision == "tf32"):
            gates: Tensor = self._gated(images)[1]
        return gates.float()

    @functools.cached_property
    def _gated(self) -> GatedNetwork:
        return GatedNetwork(self._network).eval()


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let a card's convolutions multiply in TensorFloat-32, or not; PyTorch's default is to."""
    cudnn: Any = torch.backends.cudnn
    owner, name, value = cudnn, "allow_tf32", allowed  # type: tuple[Any, str, bool | str]
    if hasattr(cudnn, "conv"):  # since PyTorch 2.9
        owner, name, value = cudnn.conv, "fp32_precision", "tf32" if allowed else "ieee"
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
