"""Losses: logits (N, 1, H, W) and a floating 0/1 mask of the same shape in, a scalar out.

Those of boxes take matched pairs of corners, (n, 4) each, and give one number per pair.
"""

from __future__ import annotations

from typing import Any, Final

from torch import nn

from pinglow.errors import RecipeError
from pinglow.losses.box import BOX_LOSSES, ciou_loss, diff_box_loss, sd_box_loss
from pinglow.losses.cross_entropy import CrossEntropyLoss
from pinglow.losses.location import LocationLoss, location_terms
from pinglow.losses.overlap import DiceLoss, SoftIoULoss, TverskyLoss
from pinglow.losses.scale import SCALE_VARIANTS, ScaleLoss, ScaleVariant, SDMaskLoss, scale_weight
from pinglow.plugins import find_plugin, plugin_names

GROUP: Final = "pinglow.losses"
"""The group of entry points by which other packages add losses."""

LOSSES: Final[dict[str, type[nn.Module]]] = {
    "scale": ScaleLoss,
    "soft_iou": SoftIoULoss,
    "dice": DiceLoss,
    "tversky": TverskyLoss,
    "location": LocationLoss,
    "sd": SDMaskLoss,
    "bce": CrossEntropyLoss,
}
"""Losses by the name that recipes use."""


def find_loss(name: str) -> type[nn.Module]:
    """The class of a loss.

    Args:
        name: A key of `LOSSES`, a name that another package adds, or ``module:Class``.

    Raises:
        RecipeError: The name is unknown, or stands for something else.
        MissingExtraError: Its package cannot be imported.
    """
    found: Any = LOSSES.get(name) or find_plugin(GROUP, name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        known = ", ".join([*LOSSES, *plugin_names(GROUP)])
        raise RecipeError(f"loss {name!r} is unknown; use one of {known}, or module:Class")
    return found


__all__ = [
    "BOX_LOSSES",
    "LOSSES",
    "SCALE_VARIANTS",
    "CrossEntropyLoss",
    "DiceLoss",
    "LocationLoss",
    "SDMaskLoss",
    "ScaleLoss",
    "ScaleVariant",
    "SoftIoULoss",
    "TverskyLoss",
    "ciou_loss",
    "diff_box_loss",
    "find_loss",
    "location_terms",
    "scale_weight",
    "sd_box_loss",
]
