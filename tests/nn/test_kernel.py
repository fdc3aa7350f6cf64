"""The Gaussian × pinwheel kernel: its mask, its gradients and its start values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pinglow.nn import ORIENTATIONS, GaussianPinwheelKernel, arm_distances, pinwheel_mask
from pinglow.nn.kernel import SIGMA_MIN, TAU_RANGE, Orientation, largest, steer

SIZES = [3, 5, 7]
TAU = torch.tensor(0.1, dtype=torch.float64)
angles = st.floats(-math.pi, math.pi)


def mask_of(size: int, theta: float, arms: int, tau: Tensor = TAU) -> Tensor:
    angle = torch.tensor(theta, dtype=torch.float64)
    return pinwheel_mask((size, size), angle, arms, tau)


def tap_distances(size: int, theta: float, arms: int) -> list[list[float]]:
    """Distance of each tap to its nearest arm: the rest after projecting on the arm."""
    reach = range(-(size // 2), size // 2 + 1)
    lines = [theta + arm * math.pi / arms for arm in range(arms)]

    def distance(i: int, j: int, angle: float) -> float:
        along = j * math.cos(angle) + i * math.sin(angle)
        return math.hypot(j - along * math.cos(angle), i - along * math.sin(angle))

    return [[min(distance(i, j, line) for line in lines) for j in reach] for i in reach]


def bar(degrees: float, size: int = 7) -> Tensor:
    """Draw a bright bar of this angle through the center, cut off at a disc."""
    distance = torch.tensor(tap_distances(size, math.radians(degrees), arms=1))
    y, x = torch.meshgrid(*[torch.arange(size) - size // 2] * 2, indexing="ij")
    return torch.exp(-((distance / 0.6) ** 2)) * (y**2 + x**2 <= (size // 2) ** 2)


@pytest.mark.parametrize("size", SIZES)
def test_four_arms_are_the_cross_and_both_diagonals(size: int) -> None:
    expected = torch.zeros(size, size)
    for step in range(size):
        for row, column in (
            (size // 2, step),
            (step, size // 2),
            (step, step),
            (step, size - 1 - step),
        ):
            expected[row, column] = 1
    assert torch.equal(pinwheel_mask((size, size), torch.zeros(()), 4, TAU.float()), expected)
    kernel = GaussianPinwheelKernel((size, size), "fixed", arms=4)()[0, 0]
    assert torch.equal(kernel > 0, expected > 0)


@pytest.mark.parametrize("size", SIZES)
def test_one_arm_is_a_bar(size: int) -> None:
    expected = torch.zeros(size, size, dtype=torch.float64)
    expected[size // 2] = 1
    assert torch.equal(mask_of(size, 0, arms=1), expected)
    assert torch.equal(mask_of(size, math.pi / 2, arms=1), expected.T)
    assert torch.equal(mask_of(size, math.pi / 4, arms=1), torch.eye(size, dtype=torch.float64))


@settings(deadline=None)
@given(size=st.sampled_from(SIZES), theta=angles, arms=st.integers(1, 6))
def test_a_tap_belongs_to_an_arm_closer_than_half_a_pixel(
    size: int, theta: float, arms: int
) -> None:
    mask = mask_of(size, theta, arms)
    assert mask[size // 2, size // 2] == 1
    for row, distances in zip(mask.tolist(), tap_distances(size, theta, arms), strict=True):
        for value, distance in zip(row, distances, strict=True):
            if abs(distance - 0.5) > 2e-5:  # on a tie the rounding would decide
                assert value == (distance < 0.5)


@settings(deadline=None)
@given(theta=angles, arms=st.integers(1, 6))
def test_mask_has_the_pinwheels_symmetry(theta: float, arms: int) -> None:
    mask = mask_of(7, theta, arms)
    assert torch.equal(mask, mask.rot90(2))  # every arm goes through the center
    distance = arm_distances((7, 7), torch.tensor(theta, dtype=torch.float64), arms).amin(0)
    if ((distance - 0.5).abs() > 1e-4).all():
        assert torch.equal(mask, mask_of(7, theta + math.pi / arms, arms))
        assert torch.equal(mask.rot90(-1), mask_of(7, theta + math.pi / 2, arms))


@settings(deadline=None)
@given(theta=angles, arms=st.integers(1, 5), tau=st.floats(*TAU_RANGE))
def test_gradient_is_the_soft_masks(theta: float, arms: int, tau: float) -> None:
    theta_ = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    tau_ = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    share = torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    soft = torch.sigmoid((0.5 - arm_distances((5, 5), theta_, arms)) / tau_).amax(0)
    hard = pinwheel_mask((5, 5), theta_, arms, tau_)
    assert set(hard.unique().tolist()) <= {0.0, 1.0}
    expected = torch.autograd.grad((soft * share).sum(), [theta_, tau_])
    actual = torch.autograd.grad((hard * share).sum(), [theta_, tau_])
    for one, other in zip(actual, expected, strict=True):
        assert one.isfinite()
        # Where two arms are equally near, each may take the gradient.
        if not _arms_tie(theta, arms):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def _arms_tie(theta: float, arms: int) -> bool:
    distance = arm_distances((5, 5), torch.tensor(theta, dtype=torch.float64), arms)
    if arms == 1:
        return False
    first, second = distance.flatten(1).sort(0).values[:2]
    close = second - first < 1e-9
    close[12] = False  # the center is on every arm and gives theta no gradient
    return bool(close.any())


def test_start_values() -> None:
    kernel = GaussianPinwheelKernel((7, 7), "learned")
    assert kernel.theta.item() == pytest.approx(0.15)
    assert kernel.tau.item() == pytest.approx(0.1)
    assert kernel.sigma.item() == pytest.approx(1.5)
    assert GaussianPinwheelKernel((7, 7), "none", sigma=0.4).sigma.item() == pytest.approx(0.4)


def test_sigma_and_tau_keep_their_bounds() -> None:
    kernel = GaussianPinwheelKernel((7, 7), "learned")
    low, high = TAU_RANGE
    for raw in (-1e3, -5.0, 0.0, 5.0):
        kernel.tau_logit.data.fill_(raw)
        kernel.log_sigma.data.fill_(raw)
        assert low <= kernel.tau.item() <= high
        assert kernel.sigma.item() >= SIGMA_MIN
        assert kernel().isfinite().all()
        assert kernel()[0, 0, 3, 3] == 1


@pytest.mark.parametrize("arms", [1, 4])
@pytest.mark.parametrize("clip", [False, True])
def test_gradients_reach_every_scalar(arms: int, clip: bool) -> None:
    kernel = GaussianPinwheelKernel((7, 7), "learned", arms, clip)
    (kernel() * torch.rand(7, 7, generator=torch.Generator().manual_seed(0))).sum().backward()
    for scalar in (kernel.log_sigma, kernel.theta, kernel.tau_logit):
        assert scalar.grad is not None
        assert scalar.grad.isfinite().all()
        assert scalar.grad.abs().sum() > 0


# Descent from 0.15 rad (9 degrees) is local: it finds bars from about -10 to 80 degrees, and
# stays in a plateau of the hard mask for the others.
@pytest.mark.parametrize("degrees", [0, 20, 30, 40, 60, 70])
def test_a_bar_pulls_theta_to_its_angle(degrees: int) -> None:
    target = bar(degrees)
    kernel = GaussianPinwheelKernel((7, 7), "learned", arms=1, clip=True)
    optimizer = torch.optim.Adam([kernel.theta], lr=0.02)

    def response() -> Tensor:
        weight = kernel()[0, 0]
        return (weight / weight.sum() * target).sum()

    before = response().item()
    for _ in range(150):
        optimizer.zero_grad()
        (-response()).backward()
        optimizer.step()
    found = math.degrees(kernel.theta.item())
    apart = abs((found - degrees + 90) % 180 - 90)  # a bar repeats after half a turn
    assert apart < 8
    assert response().item() >= before


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_clip_keeps_the_disc_of_half_the_kernel(orientation: Orientation, size: int) -> None:
    whole = GaussianPinwheelKernel((size, size), orientation, sigma=3)()
    clipped = GaussianPinwheelKernel((size, size), orientation, clip=True, sigma=3)()
    for row in range(size):
        for column in range(size):
            inside = math.hypot(row - size // 2, column - size // 2) <= size // 2
            expected = whole[..., row, column] if inside else torch.zeros(whole.shape[:2])
            assert torch.equal(clipped[..., row, column], expected)


@pytest.mark.parametrize("orientation", ["max", "steered"])
def test_a_bank_is_one_bar_an_angle(orientation: Orientation) -> None:
    bank = GaussianPinwheelKernel((7, 7), orientation, arms=6, sigma=1e6)()
    assert bank.shape == (6, 1, 7, 7)
    for number, shape in enumerate(bank[:, 0]):
        expected = torch.tensor(tap_distances(7, number * math.pi / 6, arms=1)) < 0.5 - 1e-9
        assert torch.equal(shape > 0, expected)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_without_a_mask_it_is_a_gaussian(sigma: float) -> None:
    kernel = GaussianPinwheelKernel((3, 5), "none", sigma=sigma)
    assert kernel().shape == (1, 1, 3, 5)
    for i in (-1, 0, 1):
        for j in (-2, -1, 0, 1, 2):
            expected = math.exp(-(i * i + j * j) / (2 * sigma**2))
            assert kernel()[0, 0, i + 1, j + 2].item() == pytest.approx(expected)


def test_joining_a_bank() -> None:
    responses = torch.tensor([1.0, -3.0, 2.0]).view(1, 1, 3, 1, 1)
    assert largest(responses).flatten().tolist() == [-3]
    assert steer(responses, torch.tensor(0.0)).item() == pytest.approx(0, abs=1e-6)
    assert steer(responses, torch.tensor(1e3)).item() == -3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"orientation": "spiral"}, "spiral"),
        ({"kernel_size": (4, 4)}, "odd"),
        ({"arms": 0}, "arms"),
        ({"sigma": 0.25}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    usual: dict[str, object] = {"kernel_size": (7, 7), "orientation": "fixed"}
    with pytest.raises(ValueError, match=message):
        GaussianPinwheelKernel(**(usual | arguments))  # type: ignore[arg-type]
