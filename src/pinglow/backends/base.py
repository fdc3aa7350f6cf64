"""What every backend is: images in, probabilities out, whatever computes them and wherever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pinglow.structures import FloatArray

CPU: Final = torch.device("cpu")

PRECISIONS: Final = ("float32", "tf32")
"""How a card multiplies: exactly, or in TensorFloat-32 (10 bits of mantissa), which is faster."""


class Backend:
    """Maps images to target probabilities.

    A backend of its own kind gives `device`, `run` and `run_gates`.
    """

    name: ClassVar[str]
    """As in `pinglow.backends.opening.BACKENDS`."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        raise NotImplementedError

    def run(self, images: Tensor, gates: Tensor | None) -> Tensor:
        """(N, 1, H, W) to probabilities of the same shape; see `__call__`."""
        raise NotImplementedError

    def run_gates(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) to the images' own channel attention (N, G)."""
        raise NotImplementedError

    def place(self, values: FloatArray) -> Tensor:
        """An array as a tensor where `run` takes it."""
        return torch.from_numpy(values).to(self.device)

    @torch.inference_mode()
    def __call__(
        self,
        images: FloatArray,
        gates: FloatArray | None = None,
        size: tuple[int, int] | None = None,
    ) -> FloatArray:
        """Probabilities of images: (N, 1, H, W) float32 to the same shape.

        Args:
            images: H and W at least 32, unless they are enlarged.
            gates: (1, G), fix the channel attention; None: the images' own.
            size: Height and width that images are enlarged to for the network, where it computes,
                so that a card is sent only the small ones. None: as they are.
        """
        batch = self.place(images)
        large = batch if size is None else enlarge(batch, size)
        found = self.run(large, None if gates is None else self.place(gates))
        return np.asarray(bring_back(found, batch.shape[-2:]).cpu().numpy())

    @torch.inference_mode()
    def gates(self, images: FloatArray) -> FloatArray:
        """The channel attention of images (N, 1, H, W): (N, G) in [0, 1]."""
        return np.asarray(self.run_gates(self.place(images)).cpu().numpy())


def enlarge(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 1, H, W) to (N, 1, *size), bilinear; on the images' device."""
    return images if images.shape[-2:] == size else F.interpolate(images, size, mode="bilinear")


def bring_back(probability: Tensor, size: Sequence[int]) -> Tensor:
    """(N, 1, H, W) in [0, 1] to (N, 1, *size), by means over what becomes one pixel."""
    if tuple(probability.shape[-2:]) == tuple(size):
        return probability
    back = F.interpolate(probability, list(size), mode="bilinear", antialias=True)
    return back.clamp(0, 1)  # its weights add up to 1 only up to rounding
