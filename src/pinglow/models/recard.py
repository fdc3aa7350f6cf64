"""A copy of a model file of any kind with another card, its weights as they are. Without torch.

Formats: https://huggingface.co/docs/safetensors (a length, a header in JSON, the tensors) and
onnx.proto of https://github.com/onnx/onnx (``metadata_props`` is field 14 of ``ModelProto``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from pinglow.errors import ModelError
from pinglow.files import write_whole
from pinglow.models.card import (
    CARD_KEY,
    HEADER_LENGTH,
    WEIGHTS,
    ModelCard,
    split_safetensors,
)
from pinglow.models.checksum import KEY, OPENVINO_KEY, UNSEALED, check_whole, seal

_METADATA_FIELD: Final = 14
_OUTSIDE: Final = b"\x0a\x08location\x12"  # the key of a tensor whose values are in another file
_TEXT: Final = 2  # the wire type of what has a length


def save_with_card(model: Path, card: ModelCard, folder: Path) -> Path:
    """Copy a model file into a folder, under another card; whole or not at all.

    Args:
        model: Weights (.safetensors), or an exported model (.onnx; .xml with its .bin).
        card: The card of the copy.
        folder: Where the copy goes, as weights.safetensors, model.onnx or model.xml.

    Returns:
        The copy.

    Raises:
        ModelError: The model is damaged, of another kind, or not in one file.
        OSError: It cannot be read, or the copy cannot be written.
    """
    check_whole(model)
    content, suffix = model.read_bytes(), model.suffix.lower()
    text = card.model_dump_json()
    if suffix == ".safetensors":
        path = folder / WEIGHTS
        write_whole(path, seal(_in_safetensors(content, text), suffix))
    elif suffix == ".onnx":
        if _OUTSIDE in content:
            raise ModelError(
                f"{model} keeps its weights in another file: name the weights file, or a model "
                "that pinglow export has written"
            )
        path = folder / "model.onnx"
        write_whole(path, seal(_in_onnx(content, text), suffix))
    else:
        path = folder / "model.xml"
        weights = model.with_suffix(".bin").read_bytes()
        write_whole(path.with_suffix(".bin"), weights)
        write_whole(path, seal(_in_openvino(content, text, model), suffix, weights))
    return path


def _in_safetensors(content: bytes, text: str) -> bytes:
    header, tensors = split_safetensors(content)
    header["__metadata__"] = {**header["__metadata__"], CARD_KEY: text, KEY: UNSEALED}
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % HEADER_LENGTH)  # tensors begin at a multiple of it
    return len(written).to_bytes(HEADER_LENGTH, "little") + written + tensors


def _in_onnx(content: bytes, text: str) -> bytes:
    """The fields of a protobuf message but for the two entries of ours, and these anew."""
    ours = [_entry(key, "")[: len(key) + 2] for key in (CARD_KEY, KEY)]  # up to the value
    kept = [
        content[start:stop]
        for number, start, body, stop in _fields(content)
        if number != _METADATA_FIELD or not any(content[body:stop].startswith(own) for own in ours)
    ]
    new = (_entry(CARD_KEY, text), _entry(KEY, UNSEALED))
    return b"".join([*kept, *(_field(_METADATA_FIELD, entry) for entry in new)])


def _fields(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Each field of a protobuf message: its number, and where it, its body and the next begin."""
    at = 0
    while at < len(content):
        start = at
        tag, at = _read_varint(content, at)
        kind = tag & 7
        body = at
        if kind == _TEXT:
            length, body = _read_varint(content, at)
            at = body + length
        elif kind == 0:
            _, at = _read_varint(content, at)
        else:
            at += 4 if kind == 5 else 8
        yield tag >> 3, start, body, at


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _TEXT) + _varint(len(body)) + body


def _entry(key: str, value: str) -> bytes:
    """A key and its value, as ONNX has them in its metadata."""
    return _field(1, key.encode()) + _field(2, value.encode())


def _in_openvino(content: bytes, text: str, model: Path) -> bytes:
    card = escape(text, {'"': "&quot;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"})
    for key, value in ((CARD_KEY, card), (OPENVINO_KEY, UNSEALED)):
        pattern = rf'<{key} value="[^"]*"'.encode()
        new = f'<{key} value="{value}"'.encode()
        # One may come from the ONNX model that it was converted from.
        content, count = re.subn(pattern, new.replace(b"\\", rb"\\"), content)
        if not count:
            raise ModelError(
                f"{model} has no {key} of pinglow's in it: use a model that pinglow export has "
                "written"
            )
    return content
