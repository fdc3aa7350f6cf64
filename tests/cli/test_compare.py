"""pinglow compare, from models and maps to tables, and from results files to tables again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from pinglow.cli.main import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six frames with a target each; maps that find all, and maps that miss two."""
    for part in ("images", "masks", "whole", "part"):
        (tmp_path / part).mkdir()
    for index in range(6):
        mask = np.zeros((40, 60), dtype=np.uint8)
        mask[10:13, 20 + index : 24 + index] = 255
        frame = np.random.default_rng(index).integers(0, 99, size=mask.shape, dtype=np.uint8)
        kept = mask if index % 3 else np.zeros_like(mask)
        for part, image in [("images", frame), ("masks", mask), ("whole", mask), ("part", kept)]:
            Image.fromarray(image).save(tmp_path / part / f"f{index}.png")
    (tmp_path / "test.txt").write_text("".join(f"f{index}\n" for index in range(6)))
    (tmp_path / "free.txt").write_text("f1\nf2\n")
    return tmp_path


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_maps_are_compared_and_the_table_is_made_again_without_them(folder: Path) -> None:
    out = folder / "out"
    part = f"some code={folder / 'part'}/*.png"
    result = run(folder / "whole", part, "--data", folder, "--out", out)
    assert result.exit_code == 0, result.output
    assert "difference" in result.stdout
    names = ["panels", "results", "roc.png", "table.csv", "table.md", "table.tex"]
    assert sorted(path.name for path in out.iterdir()) == names
    panels = sorted(path.name for path in (out / "panels").iterdir())
    assert panels == ["01-f0.png", "02-f3.png"]  # the only ones in which they differ
    assert [path.name for path in sorted((out / "results").iterdir())] == [
        "some_code.json",
        "whole.json",
    ]
    for part in ("whole", "part", "images", "masks"):
        (folder / part).rename(folder / f"no-{part}")
    again = folder / "again"
    files = out / "results" / "whole.json", out / "results" / "some_code.json"
    result = run(*files, "--out", again)
    assert result.exit_code == 0, result.output
    assert "warning: no panels" in result.stderr
    for name in ("table.csv", "table.md", "table.tex"):
        assert (again / name).read_bytes() == (out / name).read_bytes()
    for path in (out / "results").iterdir():  # of results files, too
        assert (again / "results" / path.name).read_bytes() == path.read_bytes()


def test_a_stopped_comparison_goes_on_where_it_was(folder: Path) -> None:
    both = folder / "whole", folder / "part", "--data", folder, "--out", folder / "out"
    assert run(*both).exit_code == 0
    kept, other = (folder / "out" / "results" / f"{name}.json" for name in ("whole", "part"))
    before = kept.stat().st_mtime_ns
    other.unlink()
    result = run(*both)
    assert "whole: the results in" in result.stderr
    assert "part: 6 frames scored" in result.stderr
    assert kept.stat().st_mtime_ns == before
    mask = folder / "masks" / "f5.png"
    Image.fromarray(np.asarray(Image.open(mask))[::-1]).save(mask)
    result = run(*both)  # of other data: none is taken
    assert "whole: 6 frames scored" in result.stderr
    again = run(*both, "--threshold", "0.6")
    assert "whole: 6 frames scored" in again.stderr


def test_a_frame_that_breaks_for_one_is_left_out_of_all_and_said(folder: Path) -> None:
    (folder / "part" / "f1.png").write_bytes(b"")
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(folder / "part" / "f2.png")
    out = folder / "out"
    result = run(folder / "whole", folder / "part", "--data", folder, "--out", out)
    assert result.exit_code == 2
    assert "f2.png is 6 x 4 but its mask is 60 x 40" in result.stderr
    assert "these are scores of 4 of the list's 6 frames" in result.stderr
    assert "4 frames with 4 targets" in result.stdout
    assert (out / "table.csv").read_text().count(",4,4,") == 2  # frames and targets, of both


def test_a_model_is_compared_with_maps(folder: Path, small_model: Path) -> None:
    out = folder / "out"
    result = run(small_model, folder / "whole", "--data", folder, "--split", "free", "--out", out)
    assert result.exit_code == 0, result.output
    assert "too few" in result.stdout
    assert len((out / "table.csv").read_text().splitlines()) == 3


def test_a_detector_is_compared_by_boxes(
    folder: Path, small_model: Path, detector_weights: Path
) -> None:
    out = folder / "out"
    models = small_model, f"detector={detector_weights}"
    result = run(*models, "--data", folder, "--out", out, "--threshold", "0.2")
    assert result.exit_code == 0, result.output
    assert "mAP50" in result.stdout
    assert "6 frames with 6 targets" in result.stdout
    files = list((out / "results").iterdir())
    again = folder / "again"
    result = run(*sorted(files, reverse=True), "--out", again)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (again / "panels").iterdir()) == sorted(
        p.name for p in (out / "panels").iterdir()
    )
    refused = run(*models, folder / "whole", "--data", folder, "--out", folder / "o")
    assert "a detector and saved maps have no score in common" in refused.stderr
    pixels = folder / "pixels"
    assert run(small_model, folder / "whole", "--data", folder, "--out", pixels).exit_code == 0
    kept = pixels / "results" / "whole.json"
    refused = run(kept, detector_weights, "--data", folder, "--out", folder / "o")
    assert refused.exit_code == 2
    assert "whole.json has scores of pixels" in refused.stderr


def test_without_matplotlib_the_rest_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = folder / "out"
    result = run(folder / "whole", folder / "part", "--data", folder, "--out", out)
    assert result.exit_code == 0, result.output
    assert "warning: roc.png needs matplotlib" in result.stderr
    assert (out / "table.tex").is_file()
    assert not (out / "roc.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["whole"], "name two methods at least"),
        (["whole", "whole"], "whole is named twice"),
        (["whole", "a=whole"], "whole is named twice"),
        (["whole", "part", "--data", "nowhere"], "nowhere is not a folder"),
        (["whole", "nothing"], "model 'nothing' is neither a file nor a bundled model"),
        (["whole", "x.json"], "x.json cannot be read"),
        (["whole", "test.txt", "--out", "test.txt"], "--out test.txt is a file"),
        (["whole", "part", "--threshold", "1"], "--threshold 1.0 is out of range"),
        (["whole", "part", "--protocol", "mshnet256"], "changes the size of the model's input"),
        (["whole", "part", "--data", ""], "is to be scored: say on what, with --data"),
    ],
)
def test_mistakes_end_in_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    given = arguments if "--data" in arguments else [*arguments, "--data", "."]
    given = given if "--out" in given else [*given, "--out", "out"]
    if "" in given:
        del given[given.index("--data") : given.index("--data") + 2]
    result = run(*given)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
