from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pinglow.errors import ModelError
from pinglow.models import card
from pinglow.models.card import ModelCard, read_card
from pinglow.models.registry import build_network
from pinglow.models.weights import load_network, save_model
from pinglow.nn import ATTENTIONS
from pinglow.preprocess import InputRule

CONFIG: dict[str, Any] = {
    "type": "PinwheelUNet",
    "in_channels": 1,
    "widths": [4, 8],
    "depths": [1, 1],
    "attention": "learned",
    "patch": 2,
}


def make_card(**changes: Any) -> ModelCard:
    content = {"name": "tiny", "network": CONFIG, "parameters": 1, "threshold": 0.3}
    return ModelCard.model_validate(content | changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.safetensors"
    save_model(file, build_network(CONFIG), make_card())
    return file


def rewrite(path: Path, metadata: dict[str, str] | None) -> None:
    save_file(load_file(path), path, metadata)


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_a_saved_network_is_the_same_when_loaded(tmp_path: Path, attention: str) -> None:
    config = CONFIG | {"attention": attention}
    network = build_network(config).eval().to(memory_format=torch.channels_last)
    card = make_card(
        network=config,
        input_rule=InputRule(long_side=300, max_scale=1.5),
        scores=[{"iou": 0.5, "pd": None}],
        recipe="[a]\nb = 'é'\n",
    )
    save_model(tmp_path / "deep" / "m.safetensors", network, card)
    loaded, read = load_network(tmp_path / "deep" / "m.safetensors")
    assert read == card
    assert not loaded.training
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    image = torch.randn(1, 1, 40, 48)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), network(image))


def test_a_bundled_name_goes_before_a_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "bundled_models", lambda: {"mine": path})
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text("something else")
    assert read_card("mine").name == "tiny"
    with pytest.raises(ModelError, match=r"'gone' is neither a file .* bundled: mine"):
        read_card("gone")


def test_a_run_folder_stands_for_its_weights(path: Path) -> None:
    run = path.parent / "run"
    run.mkdir()
    with pytest.raises(ModelError, match=r"run has no weights\.safetensors: name a run folder"):
        read_card(run)
    path.rename(run / "weights.safetensors")
    assert read_card(run) == read_card(run / "weights.safetensors")


def test_a_torn_file_is_refused_by_name(path: Path) -> None:
    content = path.read_bytes()
    cuts = [0, 1, 7, 8, 100, *random.Random(0).sample(range(len(content)), 10), len(content) - 1]
    for length in cuts:
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"tiny\.safetensors is not a readable safetensors"):
            load_network(path)


@pytest.mark.parametrize("content", [b"hello" * 100, b"\x80\x02}q\x00.", b"\xff" * 64])
def test_a_file_of_another_kind_is_refused_by_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"tiny\.safetensors is not a readable safetensors"):
        load_network(path)


def test_foreign_safetensors_are_refused(path: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        rewrite(path, metadata)
        with pytest.raises(ModelError, match=r"tiny\.safetensors has no pinglow card"):
            load_network(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"name": "x"}', json.dumps({"network": CONFIG, "new": 1})]
)
def test_a_card_that_is_not_understood_is_refused(path: Path, text: str) -> None:
    rewrite(path, {"pinglow": text})
    with pytest.raises(ModelError, match=r"tiny\.safetensors has a card that this version"):
        load_network(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalization": "minmax"}, "wants normalization 'minmax'"),
        ({"network": {"type": "ResNet"}}, "'ResNet' is none of"),
        ({"network": {}}, "None is none of"),
        ({"network": CONFIG | {"width": 3}}, "cannot be built: .*unexpected keyword"),
        ({"network": CONFIG | {"widths": [4]}}, "cannot be built: widths and depths"),
        ({"network": CONFIG | {"widths": [4, -8]}}, "cannot be built"),
        ({"network": CONFIG | {"widths": "many"}}, "cannot be built"),
        ({"network": CONFIG | {"attention": "mystic"}}, "cannot be built: .*'mystic'"),
        ({"network": CONFIG | {"widths": [4, 16]}}, "weights of another network than its card"),
        ({"network": CONFIG | {"depths": [1, 2]}}, "weights of another network than its card"),
        ({"network": CONFIG | {"attention": "free"}}, "weights of another network than its card"),
    ],
    ids=str,
)
def test_a_card_that_does_not_fit_is_refused_in_one_line(
    path: Path, changes: dict[str, Any], message: str
) -> None:
    rewrite(path, {"pinglow": json.dumps(make_card(**changes).model_dump(mode="json"))})
    with pytest.raises(ModelError, match=message) as raised:
        load_network(path)
    assert "tiny.safetensors" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    struck = tmp_path / "struck"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(struck),)

    torch.save({"weight": Bomb()}, tmp_path / "bomb.safetensors")
    with pytest.raises(ModelError):
        load_network(tmp_path / "bomb.safetensors")
    assert not struck.exists()


def test_cards_refuse_unknown_fields_and_bad_thresholds() -> None:
    for changes in ({"treshold": 0.5}, {"threshold": 1.0}, {"threshold": -0.1}):
        with pytest.raises(ValueError, match=r"tre?shold|threshold"):
            make_card(**changes)


def test_weights_of_a_changed_shape_are_refused(path: Path) -> None:
    tensors = load_file(path)
    tensors["stem.weight"] = tensors["stem.weight"][:, :1].contiguous()
    save_file(tensors, path, {"pinglow": json.dumps(make_card().model_dump(mode="json"))})
    with pytest.raises(ModelError, match="weights of another network"):
        load_network(path)


def test_a_network_is_saved_without_being_changed(tmp_path: Path) -> None:
    network = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    save_model(tmp_path / "m.safetensors", network, make_card())
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key].numpy())
