from __future__ import annotations

import torch
from torch import Tensor, nn


class TwoBranches(nn.Module):
    """A convolution of 3 x 3 and one of 1 x 1, which are one convolution in use."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.point = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(x) + self.point(x)

    def reparameterize(self) -> nn.Module:
        conv = nn.Conv2d(self.wide.in_channels, self.wide.out_channels, 3, padding=1)
        with torch.no_grad():
            conv.weight.copy_(self.wide.weight)
            conv.weight[:, :, 1:2, 1:2] += self.point.weight
            conv.bias.copy_(self.wide.bias)
        return conv


class DotsNet(nn.Module):
    """Two layers, which map (N, 1, H, W) to logits of the same shape."""

    kind = "pixels"

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = TwoBranches(1, width)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())
