"""Detectors' libraries, without their network, and a small data set that they read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pinglow.data.convert import convert_labels
from pinglow.data.synthetic.scenes import SENSORS, SceneSpec, write_dataset


@pytest.fixture(scope="session", autouse=True)
def _offline(offline_detectors: None) -> None:
    """Keep ultralytics off the network and out of the user's settings."""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return six synthetic 8-bit scenes of 64 x 64, as a data folder of pinglow's."""
    folder = tmp_path_factory.mktemp("scenes") / "set"
    spec = SceneSpec(
        kind="cloud", width=64, height=64, targets=(1, 2), snr=(10, 20), sensor=SENSORS[8]
    )
    write_dataset(folder, 6, spec, seed=1)
    return folder


@pytest.fixture(scope="session")
def yolo_set(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same for ultralytics: its data.yaml."""
    out = tmp_path_factory.mktemp("yolo") / "set"
    convert_labels(scenes, ["train"], "yolo", out)
    return out / "data.yaml"
