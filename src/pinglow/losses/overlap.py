"""Overlap losses: soft IoU, Dice and focal Tversky.

Sources: soft IoU, Rahman and Wang 2016 (https://doi.org/10.1007/978-3-319-50835-1_22); Dice,
V-Net, https://arxiv.org/abs/1606.04797 (there with squares in the denominator, here with areas);
focal Tversky, https://arxiv.org/abs/1810.07842.
The positive ``smooth`` in all is what keeps a gradient on target-free images.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

_LEAST: Final = 1e-12


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


class TverskyLoss(nn.Module):
    """Mean of (1 - TI)^gamma with TI = (I + s) / (I + alpha · (A - I) + beta · (T - I) + s).

    At alpha = beta = 1 and gamma = 1 it is the soft IoU, at 1/2 the Dice loss with 2 s.

    Args:
        alpha: Weight of false positive pixels, above 0.
        beta: Weight of missed pixels, above 0; larger than alpha, missed targets cost more.
        gamma: Below 1, poor images have less slope than good ones, above 1 more; above 0.
        smooth: s, in pixels, above 0.

    Raises:
        ValueError: A number is not positive.
    """

    def __init__(
        self, alpha: float = 0.3, beta: float = 0.7, gamma: float = 1.0, smooth: float = 1.0
    ) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be finite and above 0")
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.smooth = positive_smooth(smooth)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits and 0/1 mask (N, 1, H, W) to a scalar in [0, 1).

        Raises:
            ValueError: The shapes differ.
        """
        areas, _ = image_areas(logits, mask)
        wrong = self.alpha * (areas.predicted - areas.shared)
        missed = self.beta * (areas.true - areas.shared)
        # 1 - TI, without a difference of nearly equal numbers: at 0 its power has no gradient.
        loss = (wrong + missed) / (areas.shared + wrong + missed + self.smooth)
        return loss.clamp(min=_LEAST).pow(self.gamma).mean()
