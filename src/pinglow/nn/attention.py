"""Channel attention and spatial attention, free (CBAM, MSHNet) or Gaussian × pinwheel (the paper).

Sources: CBAM, https://arxiv.org/abs/1807.06521; MSHNet, https://arxiv.org/abs/2403.19366; the
Gaussian × pinwheel kernel, https://arxiv.org/abs/2604.09991.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pinglow.nn.conv import FoldedBank
from pinglow.nn.kernel import GaussianPinwheelKernel, Orientation


class ChannelAttention(nn.Module):
    """CBAM's channel attention: scale channels by sigmoid(mlp(mean) + mlp(max)).

    Args:
        channels: C.
        ratio: The mlp narrows to C // ratio channels, at least 1.
    """

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // ratio)
        self.narrow = nn.Conv2d(channels, hidden, 1, bias=False)
        self.widen = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        # Not amax: its backward pass divides among ties, five times as slow on a CPU.
        mean, peak = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)  # (N, C, 1, 1)
        hidden = F.relu(self.narrow(mean)) + F.relu(self.narrow(peak))  # widen is linear: one call
        return x * torch.sigmoid(self.widen(hidden))


class FreeSpatialAttention(nn.Module):
    """CBAM's spatial attention: a free kernel over channel mean and channel maximum.

    Args:
        kernel_size: Taps a side, odd.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(pooled))


class GaussianPinwheelAttention(nn.Module):
    """Spatial attention with one normalised Gaussian × pinwheel kernel instead of free taps.

    The kernel is the same for the channel mean and the channel maximum, so their sum is convolved
    once; 98 weights become 1 to 3.

    Args:
        kernel_size: Taps a side, odd.
        orientation: See `GaussianPinwheelKernel`.
        arms: Arms of the mask, or bars of the bank.
        clip: Clip the mask to a disc of radius k // 2.
        sigma: Start of sigma, in pixels, above 0.25.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        kernel_size: int = 7,
        orientation: Orientation = "learned",
        arms: int = 4,
        clip: bool = False,
        sigma: float = 1.5,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; use an odd size")
        self.kernel = GaussianPinwheelKernel(
            (kernel_size, kernel_size), orientation, arms, clip, sigma
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return _attend(x, self._respond)

    def fold(self) -> nn.Conv2d:
        """The attention's convolution, (N, 1, H, W) to (N, 1, H, W), as a plain nn.Conv2d.

        Raises:
            ValueError: The orientation is "max" or "steered"; `fold_kernels` handles these.
        """
        self.kernel.require_single()
        return self._plain_conv()

    def to_plain(self) -> nn.Module:
        """The same attention with plain convolutions only, for any orientation."""
        conv = self._plain_conv()
        bank = self.kernel.bank_size > 1
        return FoldedAttention(FoldedBank(conv, self.kernel, None) if bank else conv)

    def _weight(self) -> Tensor:
        """(bank, 1, k, k), each kernel with sum 1."""
        kernel: Tensor = self.kernel()  # (bank, 1, k, k)
        return kernel / kernel.sum(dim=(2, 3), keepdim=True)

    def _respond(self, pooled: Tensor) -> Tensor:
        weight = self._weight()
        return self.kernel.reduce(F.conv2d(pooled, weight, padding=weight.shape[-1] // 2))

    def _plain_conv(self) -> nn.Conv2d:
        weight = self._weight().detach()
        size = weight.shape[-1]
        conv = nn.Conv2d(1, len(weight), size, padding=size // 2, bias=False).to(weight)
        with torch.no_grad():
            conv.weight.copy_(weight)
        return conv.train(self.training)


class FoldedAttention(nn.Module):
    """GaussianPinwheelAttention after folding: any (N, 1, H, W) response to mean + maximum."""

    def __init__(self, response: nn.Module) -> None:
        super().__init__()
        self.response = response

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return _attend(x, self.response)


def _attend(x: Tensor, respond: Callable[[Tensor], Tensor]) -> Tensor:
    pooled = x.mean(dim=1, keepdim=True) + x.amax(dim=1, keepdim=True)  # (N, 1, H, W)
    return x * torch.sigmoid(respond(pooled))


ATTENTIONS: Final[dict[str, Callable[[], nn.Module]]] = {
    "free": FreeSpatialAttention,
    "gaussian": partial(GaussianPinwheelAttention, orientation="none"),
    # The two forms in working code of the paper's family: four arms fixed, one bar learned.
    "fixed": partial(GaussianPinwheelAttention, orientation="fixed", arms=4),
    "learned": partial(GaussianPinwheelAttention, orientation="learned", arms=1, clip=True),
    "learned4": partial(GaussianPinwheelAttention, orientation="learned", arms=4),
    "max": partial(GaussianPinwheelAttention, orientation="max", arms=4),
    "steered": partial(GaussianPinwheelAttention, orientation="steered", arms=4),
}
"""Named spatial attentions, as recipes and weights name them."""
