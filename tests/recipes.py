"""A tiny recipe, which trains in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tiny_recipe(scenes: Path, base: dict[str, Any], changes: dict[str, Any]) -> Any:
    """A recipe on a folder of scenes: what ``base`` says, then ``changes``, section by section."""
    from pinglow.training.recipe_file import parse_recipe

    content: dict[str, Any] = {
        "name": "tiny",
        "seed": 3,
        "batch_size": 2,
        "ema_decay": 0.9,
        "data": {
            "root": str(scenes.parent),
            "sets": [{"folder": scenes.name, "split": "train"}],
            "validation": 0.25,
        },
        "augmentation": {"crop": 32},
        "input_rule": {"max_scale": 1.0},
    } | base
    for key, value in changes.items():
        inner = content.get(key)
        content[key] = inner | value if isinstance(inner, dict) else value
    return parse_recipe(content, "test")
