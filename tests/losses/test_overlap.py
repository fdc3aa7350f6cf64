"""Soft IoU and Dice against plain sums, and the areas that every loss is made of."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pinglow.losses import DiceLoss, SoftIoULoss
from pinglow.losses.overlap import image_areas


def sums(logits: torch.Tensor, mask: torch.Tensor) -> tuple[float, float, float]:
    """A, T, I of one image, pixel by pixel."""
    predicted = [1 / (1 + math.exp(-value)) for value in logits.flatten().tolist()]
    true = mask.flatten().tolist()
    shared = math.fsum(p * y for p, y in zip(predicted, true, strict=True))
    return math.fsum(predicted), math.fsum(true), shared


@settings(deadline=None)
@given(seed=st.integers(0, 999), smooth=st.sampled_from([1e-3, 1.0, 10.0]))
def test_losses_equal_plain_sums(seed: int, smooth: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 1, 4, 6, generator=generator, dtype=torch.float64) * 3
    mask = (torch.rand(3, 1, 4, 6, generator=generator) < 0.2).double()
    mask[2] = 0
    iou = dice = 0.0
    for image, truth in zip(logits, mask, strict=True):
        a, t, i = sums(image, truth)
        iou += (i + smooth) / (a + t - i + smooth) / 3
        dice += (2 * i + smooth) / (a + t + smooth) / 3
    assert SoftIoULoss(smooth)(logits, mask).item() == pytest.approx(1 - iou, abs=1e-12)
    assert DiceLoss(smooth)(logits, mask).item() == pytest.approx(1 - dice, abs=1e-12)


@pytest.mark.parametrize("loss", [SoftIoULoss(), DiceLoss()])
def test_perfect_predictions_cost_nothing(loss: torch.nn.Module) -> None:
    mask = torch.zeros(2, 1, 5, 5)
    mask[0, 0, 1:3, 2:4] = 1  # the second image has no target
    assert loss((mask - 0.5) * 2e4, mask).item() == 0


def test_areas_keep_single_pixels_in_half_precision() -> None:
    logits = torch.full((1, 1, 64, 64), 20.0, dtype=torch.bfloat16)
    areas, probability = image_areas(logits, torch.zeros_like(logits))
    assert probability.dtype == areas.predicted.dtype == torch.float32
    assert areas.predicted.item() == pytest.approx(4096, abs=1e-2)  # bfloat16 sums in steps of 32


def test_areas_stay_in_double_precision() -> None:
    areas, _ = image_areas(torch.zeros(1, 1, 2, 2, dtype=torch.float64), torch.ones(1, 1, 2, 2))
    assert all(area.dtype == torch.float64 for area in areas)


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="need one shape"):
        SoftIoULoss()(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))


@pytest.mark.parametrize("kind", [SoftIoULoss, DiceLoss])
@pytest.mark.parametrize("smooth", [0.0, -1.0, math.nan])
def test_smooth_must_be_positive(kind: type[torch.nn.Module], smooth: float) -> None:
    with pytest.raises(ValueError, match="smooth"):
        kind(smooth)
