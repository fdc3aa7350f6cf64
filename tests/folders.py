"""Data folders that tests write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage


def texture(seed: int, side: int = 64) -> NDArray[np.uint8]:
    """A scene of its own: unrelated seeds never look alike."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 1.5)
    return ((noise - noise.min()) / np.ptp(noise) * 200).astype(np.uint8)


def write_folder(folder: Path, frames: list[NDArray[np.uint8]], names: str = "f") -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index, frame in enumerate(frames):
        mask = np.zeros(frame.shape, dtype=np.uint8)
        mask[10:13, 20 + index] = 255
        Image.fromarray(frame).save(folder / "images" / f"{names}{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{names}{index}.png")
    (folder / "train.txt").write_text("".join(f"{names}{i}\n" for i in range(len(frames))))
    return folder
