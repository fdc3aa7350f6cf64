"""What tells a model apart from another one of its name: the hashes of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pinglow.models.card import find_model


def hash_model(name_or_path: str | Path) -> dict[str, str]:
    """SHA-256 of each file of a model, as sha256sum prints it, by the file's name.

    Args:
        name_or_path: A bundled model's name, or the path of weights, of their run folder or of an
            exported model.

    Raises:
        ModelError: It is not there.
    """
    path = find_model(name_or_path)
    weights = path.with_suffix(".bin")  # of an OpenVINO model
    files = [path, weights] if path.suffix.lower() == ".xml" and weights.is_file() else [path]
    hashes = {}
    for each in files:
        with each.open("rb") as file:
            hashes[each.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
