"""Where results go: files that appear whole, and standard output."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from pinglow.cli.main import app
from pinglow.cli.output_file import (
    STANDARD_OUTPUT,
    check_output_file,
    check_output_folder,
    echo,
    write_json,
)
from pinglow.errors import OptionError


def test_an_earlier_file_stays_where_there_is_no_room(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    write_json(path, {"a": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # as of a full disk
    try:
        with pytest.raises(OptionError, match=r"--json: cannot write .*/s\.json: "):
            write_json(path, list(range(1000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["s.json"]


def test_a_link_stays_and_leads_to_the_new_content(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("real.json")
    write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text()) == [1]


def test_a_device_is_written_to_and_not_replaced() -> None:
    check_output_file("--json", Path(os.devnull))
    write_json(Path(os.devnull), [1])
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("path", [STANDARD_OUTPUT, Path("/dev/stdout")])
def test_a_dash_is_standard_output(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_output_file("--json", path)
    write_json(path, {"name": "图\x1b\udce9"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == {"name": "图\x1b\udce9"}
    with pytest.raises(OptionError, match=r"--plot .* is standard output: name a file"):
        check_output_file("--plot", path)


def test_a_file_that_cannot_be_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not exist"):
        check_output_file("--json", tmp_path / "no" / "s.json")
    with pytest.raises(OptionError, match="is a folder"):
        check_output_file("--json", tmp_path)
    with pytest.raises(OptionError, match=r"--json: /proc/s\.json cannot be used"):
        write_json(Path("/proc/s.json"), [])
    check_output_file("--json", tmp_path / "s.json")
    assert os.listdir(tmp_path) == []


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    echo("a\nb\x1b[2J", err=True)
    assert capsys.readouterr().err == "a\\nb\\x1b[2J\n"


@pytest.mark.parametrize(
    "words",
    [
        ["export", "pinglow-fast", "--out", "-"],
        ["data", "synth", "-", "--count", "1"],
        ["data", "convert", "x", "--split", "a", "--to", "coco", "--out", "-"],
        ["data", "pack", "x", "--out", "-"],
        ["data", "unpack", "x", "--out", "-"],
        ["bench", "--plot", "-"],
        ["train", "fast", "--run", "-"],
        ["study", "study.toml", "--out", "-"],
        ["study", "study.toml", "--work", "-"],
    ],
)
def test_a_dash_is_refused_where_files_go(words: list[str]) -> None:
    pytest.importorskip("torch")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "- is standard output: name a f" in result.stderr


@pytest.mark.parametrize("command", ["audit", "models"])
def test_json_on_standard_output_is_alone_there(command: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "images" / "a.png")
    words = ["models", "--json"] if command == "models" else ["data", "audit", str(tmp_path)]
    result = CliRunner().invoke(app, words if command == "models" else [*words, "--json", "-"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_device_without_room_is_named() -> None:
    with pytest.raises(OptionError, match="cannot write /dev/full: the disk is full"):
        write_json(Path("/dev/full"), {})


@pytest.mark.parametrize(
    ("option", "instead"), [("--json", "or - for standard output"), ("--plot", "name a file$")]
)
def test_a_named_pipe_is_told_before_the_work(tmp_path: Path, option: str, instead: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OptionError, match=rf"{option} .*/{name} is a pipe.*{instead}"):
            check_output_file(option, tmp_path / name)


def test_a_link_to_itself_is_told_and_one_to_no_file_is_written_through(tmp_path: Path) -> None:
    for name, target in (("a", "b"), ("b", "a"), ("new", "made.json")):
        (tmp_path / name).symlink_to(target)
    with pytest.raises(OptionError, match=r"--json .*[/\\]a is a link that leads to itself"):
        check_output_file("--json", tmp_path / "a")
    with pytest.raises(OptionError, match="is in a folder that does not exist"):
        check_output_file("--json", tmp_path / "a" / "b.json")
    with pytest.raises(OptionError, match="is a link that leads to itself: name another folder"):
        check_output_folder("--out", tmp_path / "a")
    check_output_file("--json", tmp_path / "new")
    write_json(tmp_path / "new", [1])
    assert json.loads((tmp_path / "made.json").read_text()) == [1]


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="Windows has no shell's pipes")
def test_a_shells_pipe_has_its_reader() -> None:
    reader, writer = os.pipe()
    path = Path(f"/dev/fd/{writer}")
    check_output_file("--json", path)
    write_json(path, [1])
    assert json.loads(os.read(reader, 100)) == [1]
    os.close(reader)
    os.close(writer)
