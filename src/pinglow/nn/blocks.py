"""The residual block of the U-Net (MSHNet, https://arxiv.org/abs/2403.19366)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pinglow.nn.attention import ATTENTIONS, ChannelAttention


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, channel attention, spatial attention, skip, ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; another number puts a 1 × 1 conv-BN on the skip.
        attention: Name of the spatial attention, a key of ``ATTENTIONS``.

    Raises:
        KeyError: The attention is unknown.
    """

    def __init__(self, in_channels: int, out_channels: int, attention: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.channel_attention = ChannelAttention(out_channels)
        self.spatial_attention = ATTENTIONS[attention]()
        self.skip = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W)."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        y = self.spatial_attention(self.channel_attention(y))
        return F.relu(y + self.skip(x), inplace=True)
