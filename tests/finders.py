"""Frames and what finds their targets, for tests of archives; other processes import it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.archive.settings import Settings
from pinglow.structures import Prediction


def find_bright(frame: NDArray[Any]) -> Prediction:
    return Prediction((frame > 100).astype(np.float32))


def die_of_wide(frame: NDArray[Any]) -> Prediction:
    """Ends its process where a frame is wider than 50 pixels."""
    if frame.shape[1] > 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return find_bright(frame)


@dataclass(frozen=True)
class FinderSettings(Settings):
    find: Callable[[NDArray[Any]], Prediction] = find_bright

    def load_predictor(self) -> Any:
        return self.find


class DyingSettings(FinderSettings):
    """Of a model that ends whatever process loads it."""

    def load_predictor(self) -> Any:
        os._exit(9)


def finder_settings(find: Callable[[NDArray[Any]], Prediction] = find_bright) -> FinderSettings:
    return FinderSettings("m", "m", "d" * 64, 0.5, None, "{}", find=find)


def save_still(path: Path, number: int = 0, width: int = 30) -> Path:
    """Save a frame with one target, in a place that the number says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = np.full((20, width), 50, dtype=np.uint8)
    frame[4:6, 7 + number : 9 + number] = 200
    Image.fromarray(frame).save(path)
    return path
