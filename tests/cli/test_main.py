from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import pinglow
from pinglow.cli.main import _Group, app
from pinglow.errors import FrameError, OptionError

RAISED: dict[str, BaseException] = {
    "frame": FrameError("a.png is empty: copy it again"),
    "option": OptionError("--x 3 is odd: give an even number"),
    "ctrl-c": KeyboardInterrupt(),
    "bug": ZeroDivisionError("a bug"),
    "path": PermissionError(13, "Permission denied", "locked/x.png"),
    "full": OSError(28, "No space left on device"),
    "full-path": OSError(28, "No space left on device", "x.json"),
    "pipe": OSError(5, "Input/output error"),
}


@pytest.fixture
def failing() -> typer.Typer:
    """An application with pinglow's group and a command that raises what it is told to."""
    application = typer.Typer(cls=_Group)
    application.callback()(lambda: None)

    @application.command()
    def fail(kind: str) -> None:
        raise RAISED[kind]

    return application


@pytest.mark.parametrize("kind", ["frame", "option"])
def test_mistakes_are_one_line_on_stderr_and_exit_code_2(failing: typer.Typer, kind: str) -> None:
    result = CliRunner().invoke(failing, ["fail", kind])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"error: {RAISED[kind]}\n"


def test_ctrl_c_is_one_line_and_exit_code_130(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["fail", "ctrl-c"])
    assert result.exit_code == 130
    assert result.stderr == "stopped by Ctrl-C\n"


def test_a_path_that_the_system_refuses_is_named(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["fail", "path"])
    assert result.exit_code == 2
    assert result.stderr == (
        "error: locked/x.png cannot be used (Permission denied): check the path and its "
        "permissions\n"
    )
    assert CliRunner().invoke(failing, ["fail", "pipe"]).exception is RAISED["pipe"]


@pytest.mark.parametrize("kind", ["full", "full-path"])
def test_a_full_disk_is_one_line(failing: typer.Typer, kind: str) -> None:
    result = CliRunner().invoke(failing, ["fail", kind])
    assert result.exit_code == 2
    place = "x.json" if kind == "full-path" else "output"
    assert result.stderr == f"error: cannot write {place}: the disk is full, free some space\n"


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "a" * 300],
        ["predict", ".", "--model", "a" * 300],
        ["train", "a" * 300],
        ["data", "synth", f"{__file__}/x", "--count", "1"],
        ["evaluate", "--data", "a" * 300],
    ],
)
def test_impossible_paths_are_one_line(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


def test_bugs_are_not_hidden(failing: typer.Typer) -> None:
    assert CliRunner().invoke(failing, ["fail", "bug"]).exception is RAISED["bug"]


def test_no_arguments_prints_the_help() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert result.stdout.strip() == CliRunner().invoke(app, ["--help"]).stdout.strip()


def test_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"pinglow {pinglow.__version__}\n"


@pytest.mark.parametrize("arguments", [["predict"], ["gone"], ["predict", "x", "--gone"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr


def _list_commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """List every command that takes arguments or options, and is not a signpost."""
    if not hasattr(command, "commands"):
        return [path] if command.params and not command.hidden else []
    inner = command.commands
    return [leaf for name in inner for leaf in _list_commands(inner[name], (*path, name))]


@pytest.mark.parametrize("path", _list_commands(typer.main.get_command(app)), ids=" ".join)
def test_every_command_says_what_it_does_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert f"pinglow {' '.join(path)}" in result.stdout.partition("Example")[2]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, pinglow.cli.main as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'PIL', 'lightning', 'pydantic'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("heavy: []\n")
    assert "predict" in result.stdout


def test_the_package_runs_as_a_module() -> None:
    call = [sys.executable, "-m", "pinglow"]
    version = subprocess.run([*call, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"pinglow {pinglow.__version__}\n"
    wrong = subprocess.run([*call, "predikt"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "python -m pinglow" in wrong.stderr


def test_completion_can_be_installed() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "--install-completion" in result.stdout


def test_a_home_folder_is_found_where_the_shell_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = CliRunner().invoke(app, ["data", "synth", "~/made", "--count", "1"])
    assert made.exit_code == 0
    assert (tmp_path / "made" / "scenes.csv").is_file()
    result = CliRunner().invoke(app, ["predict", "~/frames/*.png"])
    assert f"{tmp_path}/frames" in result.stderr
    result = CliRunner().invoke(app, ["export", "pinglow-fast", "--out=~/made/scenes.csv"])
    assert f"{tmp_path}/made" in result.stderr


def test_names_do_not_steer_the_terminal() -> None:
    result = CliRunner().invoke(app, ["predict", "a\x1b[2Jb\x9b\r"])
    assert result.exit_code == 2
    assert r"a\x1b[2Jb\x9b\r" in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_full_disk_under_standard_output_is_one_line(option: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pinglow", option],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: cannot write output: the disk is full, free some space\n"
