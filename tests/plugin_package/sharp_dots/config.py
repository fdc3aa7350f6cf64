from __future__ import annotations

from pydantic import Field

from pinglow.models.registry import NetworkConfig


class DotsConfig(NetworkConfig):
    """What a recipe may say of DotsNet."""

    network = "sharp_dots.network:DotsNet"

    width: int = Field(default=4, gt=0)
