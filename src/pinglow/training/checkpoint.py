"""Training checkpoints that are whole or not there, and run nothing when they are read.

A file is a header, the SHA-256 of the rest, and a safetensors file: the tensors, and in its
metadata the structure around them as JSON. It is written beside its target, fsynced and renamed; a
torn or changed file is refused by its checksum.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pinglow.errors import ModelError
from pinglow.files import read_whole, write_whole

_HEADER: Final = b"pinglow checkpoint 3\n"
_OLDER: Final = (b"pinglow checkpoint 1\n", b"pinglow checkpoint 2\n")
_DIGEST_SIZE: Final = hashlib.sha256().digest_size
_LARGEST: Final = 2**36  # bytes
_STRUCTURE: Final = "structure"


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint of tensors, numbers, text and plain containers, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_take_out(checkpoint, tensors))
    content = save(tensors, metadata={_STRUCTURE: structure})
    write_whole(path, _HEADER + hashlib.sha256(content).digest() + content)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing is unpickled.

    Raises:
        ModelError: The file is missing, torn, changed, of another kind or of an older version.
    """
    try:
        content = read_whole(path, _LARGEST)
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
        tensors = load(payload)
        loaded: dict[str, Any] = _put_back(json.loads(_metadata(payload)[_STRUCTURE]), tensors)
        if not isinstance(loaded["global_step"], int):
            raise TypeError("steps are a number")
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise not_a_checkpoint(path) from error
    return loaded


def not_a_checkpoint(path: Path) -> ModelError:
    """What to say of a file whose checksum holds, but whose content is not that of a run."""
    return ModelError(
        f"{path} does not hold what a training run saves, so it is not loaded; use a checkpoint "
        "that pinglow train has written"
    )


def _metadata(payload: bytes) -> dict[str, str]:
    """The metadata of a safetensors file, of which `load` has seen that it is one."""
    length = int.from_bytes(payload[:8], "little")
    metadata: dict[str, str] = json.loads(payload[8 : 8 + length])["__metadata__"]
    return metadata


def _take_out(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON has it, its tensors by their number; keys need not be text."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # Of its own memory: two views of one would not be saved.
        tensors[name] = value.detach().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"table": [[key, _take_out(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        items = [_take_out(inner, tensors) for inner in value]
        return items if isinstance(value, list) else {"tuple": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _put_back(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_take_out` was given."""
    if isinstance(value, list):
        return [_put_back(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_put_back(inner, tensors) for inner in content)
    if kind == "table":
        return {key: _put_back(inner, tensors) for key, inner in content}
    raise ValueError(f"{kind} is unknown")


def _split(content: bytes) -> tuple[bytes, bytes]:
    start = len(_HEADER)
    return content[start : start + _DIGEST_SIZE], content[start + _DIGEST_SIZE :]
