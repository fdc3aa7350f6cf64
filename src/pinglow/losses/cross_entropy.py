"""The binary cross entropy of pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CrossEntropyLoss(nn.Module):
    """Mean over pixels of -log p where the mask is 1 and -log(1 - p) where it is 0."""

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits and 0/1 mask (N, 1, H, W) to a scalar.

        Raises:
            ValueError: The shapes differ.
        """
        exact = torch.promote_types(logits.dtype, torch.float32)
        return F.binary_cross_entropy_with_logits(logits.to(exact), mask.to(exact))
