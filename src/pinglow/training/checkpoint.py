"""Training checkpoints that are whole or not there, and are never unpickled freely.

A file is a header, the SHA-256 of the rest, and what torch.save wrote. It is written beside its
target, fsynced and renamed; a torn or changed file is refused by its checksum.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, Final

import torch

from pinglow.errors import ModelError
from pinglow.files import write_whole

_HEADER: Final = b"pinglow checkpoint 2\n"
_OLDER: Final = b"pinglow checkpoint 1\n"
_DIGEST_SIZE: Final = hashlib.sha256().digest_size


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getvalue()
    write_whole(path, _HEADER + hashlib.sha256(content).digest() + content)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; tensors and plain containers only.

    Raises:
        ModelError: The file is missing, torn, changed, of another kind or of an older version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    digest, payload = _split(content)
    if content.startswith(_OLDER):
        raise ModelError(
            f"{path} was written by an older version of pinglow; resume with that version, or "
            "start a new run with --set init= and its weights"
        )
    if not content.startswith(_HEADER):
        raise ModelError(f"{path} is not a pinglow training checkpoint; name a run folder")
    if hashlib.sha256(payload).digest() != digest:
        raise ModelError(
            f"{path} is torn or was changed (its checksum does not hold); "
            "put a whole copy in its place or train anew"
        )
    try:
        loaded: dict[str, Any] = torch.load(
            io.BytesIO(payload), map_location="cpu", weights_only=True
        )
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path} holds more than tensors and numbers, so it is not loaded; "
            "use a checkpoint that pinglow train has written"
        ) from error
    return loaded


def _split(content: bytes) -> tuple[bytes, bytes]:
    start = len(_HEADER)
    return content[start : start + _DIGEST_SIZE], content[start + _DIGEST_SIZE :]
