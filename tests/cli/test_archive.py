from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from finders import find_bright, save_still
from pinglow.archive.settings import Settings
from pinglow.cli.main import app

pytest.importorskip("fsspec", reason="needs fsspec: pip install '.[archive]'")

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `pinglow archive` in an empty folder with a predictor that finds bright pixels."""
    monkeypatch.setattr(Settings, "load_predictor", lambda self: find_bright)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, ["archive", *arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_run_status_and_merge(run: Run) -> None:
    for number in range(3):
        save_still(Path("in") / f"{number}.png", number)
    result = run("run", "in", "--out", "out")
    assert result.exit_code == 0
    assert result.stdout.startswith("3 frames, 3 targets in 3 files and slices, ")
    assert result.stderr == ""  # no progress bar where there is no terminal
    [name] = [path.name for path in Path("out").iterdir()]
    assert f"Results are in {Path('out').absolute()}/{name}." in result.stdout
    assert "; 3 were done before." in run("run", "in", "--out", "out").stdout

    result = run("status", "out")
    assert result.stdout.startswith(f"{name}: 3 of 3 files and slices done, 0 missing, 0 with ")
    [state] = json.loads(run("status", "out", "--json").stdout)
    assert {key: state[key] for key in ("planned", "done", "missing", "broken")} == {
        **{"planned": 3, "done": 3, "missing": 0, "broken": 0},
    }
    assert state["bytes"] == sum(path.stat().st_size for path in Path("out").glob("*/parts/*/*"))
    assert state["settings"]["model"] == "pinglow-fast"

    result = run("merge", "out", "--out", "tables")
    assert result.exit_code == 0
    assert sorted(path.name for path in Path("tables").iterdir()) == [
        *("coco.json", "frames.parquet", "targets.csv", "targets.parquet")
    ]


def test_what_was_not_read_is_told_at_the_end(run: Run) -> None:
    save_still(Path("in") / "a.png")
    (Path("in") / "b.png").write_bytes(b"junk")
    result = run("run", "in", "--out", "out")
    assert result.exit_code == 2
    assert "b.png is not a frame that pinglow reads" in result.stderr
    assert "1 frames could not be read; --retry tries their files again." in result.stdout
    assert run("run", "in", "--out", "out").exit_code == 0
    assert run("run", "in", "--out", "out", "--retry").exit_code == 2
    result = run("status", "out")
    assert "2 of 2 files and slices done, 0 missing, 1 with frames" in result.stdout


def test_what_is_missing_is_listed(run: Run) -> None:
    for number in range(3):
        save_still(Path("in") / f"{number}.png", number)
    run("run", "in", "--out", "out")
    next(Path("out").glob("*/parts/*/*")).unlink()
    result = run("status", "out", "--missing")
    assert len(result.stdout.splitlines()) == 1
    assert result.stdout.strip().endswith(".png")
    result = run("merge", "out", "--out", "tables")
    assert result.exit_code == 2
    assert "1 files and slices are not done yet" in result.stderr


def test_results_of_other_options_do_not_mix(run: Run) -> None:
    save_still(Path("in") / "a.png")
    run("run", "in", "--out", "out")
    [first] = [path.name for path in Path("out").iterdir()]
    result = run("run", "in", "--out", "out", "--min-score", "0.9", "--ignore", "0,0,2,2")
    assert f"also has results of another model or other options ({first})" in result.stderr
    names = sorted(path.name for path in Path("out").iterdir())
    assert len(names) == 2
    told = run("status", "out").stdout
    assert all(name in told for name in names)
    assert "'min_score': 0.9" in told
    result = run("merge", "out", "--out", "tables")
    assert result.exit_code == 2
    assert "--results" in result.stderr
    assert all(name in result.stderr for name in names)
    assert run("merge", "out", "--out", "tables", "--results", names[0]).exit_code == 0
    assert "choose from" in run("merge", "out", "--out", "tables", "--results", "x").stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("run gone --out out", "gone is not there: check the name"),
        ("run in --out out --shard 4/3", "--shard is '4/3'"),
        ("run in --out gs://b/out", "gs://b needs gcsfs, which is not installed: pip install"),
        ("run gs://b/in --out out", "pip install gcsfs"),
        ("run in --out nowhere://b", "nowhere://b is of a kind that fsspec does not know"),
        ("run in --out out --model none", "neither a file nor a bundled model"),
        ("run in --out out --min-score 2", "min_score is 2"),
        ("status in", "is no archive: name the --out of `pinglow archive run`"),
        ("merge gone --out tables", "is no archive"),
        ("status in --missing --json", "leave --json out"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(run: Run, arguments: str, told: str) -> None:
    save_still(Path("in") / "a.png")
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert told in result.stderr


def test_a_full_disk_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_up(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    save_still(Path("in") / "a.png")
    monkeypatch.setattr("pinglow.archive.place.write_whole", fill_up)
    result = run("run", "in", "--out", "out")
    assert result.exit_code == 2
    assert "the disk is full, free some space" in result.stderr


def test_ctrl_c_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(frame: Any) -> Any:
        raise KeyboardInterrupt

    save_still(Path("in") / "a.png")
    monkeypatch.setattr(Settings, "load_predictor", lambda self: interrupt)
    result = run("run", "in", "--out", "out")
    assert result.exit_code == 130
    assert "what is done is kept; the same command goes on" in result.stderr
