from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pinglow.cli.main import app
from pinglow.deploy import export as export_module
from pinglow.deploy.export import ExportReport
from pinglow.deploy.quantize import Accuracy
from pinglow.errors import ModelError


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_exports_and_predicts_with_it(small_model: Path, tmp_path: Path) -> None:
    result = run(small_model, "--format", "onnx", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    path = tmp_path / "out" / "model.onnx"
    assert result.stdout.startswith(f"{path}: 0.")
    assert "checked against the original: probabilities differ by at most" in result.stdout
    np.save(tmp_path / "frame.npy", np.random.default_rng(0).normal(size=(50, 60)))
    arguments = ["--model", str(path), "--out", str(tmp_path / "found"), "--backend", "onnxruntime"]
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "frame.npy"), *arguments])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["models", str(path)])
    assert result.exit_code == 0, result.output
    assert "small" in result.stdout


def test_int8_prints_what_it_costs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scores = {
        "float32": {"iou": 0.7, "pd": 0.9, "fa": 2e-5},
        "int8": {"iou": 0.6912, "pd": None, "fa": 3e-5},
    }
    report = ExportReport(tmp_path / "model.xml", 1_200_000, None, Accuracy(7, scores, True))
    monkeypatch.setattr(export_module, "export_model", lambda *_: report)
    arguments = ["--format", "openvino", "--int8", "--calibration", tmp_path, "--out", tmp_path]
    result = run("m", *arguments)
    assert result.exit_code == 0, result.output
    assert "model.xml: 1.20 MB" in result.stdout
    assert "69.12" in result.stdout
    assert "30.00" in result.stdout
    assert "on 7 frames that int8 was not calibrated on, against their masks" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["m", "--format", "tflite"],
            "--format 'tflite' is unknown: use onnx or openvino or triton",
        ),
        (["m", "--int8"], "--int8 and --calibration DIR go together"),
        (["m", "--calibration", "d"], "--int8 and --calibration DIR go together"),
        (["gone"], "'gone' is neither a file nor a bundled model"),
    ],
)
def test_impossible_options_are_one_line(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert f"error: {message}" in result.stderr or message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_refused_export_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("it differs")

    monkeypatch.setattr(export_module, "export_model", refuse)
    result = run("m", "--out", tmp_path)
    assert (result.exit_code, result.stderr) == (2, "error: it differs\n")
