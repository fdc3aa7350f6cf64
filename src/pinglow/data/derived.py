"""Which masks of a data folder were not drawn but derived from boxes or points: derived.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.io.labels.text import read_json

DERIVED: Final = "derived.json"


def write_derived(folder: Path, masks: dict[str, str]) -> None:
    """Note of each frame whose mask was derived what it was derived from: boxes, points or both."""
    content = {
        "about": "masks that pinglow data import has grown from boxes or points, by frame",
        "masks": masks,
    }
    write_whole(folder / DERIVED, f"{json.dumps(content, ensure_ascii=False, indent=1)}\n".encode())


def read_derived(folder: Path) -> dict[str, str]:
    """What each derived mask of a data folder was derived from, by its frame's name.

    Raises:
        DataError: derived.json is broken.
    """
    path = folder / DERIVED
    if not path.is_file():
        return {}
    content = read_json(path)
    masks = content.get("masks") if isinstance(content, dict) else None
    if not isinstance(masks, dict):
        raise DataError(f"{path} has no table of masks: import the labels again, or remove it")
    return {str(name): str(source) for name, source in masks.items()}
