"""What every loss in LOSSES promises: a finite scalar with finite gradients, whatever comes in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pinglow.losses import LOSSES, SCALE_VARIANTS, ScaleLoss

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    **LOSSES,
    **{
        f"scale-{variant}-{location}": lambda v=variant, x=location: ScaleLoss(v, x)
        for variant in SCALE_VARIANTS
        for location in (False, True)
    },
}
every_loss = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())


def masks() -> torch.Tensor:
    """Draw six masks: none, one corner pixel, the far corner, a blob, a column, every pixel."""
    result = torch.zeros(6, 1, 7, 10)
    result[1, 0, 0, 0] = 1
    result[2, 0, -1, -1] = 1
    result[3, 0, 2:5, 3:6] = 1
    result[4, 0, :, 4] = 1
    result[5] = 1
    return result


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1e4, -1e4, 100.0, -100.0, -20.0, 0.0])
def test_extreme_logits_stay_finite(
    build: Callable[[], nn.Module], dtype: torch.dtype, value: float
) -> None:
    mask = masks().to(dtype)
    noise = torch.sign(torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)))
    right = (2 * mask - 1) * value  # all right or all wrong
    for logits in (torch.full_like(mask, value), right, noise.to(dtype) * value):
        logits = logits.clone().requires_grad_()
        loss = build()(logits, mask)
        loss.backward()
        assert loss.ndim == 0
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert logits.grad.abs().max() < 10


@every_loss
def test_autocast_changes_nothing(build: Callable[[], nn.Module]) -> None:
    logits = torch.randn(6, 1, 7, 10, generator=torch.Generator().manual_seed(1))
    plain = logits.clone().requires_grad_()
    expected = build()(plain, masks())
    expected.backward()
    automatic = logits.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = build()(automatic, masks())
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert automatic.grad is not None
    assert torch.equal(automatic.grad, plain.grad)


@every_loss
def test_half_precision_logits_are_taken_as_they_are(build: Callable[[], nn.Module]) -> None:
    """A network under autocast hands over bfloat16: equal to the same values in float32."""
    logits = torch.randn(6, 1, 7, 10, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert torch.equal(build()(logits, masks()), build()(logits.float(), masks()))


@every_loss
def test_a_right_prediction_costs_less_than_a_wrong_one(build: Callable[[], nn.Module]) -> None:
    mask = masks()[3:4]
    right, wrong = (2 * mask - 1) * 20, (2 * mask.roll(3, 3) - 1) * 20
    assert build()(right, mask).item() == pytest.approx(0, abs=1e-5)
    assert build()(wrong, mask) > 0.05


@every_loss
def test_other_shapes_are_refused(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match="need one shape"):
        build()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
