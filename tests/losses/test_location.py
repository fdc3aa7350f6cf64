"""The location loss against the closed form of single pixels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pinglow.losses import LocationLoss, location_terms

HEIGHT, WIDTH = 12, 20


def image(*pixels: tuple[int, int]) -> torch.Tensor:
    result = torch.zeros(1, 1, HEIGHT, WIDTH)
    for y, x in pixels:
        result[0, 0, y, x] = 1
    return result


def square(y: int, x: int, reach: int) -> list[tuple[int, int]]:
    around = range(-reach, reach + 1)
    return [(y + dy, x + dx) for dy in around for dx in around]


def saturated(mask: torch.Tensor) -> torch.Tensor:
    return (mask - 0.5) * 2e4


def single_pixels(truth: tuple[int, int], guess: tuple[int, int]) -> float:
    points = [((x + 0.5) / WIDTH, (y + 0.5) / HEIGHT) for y, x in (truth, guess)]
    (rho_t, phi_t), (rho_p, phi_p) = ((math.hypot(x, y), math.atan2(y, x)) for x, y in points)
    ratio = min(rho_t, rho_p) / max(rho_t, rho_p)
    return 1 - ratio + 4 / math.pi**2 * (phi_p - phi_t) ** 2


pixels = st.tuples(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1))


@settings(deadline=None)
@given(truth=pixels, guess=pixels)
def test_single_pixels_have_a_closed_form(truth: tuple[int, int], guess: tuple[int, int]) -> None:
    loss = LocationLoss()(saturated(image(guess)), image(truth)).item()
    assert loss == pytest.approx(single_pixels(truth, guess), abs=1e-5)
    assert 0 <= loss < 2


def test_a_perfect_prediction_costs_nothing() -> None:
    mask = torch.cat([image((3, 4)), image(*square(6, 11, 2)), image((0, 0)), image()])
    assert LocationLoss()(saturated(mask), mask).item() == 0


def test_the_loss_grows_with_the_shift() -> None:
    truth = image(*square(5, 5, 1))
    shifted = [LocationLoss()(saturated(truth.roll(s, 3)), truth).item() for s in range(12)]
    assert shifted == sorted(set(shifted))


@settings(deadline=None)
@given(y=st.integers(2, HEIGHT - 3), x=st.integers(2, WIDTH - 3))
def test_position_and_area_are_not_coupled(y: int, x: int) -> None:
    """The public code divides by the pixel count: there, a larger target is a shifted one."""
    assert LocationLoss()(saturated(image(*square(y, x, 2))), image((y, x))).item() < 1e-5


def test_without_a_target_there_is_no_term() -> None:
    probability = torch.rand(2, 1, HEIGHT, WIDTH, requires_grad=True)
    mask = torch.cat([image(), image((2, 3))])
    terms = location_terms(probability, mask)
    assert terms[0].item() == 0
    assert terms[1].item() > 0
    terms.sum().backward()
    assert probability.grad is not None
    assert not probability.grad[0].any()
    assert probability.grad[1].any()


@settings(deadline=None)
@given(truth=pixels, guess=pixels)
def test_descent_moves_the_centroid_towards_the_target(
    truth: tuple[int, int], guess: tuple[int, int]
) -> None:
    assume(abs(truth[1] - guess[1]) > 1)
    logits = (image(guess) * 8 - 6).double().requires_grad_()
    mask = image(truth).double()
    loss = LocationLoss()(logits, mask)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert LocationLoss()(logits - 1e-3 * gradient, mask) < loss


def test_images_are_averaged() -> None:
    logits, mask = (
        torch.randn(3, 1, HEIGHT, WIDTH),
        torch.cat([image((1, 2)), image((9, 9)), image()]),
    )
    alone = [LocationLoss()(logits[i : i + 1], mask[i : i + 1]).item() for i in range(3)]
    assert LocationLoss()(logits, mask).item() == pytest.approx(sum(alone) / 3, abs=1e-6)
