"""The SHA-256 that a model file has of itself, by which damage is found before it changes answers.

It stands in the file's own metadata and is that of the whole file, of an OpenVINO model with its
.bin, with 64 zeros in its own place. It finds damage, not forgery. Files of earlier versions have
none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from pinglow.errors import ModelError

KEY: Final = "sha256"
"""Where it stands in the metadata of weights and of ONNX models."""

OPENVINO_KEY: Final = "pinglow_sha256"
"""The same in OpenVINO's metadata, into which other programs copy that of an ONNX model."""

UNSEALED: Final = "0" * 64
"""What stands there until `seal` has been called."""

_MARKS: Final = {
    ".safetensors": b'"sha256":"',
    ".onnx": b"\n\x06sha256\x12@",  # key, and tag and length of the value, in protobuf
    ".xml": b'<pinglow_sha256 value="',
}
"""The bytes before it, by the kind of file."""


def seal(content: bytes, suffix: str, beside: bytes = b"") -> bytes:
    """Put the checksum into a file's content, over `UNSEALED` or an earlier one.

    Args:
        content: Of the file.
        suffix: Says its kind.
        beside: Of the .bin that belongs to it.
    """
    place = _find(content, suffix)
    assert place is not None
    return content[: place.start] + _digest(content, place, beside) + content[place.stop :]


def is_whole(path: Path) -> bool | None:
    """Whether a model file's checksum holds; None: it has none.

    Raises:
        OSError: It cannot be read.
    """
    content = path.read_bytes()
    place = _find(content, path.suffix.lower())
    if place is None:
        return None
    weights = path.with_suffix(".bin")
    beside = weights.read_bytes() if path.suffix.lower() == ".xml" and weights.is_file() else b""
    return content[place] == _digest(content, place, beside)


def check_whole(path: Path) -> None:
    """See that a model file is as it was written, as far as it says so itself.

    Raises:
        ModelError: Its checksum does not hold, or it cannot be read.
    """
    try:
        whole = is_whole(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path") from error
    if whole is False:
        raise ModelError(
            f"{path} is damaged or was changed (its checksum does not hold); put a whole copy in "
            "its place, or train or export it again"
        )


def _find(content: bytes, suffix: str) -> slice | None:
    mark = _MARKS.get(suffix)
    at = -1 if mark is None else content.find(mark)
    if mark is None or at < 0:
        return None
    start = at + len(mark)
    return slice(start, start + len(UNSEALED))


def _digest(content: bytes, place: slice, beside: bytes) -> bytes:
    digest = hashlib.sha256(content[: place.start])
    digest.update(UNSEALED.encode())
    digest.update(content[place.stop :])
    digest.update(beside)
    return digest.hexdigest().encode()
