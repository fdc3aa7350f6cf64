from __future__ import annotations

from torch import Tensor, nn


class SquaresLoss(nn.Module):
    """Mean square of what the probability is off by, in steps of ``scale``."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return ((logits.float().sigmoid() - mask) / self.scale).square().mean()
