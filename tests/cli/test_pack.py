"""pinglow data pack and unpack, and the commands that read a pack as they read its folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pinglow.cli.main import app
from pinglow.data.pack.png import PngStream
from pinglow.data.synthetic.scenes import SceneSpec, write_dataset


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    spec = SceneSpec(width=64, height=64, targets=(1, 2), snr=(20, 30), length=(2, 6))
    write_dataset(folder, 4, spec, kinds=("gradient",), seed=1)
    return folder


@pytest.fixture(scope="module")
def packed(scenes: Path) -> Path:
    out = scenes.parent / "frames.pack"
    run_well("data", "pack", scenes, "--out", out)
    return out


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in arguments])


def run_well(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_there_and_back(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames.pack"
    said = run_well("data", "pack", scenes, "--out", out, "--license", "CC0-1.0")
    before, after = sum(map(len, content(scenes).values())), out.stat().st_size
    assert after < 0.9 * before
    assert said == (
        f"{out}: scenes; 4 frames; {before:,} bytes became {after:,}, {after / before:.1%}\n"
    )
    said = run_well("data", "unpack", out, "--out", tmp_path / "deep" / "out")
    assert content(tmp_path / "deep" / "out" / "scenes") == content(scenes)
    assert said == (f"{tmp_path}/deep/out/scenes: {len(content(scenes))} files; license: CC0-1.0\n")


def test_other_bytes_are_said_once(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deflate = PngStream.deflate

    def other(self: PngStream, rows: bytes) -> Any:
        return deflate(self.model_copy(update={"level": 1, "strategy": 2}), rows)

    monkeypatch.setattr(PngStream, "deflate", other)
    result = run("data", "unpack", packed, "--out", tmp_path)
    assert result.exit_code == 0
    assert result.stderr.count("note: 8 PNG files have the pixels that they had") == 1


def test_pngs_that_are_kept_as_they_are_are_said(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    (folder / "images").mkdir(parents=True)
    whole = (scenes / "images" / "000000.png").read_bytes()
    (folder / "images" / "a.png").write_bytes(whole[:-30])
    result = run("data", "pack", folder, "--out", tmp_path / "a.pack")
    assert result.exit_code == 0
    assert "note: 1 of the PNG files" in result.stderr


def test_mistakes_are_one_sentence_and_nothing_is_left(
    scenes: Path, packed: Path, tmp_path: Path
) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "gone.png").symlink_to("nowhere")
    (tmp_path / "cut.pack").write_bytes(packed.read_bytes()[:-40])
    (tmp_path / "text.pack").write_text("text")
    (tmp_path / "there" / "scenes").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    pack, unpack = ("data", "pack"), ("data", "unpack")
    for arguments, named in (
        ((*pack, tmp_path / "linked", "--out", tmp_path / "a.pack"), "gone.png"),
        ((*pack, tmp_path / "gone", "--out", tmp_path / "a.pack"), "gone is not a folder"),
        ((*pack, packed, "--out", tmp_path / "a.pack"), "frames.pack is not a folder"),
        ((*pack, scenes, "--out", tmp_path), "--out"),
        ((*pack, scenes, "--out", tmp_path / "no" / "a.pack"), "--out"),
        ((*pack, scenes, "--out", tmp_path / "text.pack"), "--overwrite"),
        ((*unpack, tmp_path / "cut.pack", "--out", tmp_path / "out"), "cut.pack is damaged"),
        ((*unpack, tmp_path / "text.pack", "--out", tmp_path / "out"), "text.pack is no pack"),
        ((*unpack, tmp_path / "gone", "--out", tmp_path / "out"), "gone does not exist"),
        ((*unpack, packed, "--out", tmp_path / "there"), "there/scenes is there already"),
        ((*unpack, packed, "--out", tmp_path / "text.pack"), "text.pack is a file"),
        (("data", "audit", tmp_path / "cut.pack"), "cut.pack is damaged"),
        (("predict", tmp_path / "cut.pack", "--out", tmp_path / "out"), "cut.pack is damaged"),
        (("train", "fast", "--data", tmp_path / "cut.pack", "--run", tmp_path / "r"), "cut.pack"),
        (("evaluate", "--data", tmp_path / "cut.pack", "--model", "pinglow-fast"), "cut.pack"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert named in errors[0]
        assert sorted(tmp_path.rglob("*")) == before, arguments


def test_an_audit_is_that_of_the_folder(scenes: Path, packed: Path, tmp_path: Path) -> None:
    found = []
    for folder in (scenes, packed):
        run_well("data", "audit", folder, "--json", tmp_path / "audit.json")
        found.append(json.loads((tmp_path / "audit.json").read_text()))
        assert found[-1].pop("folder") == str(folder)
    assert found[0] == found[1]


def test_scores_are_those_of_the_folder(
    scenes: Path, packed: Path, small_model: Path, tmp_path: Path
) -> None:
    scores = []
    for folder in (scenes, packed, packed / "scenes"):
        options = ("--split", "train", "--model", small_model, "--backend", "torch")
        run_well("evaluate", "--data", folder, *options, "--json", tmp_path / "s.json")
        scores.append(json.loads((tmp_path / "s.json").read_text()))
        assert scores[-1].pop("data") == str(folder)
    assert scores[0]["images"] > 0
    assert scores[0] == scores[1] == scores[2]


def test_predictions_are_those_of_the_folder(
    scenes: Path, packed: Path, small_model: Path, tmp_path: Path
) -> None:
    found = []
    for number, source in enumerate((scenes / "images", packed, f"{packed}/images/*.png")):
        out = tmp_path / str(number)
        options = ("--model", small_model, "--backend", "torch", "--save", "mask,jsonl")
        run_well("predict", source, *options, "--out", out)
        lines = [json.loads(line) for line in (out / "targets.jsonl").read_text().splitlines()]
        for line in lines:
            line["source"] = os.path.basename(line["source"])
        found.append((lines, content(out / "masks")))
    assert len(found[0][0]) == 4
    assert found[0] == found[1] == found[2]


def test_boxes_are_converted_out_of_a_pack(scenes: Path, packed: Path, tmp_path: Path) -> None:
    for name, folder in (("a", scenes), ("b", packed)):
        out = tmp_path / name
        run_well("data", "convert", folder, "--split", "train", "--to", "coco", "--out", out)
    assert content(tmp_path / "a") == content(tmp_path / "b")
