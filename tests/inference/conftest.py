"""A stand-in for a card, for all that only asks where a backend computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def on_card() -> Callable[..., Any]:
    """Return what makes a backend of a network that says it is on a card, and notes batches."""
    import torch
    from torch import Tensor, nn

    from pinglow.backends.device import Device
    from pinglow.backends.torch import TorchBackend

    class Card(TorchBackend):
        def __init__(self, network: nn.Module) -> None:
            super().__init__(network)
            self.batches: list[tuple[int, ...]] = []

        @property
        def device(self) -> Device:
            return Device("cuda", 0)

        def _place(self, values: Any) -> Tensor:
            return torch.from_numpy(values)

        def __call__(self, images: Any, *rest: Any, **named: Any) -> Any:
            self.batches.append((*images.shape[:2], *named.get("size", images.shape[2:])))
            return super().__call__(images, *rest, **named)

    return Card
