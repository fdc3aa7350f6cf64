"""Temporary."""

from __future__ import annotations

import torch


def choose_device(name: str = "auto") -> torch.device:
    """Temporary."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
