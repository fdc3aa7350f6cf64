"""Every bit of a model file counts: one that is turned is found, in every kind of file."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.torch import load_file, save_file

from pinglow.backends.opening import open_model
from pinglow.errors import ModelError
from pinglow.models.card import bundled_graph, bundled_models
from pinglow.models.checksum import UNSEALED, is_whole
from pinglow.models.weights import load_network

FORMS = ("weights.safetensors", "model.onnx", "model.xml", "model.bin")


@pytest.fixture(scope="session")
def files(
    small_model: Path, exported: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a folder with the small model in every form."""
    folder = tmp_path_factory.mktemp("forms")
    shutil.copy(small_model, folder / "weights.safetensors")
    for path in exported.values():
        shutil.copytree(path.parent, folder, dirs_exist_ok=True)
    return folder


def flips(content: bytes, count: int, start: int = 0) -> Iterator[bytes]:
    """Yield contents with one bit turned."""
    draw = random.Random(0)
    for _ in range(count):
        place = draw.randrange(start, len(content))
        turned = bytes([content[place] ^ 1 << draw.randrange(8)])
        yield content[:place] + turned + content[place + 1 :]


def first_difference(first: bytes, second: bytes) -> int:
    return next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)


@pytest.mark.parametrize("name", FORMS)
def test_a_turned_bit_is_found(files: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    path = tmp_path / ("model.xml" if name == "model.bin" else name)
    assert is_whole(path)
    # A safetensors file begins with its length; what that says wrongly is not even a header.
    whole = (tmp_path / name).read_bytes()
    for content in flips(whole, 200, 8 if "safe" in name else 0):
        (tmp_path / name).write_bytes(content)
        if is_whole(path) is None:  # what was hit is the key, and so nothing else
            places = [found.start() for found in re.finditer(b"sha256", whole)]
            assert any(abs(first_difference(whole, content) - place) < 16 for place in places)
        else:
            assert is_whole(path) is False
            with pytest.raises(ModelError, match=f"{path.name} (is|has) "):
                open_model(path, device="cpu")


def test_the_checksum_is_of_the_file_with_zeros_in_its_place(files: Path) -> None:
    content = (files / "weights.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    given = json.loads(content[8 : 8 + length])["__metadata__"]["sha256"]
    blank = content.replace(given.encode(), UNSEALED.encode())
    assert hashlib.sha256(blank).hexdigest() == given
    (stored,) = [e for e in onnx.load(files / "model.onnx").metadata_props if e.key == "sha256"]
    blank = (files / "model.onnx").read_bytes().replace(stored.value.encode(), UNSEALED.encode())
    assert hashlib.sha256(blank).hexdigest() == stored.value


def test_what_comes_with_pinglow_is_whole() -> None:
    for weights in bundled_models().values():
        graph = bundled_graph(weights)
        assert graph is not None
        assert is_whole(weights)
        assert is_whole(graph)


def test_files_of_earlier_versions_have_none_and_load(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    content = (files / "weights.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    card = json.loads(content[8 : 8 + length])["__metadata__"]["pinglow"]
    save_file(load_file(files / "weights.safetensors"), path, {"pinglow": card})
    assert is_whole(path) is None
    assert load_network(path)[1] == load_network(files / "weights.safetensors")[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(files: Path, tmp_path: Path, value: float) -> None:
    tensors = load_file(files / "weights.safetensors")
    tensors["stem.weight"].view(-1)[3] = value
    content = (files / "weights.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    card = json.loads(content[8 : 8 + length])["__metadata__"]["pinglow"]
    save_file(tensors, tmp_path / "w.safetensors", {"pinglow": card})
    with pytest.raises(ModelError, match=r"w\.safetensors holds a weight that is no finite number"):
        open_model(tmp_path / "w.safetensors", device="cpu")


def test_a_damaged_conversion_is_made_again(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = (files / "model.onnx").read_bytes()
    monkeypatch.setattr("pinglow.models.conversion.convert_to_onnx", lambda *_: graph)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    weights = files / "weights.safetensors"
    image = np.random.default_rng(0).standard_normal((1, 1, 40, 40), dtype=np.float32)
    expected = open_model(weights, "onnxruntime", "cpu")[0](image)
    (kept,) = (tmp_path / "pinglow").glob("*.onnx")
    kept.write_bytes(next(flips(graph, 1)))
    np.testing.assert_array_equal(open_model(weights, "onnxruntime", "cpu")[0](image), expected)
    assert kept.read_bytes() == graph
