"""Overlap losses: soft IoU and Dice.

Sources: soft IoU, Rahman and Wang 2016 (https://doi.org/10.1007/978-3-319-50835-1_22); Dice,
V-Net, https://arxiv.org/abs/1606.04797 (there with squares in the denominator, here with areas).
The positive ``smooth`` in both is what keeps a gradient on target-free images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Areas(NamedTuple):
    """Per-image sums over pixels, each (N,) float32 (float64 if the logits are)."""

    predicted: Tensor
    true: Tensor
    shared: Tensor


def image_areas(logits: Tensor, mask: Tensor) -> tuple[Areas, Tensor]:
    """Areas A = sum p, T = sum y, I = sum p·y per image, and p itself.

    Computed in at least float32, also inside autocast: half precision loses single pixels.

    Args:
        logits: (N, 1, H, W).
        mask: (N, 1, H, W), 0 or 1.

    Raises:
        ValueError: The shapes differ.
    """
    if logits.shape != mask.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and mask {tuple(mask.shape)} need one shape"
        )
    exact = torch.promote_types(logits.dtype, torch.float32)
    probability = torch.sigmoid(logits.to(exact))
    mask = mask.to(exact)
    areas = Areas(
        predicted=probability.flatten(1).sum(1),
        true=mask.flatten(1).sum(1),
        shared=(probability * mask).flatten(1).sum(1),
    )
    return areas, probability


def soft_iou(areas: Areas, smooth: float) -> Tensor:
    """(I + s) / (A + T - I + s) per image, in (0, 1]; s > 0 defines it on empty images."""
    union = areas.predicted + areas.true - areas.shared
    return (areas.shared + smooth) / (union + smooth)


def positive_smooth(smooth: float) -> float:
    """Check s, in pixels.

    Raises:
        ValueError: It is not finite and above 0.
    """
    if not 0 < smooth < math.inf:
        raise ValueError(
            f"smooth is {smooth}; it must be finite and above 0, or empty images have no loss"
        )
    return smooth


class SoftIoULoss(nn.Module):
    """1 - mean soft IoU.

    Args:
        smooth: s, in pixels, above 0.

    Raises:
        ValueError: ``smooth`` is not positive.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = positive_smooth(smooth)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits and 0/1 mask (N, 1, H, W) to a scalar in [0, 1).

        Raises:
            ValueError: The shapes differ.
        """
        areas, _ = image_areas(logits, mask)
        return 1 - soft_iou(areas, self.smooth).mean()


class DiceLoss(nn.Module):
    """1 - mean (2 I + s) / (A + T + s).

    Args:
        smooth: s, in pixels, above 0.

    Raises:
        ValueError: ``smooth`` is not positive.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = positive_smooth(smooth)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits and 0/1 mask (N, 1, H, W) to a scalar in [0, 1).

        Raises:
            ValueError: The shapes differ.
        """
        areas, _ = image_areas(logits, mask)
        dice = (2 * areas.shared + self.smooth) / (areas.predicted + areas.true + self.smooth)
        return 1 - dice.mean()
