"""The residual block of the U-Net (MSHNet, https://arxiv.org/abs/2403.19366)."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pinglow.nn.attention import ATTENTIONS, ChannelAttention
from pinglow.nn.conv import CONVOLUTIONS


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, channel attention, spatial attention, skip, ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; another number puts a 1 × 1 conv-BN on the skip.
        attention: Name of the spatial attention, a key of ``ATTENTIONS``.
        convolution: Name of the two convolutions, a key of ``CONVOLUTIONS``.

    Raises:
        KeyError: A name is unknown.
    """

    def __init__(
        self, in_channels: int, out_channels: int, attention: str, convolution: str = "plain"
    ) -> None:
        super().__init__()
        convolve = CONVOLUTIONS[convolution]
        self.conv1 = convolve(in_channels, out_channels)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = convolve(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.channel_attention = ChannelAttention(out_channels)
        self.spatial_attention = ATTENTIONS[attention]()
        self.skip: nn.Module = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels)
            )
        )

    def forward(self, x: Tensor, kernel: Tensor | None = None) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W).

        ``kernel`` is the spatial attention's, if it was drawn beforehand; see `draw_kernels`.
        """
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        y = self.channel_attention(y)
        y = self.spatial_attention(y) if kernel is None else self.spatial_attention(y, kernel)
        return F.relu(y + self.skip(x), inplace=True)

    def fold_norms(self) -> None:
        """Make batch normalization a part of the plain convolutions before it, in eval mode."""
        for conv, norm in (("conv1", "norm1"), ("conv2", "norm2")):
            setattr(self, conv, fuse_conv_bn_eval(getattr(self, conv), getattr(self, norm)))
            setattr(self, norm, nn.Identity())
        if isinstance(self.skip, nn.Sequential):
            self.skip = fuse_conv_bn_eval(*self.skip)


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy of a network in which batch normalization is part of the convolutions before it.

    A module says how by a method ``fold_norms()``, which changes it in place.

    Args:
        model: In eval mode; with plain convolutions in its residual blocks, as `fold_kernels`
            leaves them. Outputs are equal to rounding.
    """
    model = copy.deepcopy(model)
    for block in model.modules():
        fold: Callable[[], None] | None = getattr(block, "fold_norms", None)
        if fold is not None:
            fold()
    return model
