from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pinglow.cli.main import app
from pinglow.study.results import RunResult

STUDY = """
name = "small"
[[arms]]
name = "x"
[[arms]]
name = "y"
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(STUDY)
    return "s.toml"


def test_runs_are_announced_and_shown(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run(plan: Any, folder: Path, work: Path, **options: Any) -> list[RunResult]:
        asked.update(folder=folder, work=work, root=plan[0].recipe.data.root)
        content = {"loss": "diff", "attention": "free", "convolution": "plain"}
        results = [
            RunResult(arm="x", seed=0, steps=1, digest="d", failure="no luck", **content),
            RunResult(arm="y", seed=0, steps=1, digest="d", **content),
        ]
        options["on_start"](plan[0], 1)
        options["on_end"](results)
        return results

    monkeypatch.setattr("pinglow.study.run.run_study", run)
    result = CliRunner().invoke(app, ["study", study, "--root", "d", "--work", "w"])
    assert result.exit_code == 1  # a run failed
    assert asked == {"folder": Path("studies/small"), "work": Path("w/small"), "root": "d"}
    assert "run 1 of 6: arm x, seed 0" in result.stderr
    assert "warning: x, seed 0 failed: no luck" in result.stderr
    assert "1 of 6 runs are done; pinglow study report s.toml" in result.stderr
    assert "--retry-failed makes the failed ones again." in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rport", "s.toml"], "error: 'rport s.toml' cannot be understood; give one STUDY.toml"),
        (["report"], "error: 'report' cannot be understood; give one STUDY.toml"),
        (["report", "s.toml", "--root", "d"], "error: --root and --retry-failed are for making"),
        (
            ["s.toml", "--root", "gone"],
            "error: arm x: gone/sirst is not a folder; name with --root",
        ),
        (
            ["gone.toml"],
            "error: gone.toml cannot be read (No such file or directory): check",
        ),
        (["report", "s.toml"], "error: studies/small has no results of study small yet"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(study: str, words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["study", *words])
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
