"""What TensorFloat-32 and bfloat16 would change, simulated on the CPU.

    python experiments/scripts/precision.py DATA/sirst/images DATA/irstd-1k/images

Every convolution is given its input and weights rounded to the mantissa of the type (10 and 7
bits); sums stay float32, as on a card. What is compared are probabilities at the frame's own size,
and targets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pinglow.backends.torch import TorchBackend
from pinglow.inference.predictor import Predictor
from pinglow.io.frames import find_frames, read_frame
from pinglow.models.weights import load_network
from pinglow.nn import fold_kernels, fold_norms

DROPPED = {"tf32": 13, "bfloat16": 16}
"""Bits of a float32's 23 that a type does not have."""


class Rounded(nn.Module):
    """A convolution whose products are those of a shorter type."""

    def __init__(self, convolution: nn.Conv2d, dropped: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.dropped = dropped
        convolution.weight.data = self.round(convolution.weight.data)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.round(x))

    def round(self, x: Tensor) -> Tensor:
        """To the nearest."""
        bits = x.contiguous().view(torch.int32) + (1 << (self.dropped - 1))
        return (bits >> self.dropped << self.dropped).view(torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--models", default="pinglow-fast,pinglow-base")
    parser.add_argument("--frames", type=int, default=40, help="of each folder")
    arguments = parser.parse_args()
    files = []
    for folder in arguments.folders:
        found = find_frames([folder])
        files += found[:: max(1, len(found) // arguments.frames)]
    for model in arguments.models.split(","):
        network, card = load_network(model)
        exact = Predictor(TorchBackend(network), card)
        for name, dropped in DROPPED.items():
            other = Predictor(TorchBackend(shorten(network, dropped)), card)
            compare(f"{model}, {name}", exact, other, files)


def shorten(network: nn.Module, dropped: int) -> nn.Module:
    """A copy of a network in which all convolutions are `Rounded`."""
    network = fold_norms(fold_kernels(network))
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            network.set_submodule(path, Rounded(module, dropped))
    return network


def compare(name: str, exact: Predictor, other: Predictor, files: list[Path]) -> None:
    worst, differing = [], 0
    for file in files:
        frame = read_frame(file)
        expected, found = exact(frame), other(frame)
        worst.append(np.abs(found.probability - expected.probability).max())
        differing += len(found.targets) != len(expected.targets)
    print(
        f"{name:24} largest change of a probability in a frame: median {np.median(worst):.1g}, "
        f"95 % {np.percentile(worst, 95):.1g}, of all {max(worst):.1g}; another number of "
        f"targets in {differing} of {len(files)} frames",
        flush=True,
    )


if __name__ == "__main__":
    main()
