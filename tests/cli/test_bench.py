from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pinglow.cli.main import app


def test_times_a_model(small_model: Path, tmp_path: Path) -> None:
    arguments = ["--models", f"{small_model}", "--size", "64x48", "--repeats", "3"]
    result = CliRunner().invoke(
        app,
        [
            *("bench", *arguments, "--backends", "torch,onnxruntime", "--json", "-"),
            *("--plot", str(tmp_path / "speed.svg")),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "times as fast as" in result.stderr
    assert result.stderr.count("onnxruntime") >= 2  # in 80 columns no name is cut
    assert [each["backend"] for each in json.loads(result.stdout)] == ["torch", "onnxruntime"]
    assert (tmp_path / "speed.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backends", "tpu"], "--backends 'tpu' is unknown"),
        (["--device", "tpu"], "device 'tpu' is unknown: use cpu, cuda, cuda:N or auto"),
        (["--device", "cuda", "--backends", "openvino"], "OpenVINO computes on the CPU only"),
        (["--device", "cpu", "--precision", "fp16"], "precision 'fp16' is unknown"),
        (["--size", "256"], "--size '256' is not WIDTHxHEIGHT"),
        (["--size", f"64x{'9' * 5000}"], "is not WIDTHxHEIGHT"),
        (["--size", "16x256"], "32 to 8192 pixels"),
        (["--size", "3000000x3000000"], "32 to 8192 pixels"),
        (["--models", ""], "--models names no model"),
        (["--models", "gone"], "'gone' is neither a file nor a bundled model"),
        (["--plot", "a.pdf"], "--plot a.pdf is neither"),
        (["--json", "no/where.json"], "--json no/where.json is in a folder that does not exist"),
    ],
)
def test_impossible_options_are_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
