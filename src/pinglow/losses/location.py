"""The location loss: how far the predicted center of mass is from the true one.

Source: SLS loss, MSHNet, https://arxiv.org/abs/2403.19366. Ours: centroids are normalized by mass
instead of by pixel count, so that position and area are not coupled, and everything is vectorised.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from pinglow.losses.overlap import image_areas

_EPSILON: Final = 1e-6
_CORNER: Final = 1e-6  # centroids stay this far off the corner, where the angle has no gradient


def location_terms(probability: Tensor, mask: Tensor) -> Tensor:
    """The location loss of each image, (N,); 0 where there is no target.

    1 - min(rho) / max(rho) + 4/pi² · (phi_p - phi_t)², with rho the length and phi the angle of
    the centroid seen from the image's top-left corner, in coordinates of pixel centers
    ((i + 0.5) / H, (j + 0.5) / W).

    Args:
        probability: (N, 1, H, W), in [0, 1].
        mask: (N, 1, H, W), 0 or 1, of the same type.

    Returns:
        (N,), in [0, 2].
    """
    rho_p, phi_p = _polar_centroid(probability)
    rho_t, phi_t = _polar_centroid(mask)
    ratio = torch.minimum(rho_p, rho_t) / torch.maximum(rho_p, rho_t)
    term = 1 - ratio + 4 / math.pi**2 * (phi_p - phi_t) ** 2
    return term * (mask.flatten(1).amax(1) > 0)


class LocationLoss(nn.Module):
    """Mean of `location_terms` over the batch."""

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits and 0/1 mask (N, 1, H, W) to a scalar in [0, 2].

        Raises:
            ValueError: The shapes differ.
        """
        _, probability = image_areas(logits, mask)
        return location_terms(probability, mask.to(probability.dtype)).mean()


def _polar_centroid(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Length and angle of the center of mass of (N, 1, H, W) weights, each (N,)."""
    height, width = weight.shape[-2:]
    rows = weight.sum(dim=(1, 3))  # (N, H)
    columns = weight.sum(dim=(1, 2))  # (N, W)
    area = rows.sum(1) + _EPSILON
    # Not a matrix product: autocast would take that in half precision.
    y = ((rows * _centers(height, weight)).sum(1) / area).clamp(min=_CORNER)
    x = ((columns * _centers(width, weight)).sum(1) / area).clamp(min=_CORNER)
    return torch.hypot(x, y), torch.atan2(y, x)


def _centers(count: int, like: Tensor) -> Tensor:
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count
