"""A tiny data set, and recipes of detectors that train on it in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pinglow.data.synthetic import SceneSpec, write_dataset
from pinglow.detection.recipe import DetectorRecipe
from pinglow.training.recipe_file import parse_recipe


@pytest.fixture(scope="module", autouse=True)
def _repeatable(one_thread: None) -> None:
    """Compare runs bit for bit."""


@pytest.fixture(scope="session", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep ultralytics off the network and out of the user's settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_OFFLINE", "true")
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))
        yield


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder of forty small 14-bit scenes with bright targets."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    spec = SceneSpec(width=64, height=64, targets=(1, 2), snr=(20, 30), length=(2, 6))
    write_dataset(folder, 40, spec, kinds=("gradient",), seed=1)
    return folder


@pytest.fixture(scope="session")
def make_recipe(scenes: Path) -> Callable[..., DetectorRecipe]:
    """Return a function from changes, section by section, to a tiny recipe on the scenes."""

    def make(**changes: Any) -> DetectorRecipe:
        content: dict[str, Any] = {
            "name": "tiny",
            "seed": 3,
            "steps": 4,
            "batch_size": 2,
            "validate_every": 2,
            "ema_decay": 0.9,
            "detector": {"type": "retinanet-small"},
            "optimizer": {"warmup_steps": 1},
            "data": {
                "root": str(scenes.parent),
                "sets": [{"folder": "scenes", "split": "train"}],
                "validation": 0.25,
            },
            "augmentation": {"crop": 32},
            "input_rule": {"max_scale": 1.0},
        }
        for key, value in changes.items():
            inner = content.get(key)
            content[key] = inner | value if isinstance(inner, dict) else value
        return parse_recipe(DetectorRecipe, content, "test")

    return make
