"""The Gaussian × pinwheel kernel: a glow on a pinwheel.

Source: Li and Zhuo, "Revisiting the Scale Loss Function and Gaussian-Shape Convolution for
Infrared Small Target Detection", https://arxiv.org/abs/2604.09991. The bounds of sigma and tau and
the bank modes (max, steered) are ours.

A k × k grid of offsets (i down, j right) about the center carries

    gaussian = exp(-(i² + j²) / (2 sigma²))
    mask     = 1 on n arms through the center, at angles theta + a·pi/n, half a pixel wide each side

Angles are measured from the x axis (right) towards the y axis (down).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

Orientation = Literal["none", "fixed", "learned", "max", "steered"]
ORIENTATIONS: Final[tuple[Orientation, ...]] = get_args(Orientation)

SIGMA_MIN: Final = 0.25
TAU_RANGE: Final = (1e-3, 1.0)
_HALF_WIDTH: Final = 0.5
_TIE: Final = 1e-5  # a tap exactly 0.5 away is off the bar, on both sides, whatever the rounding
_THETA_START: Final = 0.15  # off the symmetry points, where theta's gradient is zero, and off ties
_TAU_START: Final = 0.1


def arm_distances(kernel_size: tuple[int, int], theta: Tensor, arms: int) -> Tensor:
    """Distance in pixels of every tap to each of n lines through the center.

    Args:
        kernel_size: (kh, kw), taps.
        theta: Radians, a scalar or (m,) of as many kernels.
        arms: n, the number of lines, at theta + a·pi/n for a = 0..n-1.

    Returns:
        (n, kh, kw), or (m, n, kh, kw).
    """
    i, j = _offsets(kernel_size, theta)
    step = torch.arange(arms, dtype=theta.dtype, device=theta.device) * (math.pi / arms)
    angle = (theta.unsqueeze(-1) + step)[..., None, None]  # (..., n, 1, 1)
    return (i * torch.cos(angle) - j * torch.sin(angle)).abs()  # (..., n, kh, kw)


def pinwheel_mask(kernel_size: tuple[int, int], theta: Tensor, arms: int, tau: Tensor) -> Tensor:
    """Hard pinwheel mask with the soft mask's gradient (straight-through estimator).

    soft = max over arms of sigmoid((0.5 - distance) / tau); hard = soft > 0.5; the value is hard,
    the gradient soft's: hard + soft - stop_gradient(soft).

    Args:
        kernel_size: (kh, kw), taps, both odd.
        theta: Radians, a scalar or (m,) of as many kernels.
        arms: n, at least 1.
        tau: Width of the soft edge in taps, above 0; of theta's shape.

    Returns:
        (kh, kw) of zeros and ones, or (m, kh, kw).
    """
    distance = arm_distances(kernel_size, theta, arms).amin(dim=-3)  # the nearest arm: max of soft
    return _straight_through(distance, tau[..., None, None])


class GaussianPinwheelKernel(nn.Module):
    """The kernel with its own learnable scalars.

    Args:
        kernel_size: (kh, kw) taps; both odd unless ``orientation`` is "none".
        orientation: "none" (Gaussian only), "fixed" (theta stays 0), "learned" (theta trained
            through the straight-through estimator: the paper), "max" (a bank of n single bars, the
            response of the largest magnitude per pixel) or "steered" (the same bank, softmax over
            the magnitudes with a learned temperature; ours).
        arms: n, the number of arms of the mask, or of bars in the bank.
        clip: Clip the mask to a disc of radius k // 2.
        sigma: Start value of sigma in taps, above 0.25 (its lower bound: sigma = 0.25 + exp(...)).

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int],
        orientation: Orientation,
        arms: int = 4,
        clip: bool = False,
        sigma: float = 1.5,
    ) -> None:
        super().__init__()
        if orientation not in ORIENTATIONS:
            raise ValueError(f"orientation is {orientation!r}; use one of {ORIENTATIONS}")
        if orientation != "none" and not all(size % 2 for size in kernel_size):
            raise ValueError(f"kernel_size {kernel_size} has no center tap; use odd sizes")
        if arms < 1:
            raise ValueError(f"arms is {arms}; use at least 1")
        if not sigma > SIGMA_MIN:
            raise ValueError(f"sigma is {sigma}; use a value above {SIGMA_MIN}")
        self.kernel_size = kernel_size
        self.orientation = orientation
        self.arms = arms
        self.clip = clip
        self.log_sigma = nn.Parameter(torch.full((1, 1, 1), math.log(sigma - SIGMA_MIN)))
        if orientation == "learned":
            low, high = TAU_RANGE
            self.theta = nn.Parameter(torch.tensor(_THETA_START))
            self.tau_logit = nn.Parameter(
                torch.tensor(math.log((_TAU_START - low) / (high - _TAU_START)))
            )
        if orientation == "steered":
            self.log_sharpness = nn.Parameter(torch.tensor(0.0))

    @property
    def bank_size(self) -> int:
        """Number of kernels: n for the bank modes, 1 for the static ones."""
        return self.arms if self.orientation in ("max", "steered") else 1

    @property
    def sigma(self) -> Tensor:
        """(1, 1, 1), in taps, above 0.25."""
        return _sigma(self.log_sigma)

    @property
    def tau(self) -> Tensor:
        """Scalar width of the soft mask's edge in taps, in [1e-3, 1]; only when learned."""
        return _tau(self.tau_logit)

    def forward(self) -> Tensor:
        """Return (bank, 1, kh, kw), not normalized."""
        mask = self._masks()  # (bank, kh, kw)
        if self.clip:
            mask = mask * (self._squares() <= (min(self.kernel_size) // 2) ** 2)
        return self.gaussian() * mask.unsqueeze(1)

    def gaussian(self) -> Tensor:
        """The Gaussian without the mask, (1, kh, kw)."""
        return torch.exp(-self._squares() / (2 * self.sigma**2))

    def reduce(self, responses: Tensor) -> Tensor:
        """Join the responses of a bank, a channel's side by side.

        Args:
            responses: (N, C · bank, H, W).

        Returns:
            (N, C, H, W); the responses as they are if there is no bank.
        """
        if self.bank_size == 1:
            return responses
        n, maps, height, width = responses.shape
        channels = maps // self.bank_size
        banked = responses.reshape(n, channels, self.bank_size, height, width)
        if self.orientation == "steered":
            return steer(banked, self.log_sharpness.exp())
        return largest(banked)

    def extra_repr(self) -> str:
        """Describe the constructor's arguments."""
        return f"{self.kernel_size}, {self.orientation}, arms={self.arms}, clip={self.clip}"

    def _squares(self) -> Tensor:
        """(kh, kw) squared distances to the center, in taps."""
        i, j = _offsets(self.kernel_size, self.log_sigma)
        return i**2 + j**2

    def _masks(self) -> Tensor:
        """(bank, kh, kw) of zeros and ones."""
        zero = torch.zeros((), dtype=self.log_sigma.dtype, device=self.log_sigma.device)
        if self.orientation == "none":
            return torch.ones((1, *self.kernel_size), dtype=zero.dtype, device=zero.device)
        if self.orientation == "learned":
            return pinwheel_mask(self.kernel_size, self.theta, self.arms, self.tau).unsqueeze(0)
        if self.orientation == "fixed":
            return pinwheel_mask(self.kernel_size, zero, self.arms, zero + _TAU_START).unsqueeze(0)
        return _on_bar(arm_distances(self.kernel_size, zero, self.arms)).to(zero.dtype)


def draw_learned(kernels: Sequence[GaussianPinwheelKernel]) -> Tensor:
    """What several learned kernels of one shape give one by one, in one batch of operations.

    Args:
        kernels: n with orientation "learned", of one kernel_size, arms and clip.

    Returns:
        (n, kh, kw), not normalized.
    """
    first = kernels[0]

    def gather(name: str) -> Tensor:  # (n,)
        return torch.stack([getattr(each, name).reshape(()) for each in kernels])

    theta, sigma = gather("theta"), _sigma(gather("log_sigma"))[:, None, None]
    mask = pinwheel_mask(first.kernel_size, theta, first.arms, _tau(gather("tau_logit")))
    i, j = _offsets(first.kernel_size, theta)
    squares = i**2 + j**2
    if first.clip:
        mask = mask * (squares <= (min(first.kernel_size) // 2) ** 2)
    return torch.exp(-squares / (2 * sigma**2)) * mask


def largest(responses: Tensor) -> Tensor:
    """Response of the largest magnitude: (N, C, bank, H, W) to (N, C, H, W)."""
    winner = responses.abs().argmax(dim=2, keepdim=True)
    return responses.gather(2, winner).squeeze(2)


def steer(responses: Tensor, sharpness: Tensor) -> Tensor:
    """Softmax-weighted mean of the responses by magnitude (ours): (N, C, bank, H, W), one less.

    ``sharpness`` (1 / temperature) 0 gives the plain mean, infinity gives `largest`.
    """
    return (torch.softmax(responses.abs() * sharpness, dim=2) * responses).sum(dim=2)


def _offsets(kernel_size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets of the taps from the center: i (kh, 1) down and j (1, kw) right."""
    height, width = kernel_size
    i = torch.arange(height, dtype=like.dtype, device=like.device) - (height - 1) / 2
    j = torch.arange(width, dtype=like.dtype, device=like.device) - (width - 1) / 2
    return i.reshape(-1, 1), j.reshape(1, -1)


def _sigma(log_sigma: Tensor) -> Tensor:
    return SIGMA_MIN + log_sigma.exp()


def _tau(tau_logit: Tensor) -> Tensor:
    low, high = TAU_RANGE
    return low + (high - low) * torch.sigmoid(tau_logit)


def _on_bar(distance: Tensor) -> Tensor:
    return distance < _HALF_WIDTH - _TIE


def _straight_through(distance: Tensor, tau: Tensor) -> Tensor:
    soft = torch.sigmoid((_HALF_WIDTH - distance) / tau)
    hard = _on_bar(distance).to(soft.dtype)  # soft > 0.5
    return hard + (soft - soft.detach())
