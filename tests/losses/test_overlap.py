"""Soft IoU, Dice and Tversky against plain sums, and the areas that every loss is made of."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pinglow.losses import DiceLoss, SoftIoULoss, TverskyLoss
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


@settings(deadline=None)
@given(
    seed=st.integers(0, 999),
    alpha=st.floats(0.1, 2),
    beta=st.floats(0.1, 2),
    gamma=st.floats(0.5, 2),
)
def test_tversky_equals_plain_sums(seed: int, alpha: float, beta: float, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 1, 4, 6, generator=generator, dtype=torch.float64) * 3
    mask = (torch.rand(3, 1, 4, 6, generator=generator) < 0.2).double()
    mask[2] = 0
    expected = 0.0
    for image, truth in zip(logits, mask, strict=True):
        a, t, i = sums(image, truth)
        index = (i + 1) / (i + alpha * (a - i) + beta * (t - i) + 1)
        expected += (1 - index) ** gamma / 3
    loss = TverskyLoss(alpha, beta, gamma)(logits, mask)
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_tversky_has_soft_iou_and_dice_in_it() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, generator=generator)
    mask = (torch.rand(2, 1, 8, 8, generator=generator) < 0.2).float()
    torch.testing.assert_close(TverskyLoss(1, 1)(logits, mask), SoftIoULoss()(logits, mask))
    torch.testing.assert_close(TverskyLoss(0.5, 0.5)(logits, mask), DiceLoss(2.0)(logits, mask))


def test_tversky_is_finite_where_nothing_is_wrong_and_removes_false_alarms() -> None:
    mask = torch.zeros(1, 1, 5, 5)
    logits = torch.full((1, 1, 5, 5), -1e4, requires_grad=True)
    loss = TverskyLoss(gamma=0.5)(logits, mask)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() < 1e-5
    assert torch.isfinite(gradient).all()
    alarm = torch.zeros(1, 1, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(TverskyLoss()(alarm, mask), alarm)
    assert (gradient > 0).all()


@pytest.mark.parametrize("option", [{"alpha": 0.0}, {"beta": -1.0}, {"gamma": math.inf}])
def test_tversky_refuses_what_is_not_positive(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        TverskyLoss(**option)
