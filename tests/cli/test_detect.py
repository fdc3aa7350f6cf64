from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pinglow.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [
        (["predict", "x.png", "--model", "m", "--track"], ["predict"]),
        (["evaluate", "--data", "d", "--split", "test"], ["evaluate"]),
        (["train", "--help"], ["train"]),
        ([], ["train", "predict", "evaluate"]),
    ],
)
def test_one_sentence_says_which_command_does_it_now(
    arguments: list[str], commands: list[str]
) -> None:
    result = CliRunner().invoke(app, ["detect", *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for command in ("train", "predict", "evaluate"):
        assert (f"pinglow {command} " in result.stderr) == (command in commands)


def test_it_is_not_listed() -> None:
    assert "detect " not in CliRunner().invoke(app, ["--help"]).stdout
