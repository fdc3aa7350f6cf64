from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pinglow.cli.data import app
from pinglow.cli.scoring import BoxTask
from pinglow.data.boxes import BoxFolder
from pinglow.data.folder import FrameFolder, read_split
from pinglow.data.known import KNOWN_DATASETS
from pinglow.errors import DataError, FrameError, OptionError, PinglowError


def run(*arguments: str | Path) -> Result:
    # Wide enough that no table wraps a name.
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in arguments])


def run_well(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: str | Path) -> PinglowError:
    error = run(*arguments).exception
    assert isinstance(error, PinglowError)
    return error


def test_synth_writes_what_was_asked(tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    said = run_well(
        "synth", out, "--count", "8", "--bits", "8", "--kind", "sea", "--size", "96x64",
        "--snr", "5-6", "--targets", "1-2", "--length", "3", "--cold", "1", "--seed", "4",
    )  # fmt: skip
    assert str(out) in said
    frames = [np.asarray(Image.open(path)) for path in sorted((out / "images").iterdir())]
    assert len(frames) == 8
    assert {(frame.shape, str(frame.dtype)) for frame in frames} == {((64, 96), "uint8")}
    with (out / "scenes.csv").open(newline="") as file:
        truth = list(csv.DictReader(file))
    assert {row["kind"] for row in truth} == {"sea"}
    assert all(5 <= float(row["snr"]) <= 6 for row in truth)
    assert all(float(row["length"]) == 3 for row in truth)
    assert all(float(row["amplitude"]) < 0 for row in truth)
    assert {row["targets"] for row in truth} == {"1", "2"}


def test_synth_defaults_are_mixed_16_bit_files_of_14_bits(tmp_path: Path) -> None:
    run_well("synth", tmp_path / "s", "--count", "4", "--size", "64x64")
    with (tmp_path / "s" / "scenes.csv").open(newline="") as file:
        kinds = {row["kind"] for row in csv.DictReader(file)}
    assert kinds == {"cloud", "sea", "ground", "gradient"}
    frame = np.asarray(Image.open(tmp_path / "s" / "images" / "000000.png"))
    assert frame.dtype == np.uint16
    assert 255 < frame.max() < 2**14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "12"], "--bits 12"),
        (["--kind", "lava"], "--kind lava"),
        (["--size", "64"], "--size 64"),
        (["--size", "16x16"], "16x16"),
        (["--size", "99999x64"], "99999x64"),
        (["--snr", "9-3"], "--snr 9-3"),
        (["--snr", "-3"], "--snr -3"),
        (["--length", "a-b"], "--length a-b"),
        (["--targets", "0.5-2"], "--targets 0.5-2"),
        (["--targets", "900"], "do not fit"),
        (["--cold", "2"], "cold 2"),
        (["--count", "0"], "count 0"),
    ],
)
def test_synth_refuses_impossible_options(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    error = refusal("synth", tmp_path / "s", "--count", "1", *arguments)
    assert isinstance(error, OptionError)
    assert message in str(error)
    assert "\n" not in str(error)


def test_synth_refuses_a_folder_in_use_unless_told(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert isinstance(refusal("synth", tmp_path, "--count", "1", "--overwrite"), DataError)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    small = ["--count", "1", "--size", "64x64"]
    run_well("synth", tmp_path / "s", *small)
    assert "--overwrite" in str(refusal("synth", tmp_path / "s", *small))
    run_well("synth", tmp_path / "s", *small, "--overwrite")


def test_audit_prints_and_writes_its_findings(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "2")):
        run_well("synth", tmp_path / name, "--count", "5", "--size", "64x64", "--seed", seed)
    (tmp_path / "a" / "masks" / "000003.png").unlink()
    said = run_well(
        "audit", tmp_path / "a", tmp_path / "b", "--json", tmp_path / "audit.json"
    )  # fmt: skip
    assert "000003" in said
    first, second = json.loads((tmp_path / "audit.json").read_text())
    assert first["missing_masks"] == ["000003"]
    assert second["missing_masks"] == []

    run_well("audit", tmp_path / "b", "--json", tmp_path / "audit.json")
    assert json.loads((tmp_path / "audit.json").read_text()) == second


def test_audit_names_with_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    run_well("synth", tmp_path / "s", "--count", "1", "--size", "64x64")
    (tmp_path / "s" / "images" / "000000.png").rename(tmp_path / "s" / "images" / "[red]x.png")
    assert "[red]x" in run_well("audit", tmp_path / "s")


def test_audit_refuses_what_is_no_data_folder(tmp_path: Path) -> None:
    assert str(tmp_path / "no") in str(refusal("audit", tmp_path / "no"))
    error = refusal("audit", tmp_path, "--json", tmp_path / "no" / "audit.json")
    assert isinstance(error, OptionError)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Eight scenes with a target each: six in train, one in val, one in test."""
    run_well(
        "synth", tmp_path / "in", "--count", "8", "--size", "64x64", "--targets", "1"
    )  # fmt: skip
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("to", "written"),
    [
        ("voc", {"boxes", "train.txt", "val.txt"}),
        ("coco", {"annotations", "train.txt", "val.txt"}),
        ("yolo", {"images", "labels", "data.yaml", "train.txt", "val.txt"}),
    ],
)
def test_convert_writes_what_was_asked(scenes: Path, to: str, written: set[str]) -> None:
    out = scenes.parent / "out"
    result = run("convert", scenes, "--split", "train", "--split", "val", "--to", to, "--out", out)
    assert result.exit_code == 0
    assert result.stdout == f"7 frames, 7 targets. The {to} boxes are in {out}.\n"
    assert result.stderr == ""  # no progress bar where there is no terminal
    assert {path.name for path in out.iterdir()} == written
    for split in ("train", "val"):
        masks = BoxFolder(scenes, split)
        if to != "yolo":
            (out / "images").unlink(missing_ok=True)
            (out / "images").symlink_to(scenes / "images")
        boxes = BoxFolder(out, split)
        assert boxes.source == to
        for index in range(len(masks)):
            assert (boxes.boxes(index) == masks.boxes(index)).all()


def test_convert_goes_on_after_a_broken_frame(scenes: Path) -> None:
    val = read_split(scenes, "val")[0]
    (scenes / "images" / f"{val}.png").write_bytes(b"")
    options = ["--to", "coco", "--out", scenes.parent / "out"]
    result = run("convert", scenes, "--split", "train", "--split", "val", *options)
    assert result.exit_code == 2
    assert result.stdout.startswith("6 frames, 1 left out, 6 targets. ")
    assert result.stderr.startswith("warning: left out: ")
    assert f"{val}.png" in result.stderr
    error = refusal("convert", scenes, "--split", "val", *options)
    assert isinstance(error, FrameError)
    assert "none of the 1 frames could be used" in str(error)


def test_convert_options_are_handed_on(scenes: Path) -> None:
    voc = ["convert", scenes, "--split", "val", "--to", "voc", "--out", scenes]
    assert run_well(*voc).startswith("1 frame, 1 target. ")
    path = next((scenes / "boxes").iterdir())
    text = path.read_text()
    path.write_text(text.replace("<object>", "<!--").replace("</object>", "-->"))
    assert "--overwrite" in str(refusal(*voc))
    coco = ["convert", scenes, "--split", "val", "--to", "coco", "--out", scenes.parent / "out"]
    assert "1 frame, 0 targets" in run_well(*coco, "--from", "voc")
    assert "1 frame, 1 target." in run_well(*coco, "--overwrite")
    run_well(*voc, "--overwrite")
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (["--to", "kitti"], OptionError, "--to kitti is unknown: choose from labelme, cvat, coco"),
        (["--from", "kitti"], OptionError, "--from kitti is unknown: choose from masks, voc"),
        (["--split", "gone"], DataError, "no list gone.txt"),
        (["--from", "yolo"], DataError, "no labels/"),
        (["--to", "yolo", "--out", "{in}"], OptionError, "yolo brings images of its own"),
    ],
)
def test_convert_refuses_what_is_impossible(
    scenes: Path, changes: list[str], error: type[PinglowError], message: str
) -> None:
    changes = [word.replace("{in}", str(scenes)) for word in changes]
    out = scenes.parent / "out"
    refused = refusal(
        "convert", scenes, "--split", "train", "--to", "voc", "--out", out, *changes
    )  # fmt: skip
    assert isinstance(refused, error)
    assert message in str(refused)
    assert "\n" not in str(refused)
    assert not out.exists()


def test_list_names_every_known_data_set() -> None:
    said = run_well("list")
    for name, info in KNOWN_DATASETS.items():
        assert name in said
        assert info.home in said
        assert info.license in said


def test_the_module_is_light() -> None:
    code = (
        "import sys, pinglow.cli.data; print({'numpy', 'torch', 'rich.table'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "numpy" not in done.stdout


def write_labels(folder: Path) -> Path:
    """Two frames with labels of labelme, one of them with a box."""
    folder.mkdir()
    for name, kind in (("a", "rectangle"), ("b", "polygon")):
        frame = np.full((20, 30), 900, np.uint16)
        frame[5:7, 8:10] = 2000
        Image.fromarray(frame).save(folder / f"{name}.png")
        points = [[8, 5], [10, 7]] if kind == "rectangle" else [[8, 5], [10, 5], [10, 7], [8, 7]]
        shape = {"label": "ship", "points": points, "shape_type": kind}
        content = {"shapes": [shape], "imagePath": f"{name}.png"}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_import_tells_what_it_did_and_what_comes_next(tmp_path: Path) -> None:
    labels, out = write_labels(tmp_path / "in"), tmp_path / "out"
    said = run_well("import", labels, "--out", out)
    assert said.startswith("labelme: labels ship 2\n2 frames, 2 targets, 0 free of targets. ")
    assert f"1 mask derived from boxes or points, as {out / 'derived.json'} says" in said
    assert f"next: pinglow data split {out}" in said
    assert "masks derived from boxes" in run_well("audit", out, "--json", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["derived_masks"] == {"boxes": ["a"]}


def test_import_goes_on_after_a_wrong_label(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "in")
    (labels / "a.json").write_text("{")
    result = run("import", labels, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "1 frame, 1 left out, 1 target" in result.stdout
    assert result.stderr.startswith("warning: left out: ")
    assert "a.json is not whole JSON" in result.stderr
    error = refusal("import", labels, "--out", tmp_path / "out")
    assert isinstance(error, DataError)


@pytest.mark.parametrize(
    "command",
    [("audit", "{}"), ("split", "{}"), ("convert", "{}", "--to", "coco", "--out", "{}-coco")],
)
def test_a_folder_of_labels_tells_the_command_that_imports_it(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    labels = write_labels(tmp_path / "in")
    error = refusal(*(word.format(labels) for word in command))
    assert f"it holds labels of labelme: pinglow data import {labels} --out in-pinglow" in str(
        error
    )
    with pytest.raises(DataError, match=f"pinglow data import {labels} --out in-pinglow"):
        FrameFolder(labels, "train")
    with pytest.raises(DataError, match=f"pinglow data import {labels} --out in-pinglow"):
        BoxFolder(labels, "train")


def test_a_folder_of_labels_is_told_before_what_scoring_boxes_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    labels = write_labels(tmp_path / "in")
    with pytest.raises(DataError, match=f"pinglow data import {labels} --out in-pinglow"):
        BoxTask(labels, "train", None, ([], None))


def test_audit_of_images_beside_labels_tells_the_command(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "in")
    (labels / "images").mkdir()
    for image in labels.glob("*.png"):
        image.rename(labels / "images" / image.name)
    result = run("audit", labels)
    assert result.exit_code == 0
    assert f"has no masks; it holds labels of labelme: pinglow data import {labels}" in (
        result.stderr
    )


def test_derived_masks_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels, out, boxed = write_labels(tmp_path / "in"), tmp_path / "out", tmp_path / "boxed"
    run_well("import", labels, "--out", out)
    run_well("import", labels, "--out", boxed, "--keep-boxes")
    (boxed / "boxes").rename(out / "boxes")
    BoxFolder(out, "all", "voc")  # boxes, which were drawn
    assert "derived" not in caplog.text
    for _ in range(2):
        FrameFolder(out, "all")
    assert caplog.text.count("1 of 2 masks were derived from boxes or points, not drawn") == 1


def test_split_tells_its_lists_and_groups(scenes: Path) -> None:
    said = run_well("split", scenes, "--val", "0.2", "--test", "0.2", "--overwrite")
    assert "train 4 frames (4 groups), val 2 frames (2 groups), test 2 frames (2 groups)" in said
    assert "8 groups of alike frames, the largest of 1; no group is in two lists" in said
    assert "--overwrite" in str(refusal("split", scenes))


def test_convert_of_results_needs_no_list_and_of_a_folder_one(scenes: Path) -> None:
    out = scenes.parent / "out"
    error = refusal("convert", scenes, "--to", "labelme", "--out", out)
    assert isinstance(error, OptionError)
    assert "--split is missing" in str(error)
    said = run_well("convert", scenes, "--split", "val", "--to", "labelme", "--out", out)
    assert said == f"1 frame, 1 target. The labelme labels are in {out}.\n"
