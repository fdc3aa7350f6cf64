"""A tiny data set and a recipe that trains on it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pinglow.data.synthetic.scenes import SceneSpec, write_dataset
from pinglow.training.recipe import Recipe
from recipes import tiny_recipe


@pytest.fixture(scope="module", autouse=True)
def _repeatable(one_thread: None) -> None:
    """Compare runs bit for bit."""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder of ten small scenes with bright targets, eight in train.txt."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    spec = SceneSpec(width=64, height=64, targets=(1, 2), snr=(20, 30), length=(2, 6))
    write_dataset(folder, 10, spec, kinds=("gradient",), seed=1)
    return folder


@pytest.fixture(scope="session")
def make_recipe(scenes: Path) -> Callable[..., Recipe]:
    """Return a function from changes, section by section, to a tiny recipe on the scenes."""
    base = {
        "steps": 10,
        "validate_every": 5,
        "network": {"widths": [4, 8], "depths": [1, 1]},
        "loss": {"warmup_steps": 4},
        "optimizer": {"warmup_steps": 2},
    }
    return lambda **changes: tiny_recipe(scenes, base, changes)
