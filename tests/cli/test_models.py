from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner

from pinglow.cli.main import app
from pinglow.models.card import ModelCard
from pinglow.models.weights import save_model

CARD = ModelCard(
    name="tiny",
    network={"type": "fast", "width": 8},
    parameters=12345,
    threshold=0.4,
    data=[
        {"name": "clouds", "license": "none stated", "frames": 3},
        {"name": "sea", "license": "CC0 [1.0]"},
    ],
    scores=[{"data": "clouds", "protocol": "strict", "iou": 0.71234, "pd": None}],
    recipe="[optimizer]\nname = 'adamw'",
    command="pinglow train fast",
    license="Apache-2.0",
)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model(path, nn.Linear(1, 1), CARD)
    monkeypatch.setattr("pinglow.models.card.bundled_models", lambda: {"tiny": path})
    monkeypatch.setenv("COLUMNS", "100")
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_list_has_one_row_a_model(weights: Path) -> None:
    (row,) = [line for line in run().splitlines() if "tiny" in line]
    for cell in ("12,345", "0.4", "clouds, sea", "Apache-2.0"):
        assert cell in row


@pytest.mark.parametrize("by_path", [False, True])
def test_a_card_is_shown_for_a_person(weights: Path, by_path: bool) -> None:
    name = str(weights) if by_path else "tiny"
    text = run(name)
    for value in ("12,345", "type fast, width 8", "none stated", "CC0 [1.0]", "71.2", "Apache-2.0"):
        assert value in text
    assert "adamw" not in text
    assert "name = 'adamw'" in run(name, "--recipe")


def test_json_is_the_card_itself(weights: Path) -> None:
    assert json.loads(run("tiny", "--json")) == CARD.model_dump(mode="json")
    assert json.loads(run("--json")) == [CARD.model_dump(mode="json")]


def test_no_bundled_models_is_an_empty_list(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinglow.models.card.bundled_models", dict)
    assert json.loads(run("--json")) == []


def test_an_unknown_model_is_refused_by_name(weights: Path) -> None:
    result = CliRunner().invoke(app, ["models", "gone"])
    assert result.exit_code == 2
    assert "'gone'" in result.stderr
    assert "tiny" in result.stderr
