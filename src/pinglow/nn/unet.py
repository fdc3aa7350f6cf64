"""PinwheelUNet: the paper's network, the MSHNet baseline and the fast form, in one class.

Sources: MSHNet, https://arxiv.org/abs/2403.19366 (U-Net, multi-scale head); arXiv 2604.09991 (its
spatial attention). The fast form (``patch=2``) and the heads' start values are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pinglow.nn.attention import ATTENTIONS, draw_kernels
from pinglow.nn.blocks import ResidualBlock
from pinglow.nn.conv import CONVOLUTIONS

_PRIOR: Final = 0.01  # start probability of a pixel; higher, and empty frames have no gradient
_SMALLEST_SIDE: Final = 32


class PinwheelUNet(nn.Module):
    """U-Net of residual blocks with channel and spatial attention and a multi-scale head.

    Args:
        in_channels: Channels of the input.
        widths: Channels per level, from the finest to the bottleneck.
        depths: Residual blocks per level; the decoder mirrors them.
        attention: Name of the spatial attention, a key of ``pinglow.nn.ATTENTIONS``.
        patch: Space-to-depth factor at the input, undone by pixel-shuffle at the heads; 2 halves
            the resolution that the network works at.
        convolution: Name of the convolutions of the finest levels, a key of
            ``pinglow.nn.CONVOLUTIONS``; those of the other levels are plain.
        shaped_levels: How many levels have that convolution.

    Raises:
        ValueError: The lists do not fit together, or a name is unknown.
    """

    def __init__(
        self,
        in_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        depths: Sequence[int] = (1, 2, 2, 2, 2),
        attention: str = "learned",
        patch: int = 1,
        convolution: str = "plain",
        shaped_levels: int = 2,
    ) -> None:
        super().__init__()
        if len(widths) != len(depths) or len(widths) < 2:
            raise ValueError("widths and depths need the same length, at least 2")
        if attention not in ATTENTIONS:
            raise ValueError(f"attention is {attention!r}; use one of {sorted(ATTENTIONS)}")
        if convolution not in CONVOLUTIONS:
            raise ValueError(f"convolution is {convolution!r}; use one of {sorted(CONVOLUTIONS)}")
        if patch < 1:
            raise ValueError(f"patch is {patch}; use at least 1")
        self.patch = patch
        levels = len(widths) - 1
        self.multiple = patch * 2**levels
        self.stem = nn.Conv2d(in_channels * patch**2, widths[0], 1)
        kinds = [convolution if level < shaped_levels else "plain" for level in range(levels + 1)]
        self.encoder = nn.ModuleList(
            _stage(widths[max(level - 1, 0)], widths[level], depths[level], attention, kinds[level])
            for level in range(levels + 1)
        )
        self.decoder = nn.ModuleList(
            _stage(
                *(widths[level] + widths[level + 1], widths[level], depths[level]),
                *(attention, kinds[level]),
            )
            for level in range(levels)
        )
        self.heads = nn.ModuleList(nn.Conv2d(widths[level], patch**2, 1) for level in range(levels))
        self.fuse = nn.Conv2d(levels * patch**2, patch**2, 3, padding=1)
        self._start_heads()

    @classmethod
    def paper(cls, in_channels: int = 1, attention: str = "learned") -> Self:
        """The paper's network: widths 16 to 256 at full resolution."""
        return cls(in_channels, attention=attention)

    @classmethod
    def mshnet(cls, in_channels: int = 1) -> Self:
        """The MSHNet baseline: the same with a free attention kernel."""
        return cls(in_channels, attention="free")

    @classmethod
    def fast(cls, in_channels: int = 1, attention: str = "learned") -> Self:
        """The fast form (ours): half resolution, widths 16 to 128, one block per level."""
        return cls(in_channels, (16, 32, 64, 128), (1, 1, 1, 1), attention, patch=2)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, 1, H, W).

        Raises:
            ValueError: A side is shorter than 32.
        """
        fused, _ = self._heads_of(x)
        return fused[..., : x.shape[-2], : x.shape[-1]]

    def forward_pyramid(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to the fused logits and every level's own.

        Returns:
            Logits (N, 1, H, W), then for each level l of the decoder, finest first,
            (N, 1, ceil(H / 2^l), ceil(W / 2^l)).

        Raises:
            ValueError: A side is shorter than 32.
        """
        height, width = x.shape[-2:]
        fused, sides = self._heads_of(x)
        pyramid = [fused[..., :height, :width]]
        for level, side in enumerate(sides):
            logits = F.pixel_shuffle(side, self.patch)
            pyramid.append(logits[..., : -(-height // 2**level), : -(-width // 2**level)])
        return pyramid

    def _heads_of(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Fused logits of the padded size and the heads' outputs (N, patch², h_l, w_l)."""
        x = self._pad(x)
        x = self.stem(F.pixel_unshuffle(x, self.patch))
        stages = [*self.encoder, *reversed(self.decoder)]  # in the order in which they run
        kernels = iter(draw_kernels([block.spatial_attention for each in stages for block in each]))
        skips: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            x = _run(stage, F.max_pool2d(x, 2) if level else x, kernels)
            skips.append(x)
        x = skips.pop()
        features: list[Tensor] = []
        for stage, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            x = _run(stage, torch.cat([skip, _enlarge(x, 2)], dim=1), kernels)
            features.insert(0, x)
        sides = [head(feature) for head, feature in zip(self.heads, features, strict=True)]
        enlarged = [_enlarge(side, 2**level) for level, side in enumerate(sides)]
        fused = self.fuse(torch.cat(enlarged, dim=1))
        return F.pixel_shuffle(fused, self.patch), sides

    def _pad(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < _SMALLEST_SIDE:
            raise ValueError(
                f"the image is {width} x {height}; both sides need at least {_SMALLEST_SIDE} pixels"
            )
        down, right = -height % self.multiple, -width % self.multiple
        # Reflection adds less than a side's own length; deep networks on small views ask for more.
        # Decided, and done, in a way that is the same for all sizes where it can be: for export.
        fits = self.multiple <= _SMALLEST_SIDE or (down < height and right < width)
        return F.pad(x, (0, right, 0, down), mode="reflect" if fits else "replicate")

    def _start_heads(self) -> None:
        """Start every pixel at the prior, and the fused output as the mean of the levels."""
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            nn.init.constant_(head.bias, math.log(_PRIOR / (1 - _PRIOR)))
        assert self.fuse.bias is not None
        nn.init.zeros_(self.fuse.bias)
        nn.init.zeros_(self.fuse.weight)
        levels, parts = len(self.heads), self.patch**2
        with torch.no_grad():
            for part in range(parts):
                self.fuse.weight[part, part::parts, 1, 1] = 1 / levels


def _stage(
    in_channels: int, out_channels: int, depth: int, attention: str, convolution: str
) -> nn.Sequential:
    inputs = [in_channels] + [out_channels] * (depth - 1)
    return nn.Sequential(
        *(ResidualBlock(channels, out_channels, attention, convolution) for channels in inputs)
    )


def _run(stage: nn.Module, x: Tensor, kernels: Iterator[Tensor | None]) -> Tensor:
    """A stage's blocks, each with the next of the kernels."""
    for block in stage.children():
        x = block(x, next(kernels))
    return x


def _enlarge(x: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
