"""Networks and their building blocks: images (N, C, H, W) in, logits (N, 1, H, W) out."""

from __future__ import annotations

import os

import torch

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
from pinglow.nn.swap import fold_kernels, shape_convolutions
from pinglow.nn.unet import PinwheelUNet

if hasattr(os, "register_at_fork"):  # not on Windows
    # A forked process has none of the threads that PyTorch would wait for.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

__all__ = [
    "ATTENTIONS",
    "CONVOLUTIONS",
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
    "shape_convolutions",
]
