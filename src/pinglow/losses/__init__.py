"""Losses: logits (N, 1, H, W) and a floating 0/1 mask of the same shape in, a scalar out."""

from __future__ import annotations

from typing import Final

from torch import nn

from pinglow.losses.location import LocationLoss, location_terms
from pinglow.losses.overlap import DiceLoss, SoftIoULoss, TverskyLoss
from pinglow.losses.scale import SCALE_VARIANTS, ScaleLoss, ScaleVariant, SDMaskLoss, scale_weight

LOSSES: Final[dict[str, type[nn.Module]]] = {
    "scale": ScaleLoss,
    "soft_iou": SoftIoULoss,
    "dice": DiceLoss,
    "tversky": TverskyLoss,
    "location": LocationLoss,
    "sd": SDMaskLoss,
}
"""Losses by the name that recipes use."""

__all__ = [
    "LOSSES",
    "SCALE_VARIANTS",
    "DiceLoss",
    "LocationLoss",
    "SDMaskLoss",
    "ScaleLoss",
    "ScaleVariant",
    "SoftIoULoss",
    "TverskyLoss",
    "location_terms",
    "scale_weight",
]
