"""The scale weights drawn: weight, weight times IoU, and the slope of the loss over predicted area.

    python experiments/scripts/loss_geometry.py --out docs/images

Everything comes from `pinglow.losses`. The prediction is nested with the target, that is, inside it
while it is smaller and around it once it is larger, so that I = min(A, T); the smooth term is 1 px.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

from pinglow.losses import SCALE_VARIANTS, scale_weight
from pinglow.losses.overlap import Areas, soft_iou

SIZES = (4, 20, 100)  # px
REACH = 6.0  # times the target's area
COLORS = dict(
    zip(SCALE_VARIANTS, ("#c05000", "#0060a0", "#208020", "#a020a0", "#606060"), strict=True)
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    figure = Figure(figsize=(11, 9), layout="constrained")
    panels = figure.subplots(3, len(SIZES), sharex="col")
    for column, true in enumerate(SIZES):
        area = torch.linspace(0.01, REACH * true, 6000, dtype=torch.float64, requires_grad=True)
        for variant in SCALE_VARIANTS:
            weight, product, slope = follow(area, true, variant)
            for axes, values in zip(panels[:, column], (weight, product, slope), strict=True):
                axes.plot(area.detach() / true, values, color=COLORS[variant], label=variant)
            turns, joint = (turning_points(each, area / true) for each in (weight, product))
            print(f"T = {true:3} px, {variant:9}: w turns at A/T = {turns}, w IoU at {joint}")
        iou = soft_iou(nested(area, true), 1.0).detach()
        panels[1, column].plot(area.detach() / true, iou, "k:", label="IoU alone")
        panels[2, column].plot(area.detach() / true, -gradient(area, true), "k:", label="IoU alone")
        panels[0, column].set_title(f"target of {true} px")
        panels[2, column].set(xlabel="A / T", ylim=(-2.5, 2.5))
    for axes, label in zip(panels[:, 0], ("weight w", "w · IoU", "T · d(loss)/dA"), strict=True):
        axes.set_ylabel(label)
    panels[0, 0].legend(fontsize=8)
    for axes in panels.flat:
        axes.axvline(1, color="black", linewidth=0.5)
        axes.grid(alpha=0.3)
    arguments.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out / "loss-geometry.png", dpi=100)


def nested(area: torch.Tensor, true: float) -> Areas:
    truth = torch.full_like(area, true)
    return Areas(predicted=area, true=truth, shared=torch.minimum(area, truth))


def follow(
    area: torch.Tensor, true: float, variant: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, weight times IoU, and T times the slope of the loss."""
    areas = nested(area, true)
    weight = scale_weight(area, areas.true, variant)  # type: ignore[arg-type]
    product = weight * soft_iou(areas, 1.0)
    (slope,) = torch.autograd.grad(product.sum(), area)
    return weight.detach(), product.detach(), -true * slope


def gradient(area: torch.Tensor, true: float) -> torch.Tensor:
    (slope,) = torch.autograd.grad(soft_iou(nested(area, true), 1.0).sum(), area)
    return true * slope


def turning_points(values: torch.Tensor, at: torch.Tensor) -> list[float]:
    """Where a curve changes from rising to falling or back."""
    rising = values.diff() > 0
    turns = torch.nonzero(rising[1:] != rising[:-1]).flatten() + 1
    return [round(each, 2) for each in at.detach()[turns].tolist()]


if __name__ == "__main__":
    main()
