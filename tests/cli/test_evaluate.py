"""pinglow evaluate, from a folder to its tables and JSON."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from pinglow import __version__
from pinglow.cli.main import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three frames: one target found, one missed, one frame without a target."""
    for part in ("images", "masks", "found"):
        (tmp_path / part).mkdir()
    for index in range(3):
        mask = np.zeros((40, 60), dtype=np.uint8)
        if index < 2:
            mask[10:13, 20:24] = 255
        frame = np.random.default_rng(index).integers(0, 99, size=mask.shape, dtype=np.uint8)
        found = mask if index != 1 else np.zeros_like(mask)
        for part, image in [("images", frame), ("masks", mask), ("found", found)]:
            Image.fromarray(image).save(tmp_path / part / f"f{index}.png")
    (tmp_path / "test.txt").write_text("f0\nf1\nf2\n")
    (tmp_path / "one.txt").write_text("f0\n")
    return tmp_path


def run(folder: Path, *arguments: Any) -> Result:
    command = ["evaluate", "--data", folder, *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in command])


def test_scores_saved_predictions(folder: Path) -> None:
    out = folder / "scores.json"
    result = run(folder, "--split", "test", "--predictions", folder / "found", "--json", out)
    assert result.exit_code == 0, result.output
    scores = json.loads(out.read_text())
    assert scores["protocol"] == "strict"
    assert (scores["images"], scores["targets"]) == (3, 2)
    assert (scores["iou"], scores["niou"], scores["pd"], scores["fa"]) == (0.5, 2 / 3, 0.5, 0)
    assert (scores["precision"], scores["recall"], scores["f1"]) == (1, 0.5, 2 / 3)
    assert scores["ci95"]["pd"] == [0, 1]
    assert [row["targets"] for row in scores["per_size"]] == [0, 2, 0, 0]


def test_tables_say_the_protocol_and_print_percent_and_millionths(folder: Path) -> None:
    Image.fromarray(np.full((40, 60), 255, np.uint8)).save(folder / "found" / "f2.png")
    result = run(folder, "--predictions", folder / "found")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert "protocol strict: original size, optimal one-to-one matching" in result.stdout
    assert "images: 3, targets: 2, threshold: 0.5\n" in result.stdout
    assert ["Pd", "50.00", "%", "[0.00,", "100.00]"] in lines
    assert ["Fa", "333333.33", "1e-6", "[0.00,", "1000000.00]"] in lines
    assert ["10-25", "2", "1", "50.00", "100.00"] in lines
    assert ["1-9", "0", "0", "-", "-"] in lines


def test_several_protocols_give_a_list(folder: Path) -> None:
    out = folder / "scores.json"
    saved = ["--predictions", folder / "found", "--json", out]
    result = run(folder, "--protocol", "greedy", "--protocol", "strict", *saved)
    assert result.exit_code == 0, result.output
    assert [scores["protocol"] for scores in json.loads(out.read_text())] == ["greedy", "strict"]
    assert result.stdout.index("protocol greedy") < result.stdout.index("protocol strict")


def test_undefined_is_null_and_a_dash(folder: Path) -> None:
    (folder / "empty.txt").write_text("f2\n")
    out = folder / "scores.json"
    result = run(folder, "--split", "empty", "--predictions", folder / "found", "--json", out)
    scores = json.loads(out.read_text())
    assert (scores["pd"], scores["ci95"]["pd"], scores["niou"]) == (None, None, 1)
    assert ["Pd", "-", "%", "-"] in [line.split() for line in result.stdout.splitlines()]


def test_split_may_be_a_path_and_another_threshold_is_pointed_out(folder: Path) -> None:
    result = run(
        folder, "--split", folder / "one.txt", "--predictions", folder / "found", "--threshold", 0.3
    )
    assert "images: 1, targets: 1, threshold: 0.3 (not the protocol's 0.5)" in result.stdout


def test_scores_a_model_under_every_protocol(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pinglow.inference import predictor

    class Bright:
        kind = "pixels"

        def probabilities(self, frames: Any) -> Any:
            return ((frame > 200).astype(np.float32) for frame in frames)

    for index in range(3):
        mask = np.array(Image.open(folder / "masks" / f"f{index}.png"))
        Image.fromarray(np.maximum(mask, 50)).save(folder / "images" / f"f{index}.png")
    bright = str(folder / "bright")
    Path(bright).write_bytes(b"weights")
    monkeypatch.setattr(predictor.Predictor, "load", lambda model, **_: {bright: Bright()}[model])
    protocols = ["strict", "greedy", "mshnet256", "basicirstd"]
    out = folder / "scores.json"
    result = run(
        folder, "--model", bright, "--json", out, *(f"--protocol={name}" for name in protocols)
    )
    assert result.exit_code == 0, result.output
    scores = json.loads(out.read_text())
    assert [(score["protocol"], score["pd"], score["fa"]) for score in scores] == [
        (name, 1, 0) for name in protocols
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --model or --predictions"),
        (["--model", "pinglow-fast", "--scale", "1"], "--scale and --resize are for saved maps"),
        (["--predictions", "found", "--scale", "-1"], "--scale '-1' is unknown"),
        (["--predictions", "found", "--scale", "nan"], "--scale 'nan' is unknown"),
        (["--predictions", "found", "--resize", "cubic"], "choose nearest or bilinear"),
        (["--predictions", "found", "--predictions", "fuond"], "fuond is not a folder"),
        (
            ["--predictions", "found", "--protocol", "lenient"],
            "choose from strict, greedy, mshnet256",
        ),
        (["--predictions", "found", "--protocol", "mshnet256"], "cannot score saved predictions"),
        (["--predictions", "found", "--protocol", "basicirstd"], "cannot score saved predictions"),
        (["--predictions", "found", "--threshold", "128"], "--threshold 128.0 is out of range"),
        (["--predictions", "found", "--flips"], "--flips is for a model"),
        (["--predictions", "found", "--device", "cpu"], "--device and --precision are for a model"),
        (["--model", "pinglow-fast", "--device", "gpu"], "device 'gpu' is unknown: use cpu, cuda"),
        (["--predictions", "found", "--score", "boxes"], "--boxes are for a model"),
        (["--predictions", "found", "--boxes", "voc"], "--boxes are for a model"),
        (["--predictions", "found", "--score", "tracks"], "choose pixels or boxes"),
        (["--model", "pinglow-fast", "--score", "pixels", "--boxes", "masks"], "leave one of"),
        (
            ["--model", "pinglow-fast", "--boxes", "masks", "--protocol", "mshnet256"],
            "choose strict or greedy for boxes",
        ),
        (["--model", "pinglow-fast", "--boxes", "xml"], "boxes from 'xml' are unknown"),
        (["--predictions", "nowhere"], "nowhere is not a folder"),
        (["--predictions", "images", "--split", "val"], "has no list val.txt"),
        (["--predictions", "found", "--json", "no/where.json"], "--json no/where.json"),
        (["--predictions", "found", "--json", "found"], "--json found is a folder"),
    ],
)
def test_mistakes_end_in_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    result = run(folder, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_missing_and_a_misfitting_prediction_are_named(folder: Path) -> None:
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(folder / "found" / "f1.png")
    result = run(folder, "--predictions", folder / "found")
    assert result.exit_code == 2
    assert "left out: Prediction" in result.stderr
    assert "f1.png is 6 x 4 but its mask is 60 x 40" in result.stderr
    assert "images: 2, targets: 1" in result.stdout  # the others are scored
    for index in (0, 2):
        Image.fromarray(np.zeros((4, 6), np.uint8)).save(folder / "found" / f"f{index}.png")
    all_of_them = run(folder, "--predictions", folder / "found").stderr
    assert all_of_them.startswith(
        "error: none of 3 maps can be scored, the first because: Prediction"
    )
    assert all_of_them.count("\n") == 1
    (folder / "found" / "f1.png").unlink()
    assert (
        "*.png is missing for 1 of the 3 names (f1)"
        in run(folder, "--predictions", folder / "found").stderr
    )


def test_a_broken_frame_is_left_out_of_the_scores_and_told(folder: Path) -> None:
    expected = folder / "expected.json"
    (folder / "others.txt").write_text("f0\nf2\n")
    saved = ("--predictions", folder / "found")
    assert run(folder, *saved, "--split", "others", "--json", expected).exit_code == 0
    broken, out = folder / "images" / "f1.png", folder / "scores.json"
    broken.write_bytes(broken.read_bytes()[:60])
    result = run(folder, *saved, "--json", out)
    assert result.exit_code == 2
    assert "images: 2, targets: 1" in result.stdout
    assert f"warning: left out: {broken} is damaged" in result.stderr
    assert "these are scores of 2 of the list's 3 frames" in result.stderr
    assert json.loads(out.read_text()) == json.loads(expected.read_text()) | {"list": "test"}


def test_a_frame_without_a_finite_pixel_is_left_out(folder: Path) -> None:
    (folder / "images" / "f1.png").unlink()
    np.save(folder / "images" / "f1.npy", np.full((40, 60), np.nan))
    result = run(folder, "--model", "pinglow-fast", "--backend", "torch", "--protocol", "mshnet256")
    assert result.exit_code == 2
    assert "images: 2, targets: 1" in result.stdout
    assert f"warning: left out: {folder / 'images' / 'f1.npy'} has no finite pixel" in result.stderr


def test_without_a_readable_frame_there_are_no_scores(folder: Path) -> None:
    (folder / "masks" / "f0.png").write_bytes(b"")
    result = run(folder, "--predictions", folder / "found", "--split", "one")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.endswith("none of the 1 frames could be scored: see above why\n")


def test_predictions_saved_as_0_and_1_are_not_taken_for_darkness(folder: Path) -> None:
    for path in (folder / "found").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    result = run(folder, "--predictions", folder / "found")
    assert result.exit_code == 2
    assert "give --scale 1 if that stands for 1" in result.stderr
    assert run(folder, "--predictions", folder / "found", "--scale", 1).exit_code == 0


def test_maps_that_are_nearly_dark_are_scored(folder: Path) -> None:
    (folder / "free.txt").write_text("f2\n")
    for level in (0, 1, 46, 256):
        dim = np.full((40, 60), level, dtype=np.uint16)
        Image.fromarray(dim).save(folder / "found" / "f2.png")
        result = run(folder, "--predictions", folder / "found", "--split", "free")
        assert result.exit_code == 0


# --- whose scores they are ----------------------------------------------------------------------


def test_a_report_names_model_hash_data_list_and_version(folder: Path, small_model: Path) -> None:
    out = folder / "scores.json"
    model = ("--model", small_model, "--backend", "torch", "--threshold", 0.123456789)
    result = run(folder, *model, "--split", "one", "--json", out)
    assert result.exit_code == 0, result.output
    scores = json.loads(out.read_text())
    digest = hashlib.sha256(small_model.read_bytes()).hexdigest()
    assert scores["model"] == str(small_model)
    assert scores["sha256"] == {small_model.name: digest}
    assert (scores["data"], scores["list"]) == (str(folder), "one")
    assert (scores["pinglow"], scores["protocol"]) == (__version__, "strict")
    assert scores["threshold"] == 0.123456789
    text = " ".join(result.stdout.split())
    assert f"{digest[:12]} ({small_model.name})" in text
    assert f"list one; pinglow {__version__}" in text
    assert "threshold: 0.123456789 (not the protocol's 0.5)" in text


def test_several_are_compared_in_a_table_with_a_row_for_each(
    folder: Path, small_model: Path
) -> None:
    out, blank = folder / "scores.json", folder / "blank"
    blank.mkdir()
    for index in range(3):
        np.save(blank / f"f{index}_prob.npy", np.full((40, 60), 0.75, dtype=np.float32))
    maps = ("--predictions", folder / "found", "--predictions", blank)
    result = run(folder, "--model", small_model, "--backend", "torch", *maps, "--json", out)
    assert result.exit_code == 0, result.output
    scores = json.loads(out.read_text())
    assert scores[0]["model"] == str(small_model)
    assert [each["predictions"] for each in scores[1:]] == [str(folder / "found"), str(blank)]
    alone = folder / "alone.json"
    run(folder, "--predictions", folder / "found", "--json", alone)
    assert scores[1] == json.loads(alone.read_text())
    assert scores[2]["fa"] == 1
    rows = result.stdout[result.stdout.index("IoU") :]
    assert ["50.00", "66.67", "50.00", "0.00", "66.67", "0.000"] in [
        line.split()[-6:] for line in rows.splitlines()
    ]
    assert "1000000.00" in rows


def test_one_of_several_that_cannot_be_scored_loses_no_other(folder: Path) -> None:
    dark = folder / "dark"
    dark.mkdir()
    for index in range(3):
        Image.new("L", (60, 40)).save(dark / f"f{index}.png")
    maps = ("--predictions", folder / "found", "--predictions", dark)
    result = run(folder, *maps, "--json", folder / "scores.json")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"warning: left out: No map in {dark} has a pixel above")
    assert result.stderr.count("\n") == 1
    assert "Pd" in result.stdout
    assert json.loads((folder / "scores.json").read_text())["pd"] == 0.5


def test_json_on_standard_output_is_alone_there(folder: Path) -> None:
    result = run(folder, "--predictions", folder / "found", "--json", "-")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["pd"] == 0.5
    assert "protocol strict" in result.stderr
    assert not Path("-").exists()


def test_tables_come_before_a_file_that_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pinglow.cli import output_file

    def fail(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(output_file, "write_whole", fail)
    out = folder / "s.json"
    result = run(folder, "--predictions", folder / "found", "--json", out)
    assert result.exit_code == 2
    assert "protocol strict" in result.stdout
    assert (
        result.stderr == f"error: --json: cannot write {out}: the disk is full, free some space\n"
    )


def test_a_terminal_of_another_encoding_gets_all_of_it(folder: Path) -> None:
    name = "\u56fe\u50cf"
    for part in ("images", "masks", "found"):
        (folder / part / "f0.png").rename(folder / part / f"{name}.png")
    (folder / "images" / "f1.png").write_bytes(b"")
    (folder / "other.txt").write_text(f"f1\n{name}\n", encoding="utf-8")
    (folder / name).symlink_to("found")
    command = ["-m", "pinglow", "evaluate", "--data", ".", "--split", "other"]
    done = subprocess.run(
        [sys.executable, *command, "--predictions", name],
        capture_output=True,
        cwd=folder,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 2
    assert b"f1.png is empty" in done.stderr
    assert b"Traceback" not in done.stderr
    assert rb"predictions \u56fe\u50cf" in done.stdout
    assert b"images: 1, targets: 1" in done.stdout


# --- boxes -----------------------------------------------------------------------------------


def boxes_of(folder: Path, *arguments: Any) -> dict[str, Any]:
    pytest.importorskip("faster_coco_eval", reason="needs pip install '.[detect]'")
    out = folder / "scores.json"
    result = run(folder, "--json", out, *arguments)
    assert result.exit_code == 0, result.output
    assert "mAP50" in result.stdout
    scores: dict[str, Any] = json.loads(out.read_text())
    assert scores["protocol"] == "boxes"
    assert {"ap50", "ap", "pd", "fa", "ci95"} <= scores.keys()
    assert (scores["images"], scores["targets"]) == (3, 2)
    return scores


def test_a_detector_is_scored_by_boxes(folder: Path, detector_weights: Path) -> None:
    model = ("--model", detector_weights)
    assert boxes_of(folder, *model)["threshold"] == 0.5
    assert boxes_of(folder, *model, "--threshold", 0.25, "--boxes", "masks")["threshold"] == 0.25
    refused = run(folder, *model, "--score", "pixels")
    assert refused.exit_code == 2
    assert "--score pixels is not for a detector" in refused.stderr


def test_a_segmentation_model_is_scored_by_boxes_where_that_is_asked(
    folder: Path, small_model: Path
) -> None:
    model = ("--model", small_model, "--backend", "torch")
    by_option = boxes_of(folder, *model, "--score", "boxes")
    assert boxes_of(folder, *model, "--boxes", "masks") == by_option
    done = CliRunner().invoke(
        app,
        [
            *("data", "convert", str(folder), "--split", "test", "--to", "coco"),
            *("--out", str(folder)),
        ],
    )
    assert done.exit_code == 0, done.output
    (folder / "masks").rename(folder / "elsewhere")
    assert boxes_of(folder, *model) == by_option


def test_a_broken_frame_is_left_out_of_the_boxes_and_told(folder: Path, small_model: Path) -> None:
    pytest.importorskip("faster_coco_eval", reason="needs pip install '.[detect]'")
    (folder / "images" / "f1.png").write_bytes(b"")
    result = run(folder, "--model", small_model, "--backend", "torch", "--score", "boxes")
    assert result.exit_code == 2
    assert "boxes from masks" in " ".join(result.stdout.split())
    assert "images: 2, targets: 1" in result.stdout
    assert "these are scores of 2 of the list's 3 frames" in result.stderr


def test_importing_the_command_loads_nothing_heavy() -> None:
    code = (
        "import sys, pinglow.cli.evaluate;"
        "print([m for m in ('numpy', 'scipy', 'torch', 'rich.table') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_panels_show_the_worst_frames_first(folder: Path) -> None:
    out = folder / "out"
    command = ["--predictions", folder / "found", "--save", "panels", "--out", out]
    result = run(folder, *command)
    assert result.exit_code == 0, result.output
    assert f"3 panels, the worst frame first, are in {out / 'panels'}" in result.stderr
    drawn = sorted(path.name for path in (out / "panels").iterdir())
    assert drawn == ["01-f1-1-wrong.png", "02-f0-0-wrong.png", "03-f2-0-wrong.png"]
    run(folder, *command, "--panels", 1)
    (path,) = (out / "panels").iterdir()
    with Image.open(path) as picture:
        assert (np.asarray(picture)[60:] == (240, 228, 66)).all(axis=-1).any()  # a miss


def test_of_several_models_panels_show_first_where_they_differ_most(folder: Path) -> None:
    (folder / "better").mkdir()
    for index in range(3):  # right in f1, and three false alarms in f0
        mask = np.zeros((40, 60), dtype=np.uint8)
        if index == 1:
            mask[10:13, 20:24] = 255
        if index == 0:
            mask[10:13, 20:24] = mask[30:32, 2:50:20] = 255
        Image.fromarray(mask).save(folder / "better" / f"f{index}.png")
    both = ["--predictions", folder / "found", "--predictions", folder / "better"]
    result = run(folder, *both, "--save", "panels", "--out", folder / "out")
    assert result.exit_code == 0, result.output
    assert "3 panels, where the models differ most first, are in" in result.stderr
    drawn = sorted(path.name for path in (folder / "out" / "panels").iterdir())
    assert drawn == ["01-f0-3-wrong.png", "02-f1-1-wrong.png", "03-f2-0-wrong.png"]


def test_panels_that_cannot_be_had_are_refused(folder: Path) -> None:
    (folder / "file").touch()
    found = ["--predictions", folder / "found"]
    for wrong, message in (
        (["--save", "overlay"], "evaluate saves panels"),
        (["--save", "panels", "--protocol", "greedy"], "add --protocol strict"),
        (["--save", "panels", "--out", folder / "file"], "--out"),
        (["--save", "panels", "--panels", 0], "--panels"),
        (["--panels", 3], "give them with --save panels"),
        (["--out", folder / "out"], "give them with --save panels"),
    ):
        result = run(folder, *found, *wrong)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_last_line_says_the_scores_in_words(folder: Path) -> None:
    def words() -> str:
        output = run(folder, "--predictions", folder / "found").stdout
        return " ".join(output[output.index("in words:") :].split())

    found = "in words: 1 of 2 targets were found (Pd); 0 false alarms in 3 frames; "
    assert words() == found + "50% of all pixels drawn or true are both (IoU)"
    false = np.zeros((40, 60), dtype=np.uint8)
    false[5, 5:10] = 255
    Image.fromarray(false).save(folder / "found" / "f2.png")
    assert "; 1 false alarm in 3 frames, covering 694.4 of a million pixels (Fa);" in words()
