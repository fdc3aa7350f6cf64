"""How much faster ScaleLoss with location is than a loop written like the public SLS loss.

Both take batch 16, 1 x 256 x 256, forward and backward, in the same process, in turns. The loop is
our own writing of the published structure: sums over three axes, and a location term that goes
through the batch image by image with full coordinate grids. It has its known faults (smooth in
the weight, centroids divided by the pixel count), so the values differ; the work is the same.
Run `python benchmarks/bench_losses.py`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from pinglow.losses import ScaleLoss

BATCH, SIDE = 16, 256


def looped_loss(logits: Tensor, mask: Tensor) -> Tensor:
    probability = torch.sigmoid(logits)
    smooth = 1e-6
    shared = (probability * mask).sum(dim=(1, 2, 3))
    predicted = probability.sum(dim=(1, 2, 3))
    true = mask.sum(dim=(1, 2, 3))
    spread = ((predicted - true) / 2) ** 2
    low, high = torch.minimum(predicted, true), torch.maximum(predicted, true)
    weight = (low + spread + smooth) / (high + spread + smooth)
    iou = (shared + smooth) / (predicted + true - shared + smooth)
    return 1 - (weight * iou).mean() + _looped_location(probability, mask)


def _looped_location(probability: Tensor, mask: Tensor) -> Tensor:
    loss = torch.zeros(())
    count, _, height, width = probability.shape
    columns = torch.arange(width).view(1, 1, width).repeat(1, height, 1) / width
    rows = torch.arange(height).view(1, height, 1).repeat(1, 1, width) / height
    for index in range(count):
        x_p, y_p = (columns * probability[index]).mean(), (rows * probability[index]).mean()
        x_t, y_t = (columns * mask[index]).mean(), (rows * mask[index]).mean()
        phi_p, phi_t = torch.arctan(y_p / (x_p + 1e-8)), torch.arctan(y_t / (x_t + 1e-8))
        rho_p = torch.sqrt(x_p**2 + y_p**2)
        rho_t = torch.sqrt(x_t**2 + y_t**2)
        ratio = torch.minimum(rho_p, rho_t) / (torch.maximum(rho_p, rho_t) + 1e-8)
        loss = loss + (1 - ratio) + 4 / math.pi**2 * (phi_p - phi_t) ** 2
    return loss / count


def make_batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw logits near the start's prior and masks of one small square each."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(BATCH, 1, SIDE, SIDE, generator=generator) - 4.6
    mask = torch.zeros(BATCH, 1, SIDE, SIDE)
    for image in mask:
        y, x, size = torch.randint(2, 240, (3,), generator=generator).tolist()
        image[:, y : y + 1 + size % 8, x : x + 1 + size % 8] = 1
    return logits.requires_grad_(), mask


def milliseconds(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, mask: Tensor) -> float:
    logits.grad = None
    start = time.perf_counter()
    loss(logits, mask).backward()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=40, help="interleaved runs; the median counts")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    logits, mask = make_batch()
    losses = {"loop": looped_loss, "ScaleLoss": ScaleLoss("variance", location=True)}
    print(f"forward + backward, {BATCH} x 1 x {SIDE} x {SIDE}, milliseconds: median (min - max)")
    print(f"{'threads':8}{'loop':>26}{'ScaleLoss':>26}{'ratio':>8}")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        times: dict[str, list[float]] = {name: [] for name in losses}
        for turn in range(arguments.turns + 3):
            for name, loss in losses.items():
                elapsed = milliseconds(loss, logits, mask)
                if turn >= 3:  # the first turns warm up
                    times[name].append(elapsed)
        cells = "".join(
            f"{median(runs):12.2f} ({min(runs):.2f} - {max(runs):.2f})".rjust(26)
            for runs in times.values()
        )
        ratio = median(times["loop"]) / median(times["ScaleLoss"])
        print(f"{threads:<8}{cells}{ratio:8.1f}")


if __name__ == "__main__":
    main()
