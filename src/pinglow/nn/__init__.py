"""Networks and their building blocks: images (N, C, H, W) in, logits (N, 1, H, W) out."""

from __future__ import annotations

import copy
from typing import Final

from torch import nn

from pinglow.nn.attention import (
    ATTENTIONS,
    ChannelAttention,
    FreeSpatialAttention,
    GaussianPinwheelAttention,
)
from pinglow.nn.blocks import fold_norms
from pinglow.nn.conv import CONVOLUTIONS, GaussianConv2d
from pinglow.nn.gates import GatedNetwork
from pinglow.nn.kernel import (
    ORIENTATIONS,
    GaussianPinwheelKernel,
    arm_distances,
    pinwheel_mask,
)
from pinglow.nn.unet import PinwheelUNet

NETWORKS: Final[dict[str, type[PinwheelUNet]]] = {"PinwheelUNet": PinwheelUNet}
"""Networks by the name that recipes and weights use."""


def fold_kernels(model: nn.Module) -> nn.Module:
    """A copy of a network in which every Gaussian × pinwheel kernel is a plain convolution.

    Static orientations become one nn.Conv2d each, banks one n-fold nn.Conv2d and the reduction.
    Outputs are equal to rounding; the shape costs nothing any more. Layers that share weights
    still share them.
    """
    model = copy.deepcopy(model)
    shaped = (GaussianConv2d, GaussianPinwheelAttention)
    plain = {
        module: module.to_plain().train(module.training)
        for module in model.modules()
        if isinstance(module, shaped)
    }
    if model in plain:
        return plain[model]
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module in plain:
            model.set_submodule(path, plain[module])
    return model


__all__ = [
    "ATTENTIONS",
    "CONVOLUTIONS",
    "NETWORKS",
    "ORIENTATIONS",
    "ChannelAttention",
    "FreeSpatialAttention",
    "GatedNetwork",
    "GaussianConv2d",
    "GaussianPinwheelAttention",
    "GaussianPinwheelKernel",
    "PinwheelUNet",
    "arm_distances",
    "fold_kernels",
    "fold_norms",
    "pinwheel_mask",
]
