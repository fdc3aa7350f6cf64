"""The scale loss, a family of weights on the soft IoU, and the SD loss built on it.

Sources: arXiv 2604.09991 (diff, and the family), MSHNet https://arxiv.org/abs/2403.19366 (variance,
"SLS"), PConv https://arxiv.org/abs/2412.16986 (SD). Formulas are a reconstruction from these;
"signed" is the paper's diff taken literally, and everything on target-free images is ours.

Per image: A = sum p, T = sum y, d = A - T, m = min(A, T), M = max(A, T), r = m / M.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from pinglow.losses.location import location_terms
from pinglow.losses.overlap import image_areas, positive_smooth, soft_iou

ScaleVariant = Literal["diff", "variance", "mobius", "penalty", "signed"]
SCALE_VARIANTS: Final[tuple[ScaleVariant, ...]] = get_args(ScaleVariant)

_NOTHING: Final = 1e-12  # pixels; areas up to it count as none


def _diff(a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return a + t, a + t + 2 * (a - t).abs()


def _variance(a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    spread = (a - t) ** 2 / 4
    return torch.minimum(a, t) + spread, torch.maximum(a, t) + spread


def _mobius(a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.minimum(a, t), torch.maximum(a, t)
    return 3 * low + high, 3 * high + low


def _penalty(a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return torch.minimum(a, t), torch.maximum(a, t) + (a - t).abs()


def _signed(a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    small = a < t
    return torch.where(small, 3 * a - t, a + t), torch.where(small, a + t, 3 * a - t)


_FRACTIONS: Final[dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]] = {
    "diff": _diff,
    "variance": _variance,
    "mobius": _mobius,
    "penalty": _penalty,
    "signed": _signed,
}


def scale_weight(
    predicted_area: Tensor, true_area: Tensor, variant: ScaleVariant = "diff"
) -> Tensor:
    """The weight w alone; gradients flow through it.

    ========  =====================================  ========================  =====================
    variant   w                                      in r                      range
    ========  =====================================  ========================  =====================
    diff      (A + T) / (A + T + 2 abs(d))           (1 + r) / (3 - r)         [1/3, 1], monotone
    variance  (m + d²/4) / (M + d²/4)                depends on the area       not monotone
    mobius    (3m + M) / (3M + m)                    (1 + 3r) / (3 + r)        [1/3, 1], monotone
    penalty   m / (M + abs(d))                       r / (2 - r)               [0, 1], monotone
    signed    (3A - T) / (A + T) for A < T,          (3r - 1) / (1 + r),       [-1, 1]
              (A + T) / (3A - T) otherwise           (1 + r) / (3 - r)
    ========  =====================================  ========================  =====================

    "monotone" means: strictly monotone in A on either side of A = T. w(0, 0) = 1.
    Areas that together are next to nothing (1e-12 pixels) count as 0.

    Args:
        predicted_area: A, any shape, at least 0, in pixels.
        true_area: T, the same shape.
        variant: A key of the table.

    Raises:
        ValueError: The variant is unknown.
    """
    above, below = _FRACTIONS[_known(variant)](predicted_area, true_area)
    empty = below <= _NOTHING  # only where both areas are: their quotient has no finite gradient
    one = torch.ones_like(below)
    # The inner where keeps 0/0 out of the backward pass, too.
    return torch.where(empty, one, above / torch.where(empty, one, below))


def _weighted_iou(
    logits: Tensor, mask: Tensor, variant: ScaleVariant, smooth: float
) -> tuple[Tensor, Tensor]:
    """W · IoU of each image, (N,), and the probabilities (N, 1, H, W)."""
    areas, probability = image_areas(logits, mask)
    weight = scale_weight(areas.predicted, areas.true, variant)
    # On a target-free image penalty has no gradient and variance rewards false alarms: w = 1.
    weight = torch.where(areas.true > 0, weight, torch.ones_like(weight))
    return weight * soft_iou(areas, smooth), probability


class ScaleLoss(nn.Module):
    """1 - mean of w · IoU over images, optionally plus the location loss.

    Args:
        variant: The weight, see `scale_weight`.
        location: Add the location loss.
        smooth: s of the IoU, in pixels, above 0; it is what leaves target-free images a gradient
            that removes false alarms.

    Raises:
        ValueError: The variant is unknown or ``smooth`` is not positive.
    """

    def __init__(
        self, variant: ScaleVariant = "diff", location: bool = False, smooth: float = 1.0
    ) -> None:
        super().__init__()
        self.variant = _known(variant)
        self.location = location
        self.smooth = positive_smooth(smooth)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits and 0/1 mask (N, 1, H, W) to a scalar.

        In [0, 1] ("signed": [0, 2]), and up to 2 more from the location.

        Raises:
            ValueError: The shapes differ.
        """
        weighted, probability = _weighted_iou(logits, mask, self.variant, self.smooth)
        loss = 1 - weighted.mean()
        if self.location:
            loss = loss + location_terms(probability, mask.to(probability.dtype)).mean()
        return loss


class SDMaskLoss(nn.Module):
    """The scale-dynamic loss for masks (PConv): small targets lean on scale, large on location.

    (1 + b) (1 - w · IoU) + (1 - b) L_loc with b = mean of min(delta · T · R / 81, delta).

    Args:
        delta: Largest shift between the two terms, in [0, 1].
        frame_ratio: R = 512² / (H W) of the whole frame, not of a training crop; above 0.
        variant: The weight; PConv's is "variance".
        smooth: s of the IoU, in pixels, above 0.

    Raises:
        ValueError: The variant is unknown, or a number is out of its range.
    """

    def __init__(
        self,
        delta: float = 0.5,
        frame_ratio: float = 1.0,
        variant: ScaleVariant = "variance",
        smooth: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= delta <= 1:
            raise ValueError(f"delta is {delta}; use a value in [0, 1]")
        if not frame_ratio > 0:
            raise ValueError(f"frame_ratio is {frame_ratio}; it must be above 0")
        self.delta = delta
        self.frame_ratio = frame_ratio
        self.variant = _known(variant)
        self.smooth = positive_smooth(smooth)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits and 0/1 mask (N, 1, H, W) to a scalar, at least 0.

        Raises:
            ValueError: The shapes differ.
        """
        weighted, probability = _weighted_iou(logits, mask, self.variant, self.smooth)
        mask = mask.to(probability.dtype)
        true_area = mask.flatten(1).sum(1)
        shift = (self.delta * true_area * self.frame_ratio / 81).clamp(max=self.delta).mean()
        location = location_terms(probability, mask).mean()
        return (1 + shift) * (1 - weighted.mean()) + (1 - shift) * location


def _known(variant: ScaleVariant) -> ScaleVariant:
    if variant not in _FRACTIONS:
        raise ValueError(f"variant is {variant!r}; use one of {SCALE_VARIANTS}")
    return variant
