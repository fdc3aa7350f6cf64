"""Channel attention and spatial attention, free (CBAM, MSHNet) or Gaussian × pinwheel (the paper).

Sources: CBAM, https://arxiv.org/abs/1807.06521; MSHNet, https://arxiv.org/abs/2403.19366; the
Gaussian × pinwheel kernel, https://arxiv.org/abs/2604.09991.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pinglow.nn.conv import FoldedBank
from pinglow.nn.kernel import GaussianPinwheelKernel, Orientation, draw_learned


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
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """What the channels of (N, C, H, W) are scaled by: (N, C, 1, 1) in (0, 1)."""
        # Not amax: its backward pass divides among ties, five times as slow on a CPU.
        mean, peak = F.adaptive_avg_pool2d(x, 1), _largest(x)  # (N, C, 1, 1)
        hidden = F.relu(self.narrow(mean)) + F.relu(self.narrow(peak))  # widen is linear: one call
        return torch.sigmoid(self.widen(hidden))


def _largest(x: Tensor) -> Tensor:
    """The largest value of each channel: (N, C, H, W) to (N, C, 1, 1)."""
    if x.is_cuda:  # where the pooling below has one thread search a whole channel
        return x.flatten(2).max(2).values[..., None, None]
    return F.adaptive_max_pool2d(x, 1)


def blocked_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution of few maps into few, in blocks that fill a processor's vectors.

    A convolution with a single output channel leaves most lanes of a CPU's vectors empty. Here
    blocks of 4 x 4 pixels become channels, so that the k x k kernel becomes a 3 x 3 kernel over
    blocks: three times the multiplications, several times as fast. The result is that of
    ``F.conv2d(x, weight, padding=k // 2)`` to rounding. Source: ours.

    Args:
        x: (N, C, H, W), H and W multiples of 4.
        weight: (O, C, k, k), k odd and at most 9.

    Returns:
        (N, O, H, W).
    """
    outputs, inputs, size, _ = weight.shape
    taps = F.pad(weight.flatten(2), (0, 1))  # (O, C, k² + 1): the last one is 0
    blocks = taps[:, :, _block_index(size).to(weight.device)]  # (O, C, 16, 16, 3, 3)
    blocks = blocks.transpose(1, 2).reshape(outputs * 16, inputs * 16, 3, 3)
    return F.pixel_shuffle(F.conv2d(F.pixel_unshuffle(x, 4), blocks, padding=1), 4)


@functools.cache
def _block_index(size: int) -> Tensor:
    """Tap of a (size, size) kernel between each pixel of a block and of its 3 x 3 neighbors.

    Returns:
        (16 to, 16 from, 3, 3) int64; size² where the kernel does not reach.
    """
    pixel, block = torch.arange(4), torch.arange(3)
    # Distance along one axis: (4 to, 4 from, 3)
    step = 4 * (block - 1) + pixel[:, None] - pixel[:, None, None] + size // 2
    y = step.reshape(4, 1, 4, 1, 3, 1)
    x = step.reshape(1, 4, 1, 4, 1, 3)
    inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
    return torch.where(inside, y * size + x, size * size).reshape(16, 16, 3, 3)


def _conv(x: Tensor, weight: Tensor, training: bool) -> Tensor:
    # Only in training: networks in use are folded, and plain convolutions are what exports know.
    fits = x.shape[-2] % 4 == 0 and x.shape[-1] % 4 == 0 and weight.shape[-1] <= 9
    if training and fits and x.device.type == "cpu":
        return blocked_conv2d(x, weight)
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


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
        return x * torch.sigmoid(_conv(pooled, self.conv.weight, self.training))


class GaussianPinwheelAttention(nn.Module):
    """Spatial attention with one normalized Gaussian × pinwheel kernel instead of free taps.

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

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to the same shape; ``weight`` is what `draw_kernels` gives for it."""
        weight = self._weight() if weight is None else weight

        def respond(pooled: Tensor) -> Tensor:
            return self.kernel.reduce(_conv(pooled, weight, self.training))

        return _attend(x, respond)

    def reparameterize(self) -> nn.Module:
        """The same attention with plain convolutions only, for any orientation."""
        weight = self._weight().detach()
        size = weight.shape[-1]
        conv = nn.Conv2d(1, len(weight), size, padding=size // 2, bias=False).to(weight)
        with torch.no_grad():
            conv.weight.copy_(weight)
        bank = self.kernel.bank_size > 1
        return FoldedAttention(FoldedBank(conv, self.kernel, None) if bank else conv)

    def _weight(self) -> Tensor:
        """(bank, 1, k, k), each kernel with sum 1."""
        kernel: Tensor = self.kernel()
        return kernel / kernel.sum(dim=(2, 3), keepdim=True)


def draw_kernels(attentions: Sequence[nn.Module]) -> list[Tensor | None]:
    """Kernels of the attentions of a network, those of the paper's form all in one batch. Ours.

    A network has a score of them, of a few dozen numbers each: drawn one by one they are half of
    all operations of a training step.

    Returns:
        For each attention its kernel (1, 1, k, k) with sum 1; None: it draws its own.
    """
    drawn: list[Tensor | None] = [None] * len(attentions)
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, each in enumerate(attentions):
        if isinstance(each, GaussianPinwheelAttention):
            kernel = each.kernel
            if kernel.orientation == "learned":
                alike.setdefault((kernel.kernel_size, kernel.arms, kernel.clip), []).append(place)
    for places in alike.values():
        weights = draw_learned([attentions[place].kernel for place in places])  # type: ignore[misc]
        weights = weights / weights.sum(dim=(1, 2), keepdim=True)
        for place, weight in zip(places, weights.unbind(), strict=True):
            drawn[place] = weight[None, None]
    return drawn


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
    "gaussian": functools.partial(GaussianPinwheelAttention, orientation="none"),
    # The two forms in working code of the paper's family: four arms fixed, one bar learned.
    "fixed": functools.partial(GaussianPinwheelAttention, orientation="fixed", arms=4),
    "learned": functools.partial(
        GaussianPinwheelAttention, orientation="learned", arms=1, clip=True
    ),
    "max": functools.partial(GaussianPinwheelAttention, orientation="max", arms=4),
    "steered": functools.partial(GaussianPinwheelAttention, orientation="steered", arms=4),
}
"""Named spatial attentions, as recipes and weights name them."""
