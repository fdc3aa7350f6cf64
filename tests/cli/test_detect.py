from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pinglow.cli.main import app
from pinglow.data.synthetic.scenes import SceneSpec, write_dataset

pytest.importorskip("ultralytics", reason="needs ultralytics: pip install 'pinglow[detect]'")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    spec = SceneSpec(width=64, height=64, targets=(1, 2), snr=(20, 30), length=(2, 6))
    write_dataset(folder, 10, spec, kinds=("gradient",), seed=1)
    return folder


@pytest.fixture(scope="module")
def weights(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as the command trains them, in a few steps."""
    run_folder = tmp_path_factory.mktemp("runs") / "run"
    result = run_train(
        *("detect", "--data", scenes, "--set", "network.type=retinanet-small"),
        *("--set", "network.gaussian=true"),
        *("--run", run_folder, "--set", "steps=2", "--set", "batch_size=2"),
        *("--set", "optimizer.learning_rate=1e-5"),  # finds everywhere still
        *("--set", "augmentation.crop=32", "--set", "data.validation=0.25"),
    )
    assert result.exit_code == 0, result.output
    assert "last validation mAP50" in result.stderr
    assert (run_folder / "curves.png").is_file()
    return run_folder / "weights.safetensors"


def run_train(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["detect", *map(str, arguments)])


def test_what_a_detector_finds_is_written_as_predict_writes_it(
    weights: Path, scenes: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    frames = sorted((scenes / "images").glob("*.png"))[:2]
    out = tmp_path / "out"
    result = run(
        "predict", *frames, broken, "--model", weights, "--out", out, "--threshold", "0.005"
    )
    assert result.exit_code == 2, result.output
    assert "broken.png" in result.stderr
    lines = [json.loads(line) for line in (out / "targets.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0].keys() == {"source", "frame", "name", "width", "height", "targets"}
    targets: list[dict[str, Any]] = [target for line in lines for target in line["targets"]]
    assert targets
    assert targets[0].keys() == {"x", "y", "bbox", "area", "score"}
    assert len(list((out / "overlays").glob("*.png"))) == 2


def test_scores_are_printed_and_written(weights: Path, scenes: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    result = run(
        *("evaluate", "--data", scenes, "--split", "test", "--model", weights, "--json", file)
    )
    assert result.exit_code == 0, result.output
    assert "mAP50" in result.stdout
    scores = json.loads(file.read_text())
    assert scores["protocol"] == "boxes"
    assert {"ap50", "ap", "pd", "fa", "ci95"} <= scores.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "x.png", "--model", "pinglow-fast"], "x.png"),
        (["predict", ".", "--model", "m", "--save", "mask"], "choose from overlay, csv, jsonl"),
        (["train", "--data", "x", "--detector", "yolov8n"], "is pinglow train now: pinglow train"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "network.type=yolov9"], "network.type is 'yolov9'"),
        (["--boxes", "voc"], "--boxes says where the boxes of --data are"),
        (["--data", ".", "--boxes", "xml"], "boxes"),
    ],
)
def test_mistakes_in_training_are_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_train("detect", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_device_that_is_not_there_is_one_sentence(
    weights: Path, scenes: Path, tmp_path: Path, have_cards: Callable[[int], None], command: str
) -> None:
    have_cards(1)
    data = {
        "predict": [scenes / "images", "--out", tmp_path / "out"],
        "evaluate": ["--data", scenes, "--split", "test"],
    }
    result = run(command, *data[command], "--model", weights, "--device", "cuda:1")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "device 'cuda:1' cannot be used: PyTorch finds cuda:0 and no more" in result.stderr


def test_every_broken_label_is_named_before_training(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "boxes"
    done = CliRunner().invoke(
        app,
        ["data", "convert", str(scenes), "--split", "train", "--to", "yolo", "--out", str(folder)],
    )
    assert done.exit_code == 0
    assert "give --split a second time" in done.stderr
    first, second = sorted((folder / "labels").glob("*.txt"))[:2]
    first.write_text("0 0.5\n")
    second.write_text("0 0.5 0.5 nothing 0.1\n")
    result = run_train("detect", "--data", folder, "--boxes", "yolo", "--run", tmp_path / "run")
    assert result.exit_code == 2
    assert first.name in result.stderr
    assert second.name in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_detector_is_no_model_for_predict(weights: Path, scenes: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        ["predict", str(scenes / "images"), "--model", str(weights), "--out", str(tmp_path / "o")],
    )
    assert result.exit_code == 2
    assert "it finds boxes" in result.stderr
    back = run("predict", scenes / "images", "--model", "pinglow-fast", "--out", tmp_path / "o")
    assert back.exit_code == 2
    assert "it finds pixels" in back.stderr
