"""Losses: logits (N, 1, H, W) and a floating 0/1 mask of the same shape in, a scalar out.

Those of boxes take matched pairs of corners, (n, 4) each, and give one number per pair.
"""

from __future__ import annotations

from typing import Final

from torch import nn

from pinglow.losses.box import BOX_LOSSES, ciou_loss, diff_box_loss, sd_box_loss
from pinglow.losses.location import LocationLoss, location_terms
from pinglow.losses.overlap import DiceLoss, SoftIoULoss, TverskyLoss, target_weights
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
    "BOX_LOSSES",
    "LOSSES",
    "SCALE_VARIANTS",
    "DiceLoss",
    "LocationLoss",
    "SDMaskLoss",
    "ScaleLoss",
    "ScaleVariant",
    "SoftIoULoss",
    "TverskyLoss",
    "ciou_loss",
    "diff_box_loss",
    "location_terms",
    "scale_weight",
    "sd_box_loss",
    "target_weights",
]
