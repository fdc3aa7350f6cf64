from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.torch import load_file

from pinglow.backends.opening import open_model
from pinglow.errors import ModelError
from pinglow.models.card import (
    CARD_KEY,
    OperatingPoint,
    bundled_graph,
    bundled_models,
    find_model,
    read_card,
)
from pinglow.models.checksum import KEY, is_whole
from pinglow.models.recard import save_with_card

POINT = OperatingPoint(
    min_score=0.7,
    unit="frame",
    wished=0.1,
    alarms=0,
    rate=0.0,
    bound=0.03,
    confidence=0.95,
    frames=100,
    clips=100,
    command='predict "ä\n<&>"',
)


@pytest.mark.parametrize("form", ["safetensors", "onnx", "openvino"])
def test_a_copy_computes_the_same_and_has_the_card(
    form: str, small_model: Path, exported: dict[str, Path], tmp_path: Path
) -> None:
    model = exported.get(form, small_model)
    before, card = open_model(model, device="cpu")
    new = card.model_copy(update={"operating_point": POINT})
    copy = save_with_card(model, new, tmp_path / "mine")
    assert find_model(tmp_path / "mine") == copy
    assert is_whole(copy)
    opened, read = open_model(tmp_path / "mine", device="cpu")
    assert read == new
    assert read.choose_score() == 0.7
    images = np.random.default_rng(0).normal(size=(1, 1, 40, 48)).astype(np.float32)
    np.testing.assert_array_equal(opened(images), before(images))
    again = save_with_card(copy, card, tmp_path / "again")  # from a card of another length
    assert open_model(again, device="cpu")[1] == card


def test_tensors_and_graph_are_untouched(
    small_model: Path, exported: dict[str, Path], tmp_path: Path
) -> None:
    card = read_card(small_model)
    copy = save_with_card(small_model, card, tmp_path)
    before, after = load_file(small_model), load_file(copy)
    assert list(before) == list(after)
    assert all(bool((before[name] == after[name]).all()) for name in before)
    first = onnx.load(exported["onnx"])
    second = onnx.load(save_with_card(exported["onnx"], card, tmp_path))
    keys = [entry.key for entry in second.metadata_props]
    assert sorted(keys) == sorted({entry.key for entry in first.metadata_props})
    assert {CARD_KEY, KEY} <= set(keys)
    for model in (first, second):
        del model.metadata_props[:]
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_a_copy_of_a_bundled_model_has_its_graph(tmp_path: Path, small_model: Path) -> None:
    bundled = bundled_models()["pinglow-fast"]
    copy = save_with_card(bundled, read_card(bundled), tmp_path)
    assert bundled_graph(copy) == bundled.with_suffix(".onnx")
    assert bundled_graph(small_model) is None
    (tmp_path / "torn.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0{")
    assert bundled_graph(tmp_path / "torn.safetensors") is None


def test_a_damaged_model_is_not_copied(small_model: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copy(small_model, tmp_path / "damaged.safetensors"))
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        save_with_card(damaged, read_card(small_model), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_folder_of_two_exported_models_asks_which(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    for path in exported.values():
        shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)
    with pytest.raises(ModelError, match="several models"):
        find_model(tmp_path)


def test_a_graph_whose_weights_lie_beside_it_is_not_copied(tmp_path: Path) -> None:
    weights = bundled_models()["pinglow-fast"]
    graph = bundled_graph(weights)
    assert graph is not None
    with pytest.raises(ModelError, match="keeps its weights in another file"):
        save_with_card(graph, read_card(weights), tmp_path)
    assert not any(tmp_path.iterdir())
