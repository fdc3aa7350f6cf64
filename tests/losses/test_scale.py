"""The scale loss against its table and against loops over images and pixels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pinglow.losses import (
    SCALE_VARIANTS,
    ScaleLoss,
    ScaleVariant,
    SDMaskLoss,
    location_terms,
    scale_weight,
)

LOWEST: dict[ScaleVariant, float] = {"diff": 1 / 3, "mobius": 1 / 3, "penalty": 0, "signed": -1}
each_variant = pytest.mark.parametrize("variant", SCALE_VARIANTS)
with_and_without_location = pytest.mark.parametrize("location", [False, True])
areas = st.floats(0, 1e5, allow_subnormal=False).map(lambda area: round(area, 3))


def table(a: float, t: float, variant: ScaleVariant) -> float:
    """The published table, on plain numbers."""
    d, m, M = a - t, min(a, t), max(a, t)
    if M == 0:
        return 1.0
    if variant == "diff":
        return (m + abs(d) / 2) / (M + abs(d) / 2)
    if variant == "variance":
        return (m + d**2 / 4) / (M + d**2 / 4)
    if variant == "mobius":
        return (3 * m + M) / (3 * M + m)
    if variant == "penalty":
        return m / (M + abs(d))
    # diff with the sign left on d: the larger area is T + d, half the difference is added
    return (3 * a - t) / (a + t) if a < t else (a + t) / (3 * a - t)


def in_r(r: float, too_small: bool) -> dict[ScaleVariant, float]:
    """The same weights as functions of r = m / M; variance has no such form."""
    diff = (1 + r) / (3 - r)
    return {
        "diff": diff,
        "mobius": (1 + 3 * r) / (3 + r),
        "penalty": r / (2 - r),
        "signed": (3 * r - 1) / (1 + r) if too_small else diff,
    }


def weight(a: float, t: float, variant: ScaleVariant) -> float:
    a_, t_ = (torch.tensor(value, dtype=torch.float64) for value in (a, t))
    return scale_weight(a_, t_, variant).item()


def looped_loss(
    logits: Tensor, mask: Tensor, variant: ScaleVariant, location: bool, smooth: float
) -> float:
    """The loss image by image and pixel by pixel."""
    losses = []
    for image, truth in zip(logits[:, 0].tolist(), mask[:, 0].tolist(), strict=True):
        p = [1 / (1 + math.exp(-value)) for row in image for value in row]
        y = [value for row in truth for value in row]
        a, t = sum(p), sum(y)
        shared = sum(u * v for u, v in zip(p, y, strict=True))
        w = table(a, t, variant) if t else 1.0
        loss = 1 - w * (shared + smooth) / (a + t - shared + smooth)
        if location and t:
            width = len(truth[0])
            loss += looped_location(p, y, len(truth), width)
        losses.append(loss)
    return sum(losses) / len(losses)


def looped_location(p: list[float], y: list[float], height: int, width: int) -> float:
    polar = []
    for mass in (p, y):
        rows = sum(m * (k // width + 0.5) / height for k, m in enumerate(mass)) / sum(mass)
        columns = sum(m * (k % width + 0.5) / width for k, m in enumerate(mass)) / sum(mass)
        polar.append((math.hypot(rows, columns), math.atan(rows / columns)))
    (rho_p, phi_p), (rho_t, phi_t) = polar
    return 1 - min(rho_p, rho_t) / max(rho_p, rho_t) + 4 / math.pi**2 * (phi_p - phi_t) ** 2


def random_case(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Three images: a square, a line and none at all."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 1, 7, 9, generator=generator, dtype=dtype) * 2 - 1
    mask = torch.zeros_like(logits)
    mask[0, :, 2:5, 3:6] = 1
    mask[1, :, 6, 1:8] = 1
    return logits, mask


@each_variant
@settings(deadline=None)
@given(a=areas, t=areas)
def test_weight_is_the_table(variant: ScaleVariant, a: float, t: float) -> None:
    assert weight(a, t, variant) == pytest.approx(table(a, t, variant), abs=1e-12)


@each_variant
@settings(deadline=None)
@given(a=areas.filter(bool), t=areas.filter(bool))
def test_weight_depends_on_the_ratio_only(variant: ScaleVariant, a: float, t: float) -> None:
    if variant == "variance":
        assert weight(10, 20, variant) != pytest.approx(weight(100, 200, variant), abs=1e-3)
    else:
        expected = in_r(min(a, t) / max(a, t), too_small=a < t)[variant]
        assert weight(a, t, variant) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("variant", ["diff", "mobius", "penalty", "signed"])
@settings(deadline=None)
@given(t=st.integers(1, 2000), pair=st.tuples(st.integers(0, 4000), st.integers(0, 4000)))
def test_weight_is_strictly_monotone_on_either_side_of_the_true_area(
    variant: ScaleVariant, t: int, pair: tuple[int, int]
) -> None:
    low, high = sorted(pair)
    if low == high or low < t < high:
        high = low + 1
    first, second = weight(low, t, variant), weight(high, t, variant)
    assert first < second if high <= t else first > second


def test_variance_falls_and_then_rises_again() -> None:
    w = [weight(a, 20, "variance") for a in range(20, 2000)]
    turn = w.index(min(w))
    assert 0 < turn < 100
    assert all(first > second for first, second in itertools.pairwise(w[: turn + 1]))
    assert all(first < second for first, second in itertools.pairwise(w[turn:]))
    assert w[-1] > 0.99  # a hundred times too large, and weighted as if it were right
    assert weight(2000, 20, "diff") < 0.35


@pytest.mark.parametrize("variant", LOWEST)
@settings(deadline=None)
@given(a=areas, t=areas.filter(bool))
def test_weight_stays_in_its_range(variant: ScaleVariant, a: float, t: float) -> None:
    assert LOWEST[variant] - 1e-12 <= weight(a, t, variant) <= 1 + 1e-12


@pytest.mark.parametrize("variant", LOWEST)
def test_weight_reaches_the_ends_of_its_range(variant: ScaleVariant) -> None:
    assert weight(0, 20, variant) == pytest.approx(LOWEST[variant], abs=1e-12)
    assert weight(20, 20, variant) == 1


def test_signed_punishes_too_small_harder_than_too_large() -> None:
    for ratio in (1.5, 2.0, 5.0):
        assert weight(60 / ratio, 60, "signed") < weight(60 * ratio, 60, "signed")
        assert weight(60 * ratio, 60, "signed") == pytest.approx(weight(60 * ratio, 60, "diff"))
    assert weight(1e9, 60, "signed") == pytest.approx(1 / 3, abs=1e-6)


@each_variant
def test_weight_without_any_area_is_one_with_a_finite_gradient(variant: ScaleVariant) -> None:
    a = torch.zeros(2, requires_grad=True)
    w = scale_weight(a, torch.tensor([0.0, 5.0]), variant)
    assert w[0].item() == 1
    (gradient,) = torch.autograd.grad(w.sum(), a)
    assert gradient.isfinite().all()


@each_variant
@pytest.mark.parametrize("area", [1e-45, 1e-40, 1e-30, 1e-13])
def test_next_to_no_area_is_none(variant: ScaleVariant, area: float) -> None:
    a = torch.full((2,), area, requires_grad=True)  # a float32 as small as 1e-40 has no inverse
    w = scale_weight(a, torch.tensor([0.0, 5.0]), variant)
    assert w[0].item() == 1
    (gradient,) = torch.autograd.grad(w.sum(), a)
    assert gradient[0] == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("variant", ["diff", "mobius", "penalty", "signed"])
def test_gradient_of_the_weight_points_to_the_true_area(variant: ScaleVariant) -> None:
    a = torch.tensor([1.0, 10.0, 19.0, 21.0, 40.0, 4000.0], requires_grad=True)
    w = scale_weight(a, torch.full_like(a, 20), variant)
    (gradient,) = torch.autograd.grad(w.sum(), a)
    assert gradient.sign().tolist() == [1, 1, 1, -1, -1, -1]


@each_variant
@with_and_without_location
@pytest.mark.parametrize("smooth", [1.0, 0.3])
def test_loss_equals_a_loop_over_images_and_pixels(
    variant: ScaleVariant, location: bool, smooth: float
) -> None:
    for seed in range(3):
        logits, mask = random_case(seed)
        loss = ScaleLoss(variant, location, smooth)(logits, mask).item()
        expected = looped_loss(logits, mask, variant, location, smooth)
        assert loss == pytest.approx(expected, abs=1e-6)  # the location adds 1e-6 to the areas


@each_variant
@with_and_without_location
def test_gradient_is_the_numerical_one(variant: ScaleVariant, location: bool) -> None:
    logits, mask = random_case(seed=0)
    loss = ScaleLoss(variant, location)
    logits = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss(values, mask), (logits,))


@each_variant
@with_and_without_location
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_extreme_input_has_a_finite_loss_and_gradient(
    variant: ScaleVariant, location: bool, logit: float, truth: float
) -> None:
    logits = torch.full((2, 1, 8, 8), logit, requires_grad=True)
    loss = ScaleLoss(variant, location)(logits, torch.full_like(logits, truth))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@each_variant
@with_and_without_location
def test_empty_image_pushes_every_false_alarm_down(variant: ScaleVariant, location: bool) -> None:
    logits = torch.full((1, 1, 64, 64), -4.6)
    logits[0, 0, 10:13, 10:13] = 3
    logits.requires_grad_()
    loss = ScaleLoss(variant, location)
    before = loss(logits, torch.zeros_like(logits))
    (gradient,) = torch.autograd.grad(before, logits)
    assert (gradient > 0).all()
    assert loss(logits - 100 * gradient, torch.zeros_like(logits)) < before


@with_and_without_location
def test_perfect_prediction_costs_nothing(location: bool) -> None:
    _, mask = random_case(seed=0, dtype=torch.float32)
    loss = ScaleLoss("diff", location)((mask * 2 - 1) * 50, mask)
    assert loss.item() == pytest.approx(0, abs=1e-5)


@each_variant
def test_autocast_and_half_precision_logits_change_nothing(variant: ScaleVariant) -> None:
    logits, mask = random_case(seed=1, dtype=torch.float32)
    loss = ScaleLoss(variant, location=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(logits, mask)
        half = loss(logits.bfloat16(), mask)
    assert inside.dtype == half.dtype == torch.float32
    assert inside.item() == loss(logits, mask).item()
    assert half.item() == loss(logits.bfloat16().float(), mask).item()


@each_variant
def test_sd_loss_is_its_formula(variant: ScaleVariant) -> None:
    logits, mask = random_case(seed=2)
    mask[2, :, :, :] = 1  # 63 pixels: the shift is at its limit there for the larger ratio
    for delta, ratio in itertools.product((0.0, 0.5, 1.0), (0.25, 4.0)):
        true = [9, 7, 63]
        b = sum(min(delta * t * ratio / 81, delta) for t in true) / 3
        scale = looped_loss(logits, mask, variant, location=False, smooth=1.0)
        both = looped_loss(logits, mask, variant, location=True, smooth=1.0)
        expected = (1 + b) * scale + (1 - b) * (both - scale)
        loss = SDMaskLoss(delta, ratio, variant)(logits, mask)
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_sd_loss_on_an_empty_image_is_the_scale_loss() -> None:
    logits, mask = random_case(seed=2)
    mask.zero_()
    assert location_terms(torch.sigmoid(logits), mask).tolist() == [0, 0, 0]
    assert SDMaskLoss()(logits, mask).item() == pytest.approx(ScaleLoss()(logits, mask).item())


@pytest.mark.parametrize("loss", [ScaleLoss, SDMaskLoss])
def test_unknown_variant_is_named(loss: type[ScaleLoss | SDMaskLoss]) -> None:
    with pytest.raises(ValueError, match="'sls'"):
        loss(variant="sls")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'sls'"):
        scale_weight(torch.ones(1), torch.ones(1), "sls")  # type: ignore[arg-type]


@pytest.mark.parametrize("smooth", [0.0, -1.0, math.nan])
def test_smooth_must_be_positive(smooth: float) -> None:
    for loss in (ScaleLoss, SDMaskLoss):
        with pytest.raises(ValueError, match="smooth"):
            loss(smooth=smooth)


@pytest.mark.parametrize("option", [{"delta": 1.1}, {"delta": -0.1}, {"frame_ratio": 0.0}])
def test_sd_loss_refuses_numbers_out_of_range(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        SDMaskLoss(**option)  # type: ignore[arg-type]


@pytest.mark.parametrize("true", [9.0, 20.0, 100.0])
def test_variance_turns_two_roots_of_the_area_away_from_it(true: float) -> None:
    turn = 2 * math.sqrt(true)
    for place in (true - turn, true + turn):
        lowest = weight(place, true, "variance")
        assert lowest < min(weight(place + step, true, "variance") for step in (-0.5, 0.5))
    assert weight(0, true, "variance") == pytest.approx(true / (true + 4))


@each_variant
@pytest.mark.parametrize("true", [1.0, 5.0, 20.0, 100.0, 1000.0])
def test_on_nested_masks_only_signed_points_away_from_the_true_area(
    variant: ScaleVariant, true: float
) -> None:
    area = torch.linspace(0.001, 20 * true, 20000, dtype=torch.float64)
    truth = torch.full_like(area, true)
    iou = torch.minimum(area, truth) / torch.maximum(area, truth)
    steps = (scale_weight(area, truth, variant) * iou).diff()
    away = ((steps < 0) & (area[1:] < true)) | ((steps > 0) & (area[:-1] > true))
    assert bool(away.any()) == (variant == "signed")
    if variant == "signed":  # r (3r - 1) / (1 + r) is lowest at r = 2 / sqrt(3) - 1
        assert float(area[1:][away].max()) / true == pytest.approx(2 / math.sqrt(3) - 1, abs=0.01)
