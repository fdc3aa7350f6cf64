"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pinglow.files import explain, naming, naming_below, read_whole, remove_parts, write_whole


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_whole_content_is_on_the_disk_before_the_name_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed writer leaves: until the rename, the old file; the new one is whole by then."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def look_at_fsync(number: int) -> None:
        assert path.read_bytes() == b"old"
        seen.append("fsync")
        fsync(number)

    def look_at_replace(source: Path, target: Path) -> None:
        assert path.read_bytes() == b"old"
        assert source.read_bytes() == b"new"
        assert source.parent == target.parent  # a rename, not a copy
        seen.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", look_at_fsync)
    monkeypatch.setattr(os, "replace", look_at_replace)
    write_whole(path, b"new")
    assert seen == ["fsync", "replace"]
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    dead = [tmp_path / ".a.csv.1.pinglow.part", tmp_path / "masks" / ".b.png.1.pinglow.part"]
    others = [tmp_path / ".movie.1.part", tmp_path / "a.pinglow.part", tmp_path / "a.csv"]
    new = tmp_path / ".new.1.pinglow.part"
    for path in (*dead, *others, new):
        path.write_bytes(b"x")
    for path in (*dead, *others):
        os.utime(path, (0, 0))
    used = tmp_path / ".used.2-a.pinglow.part"
    script = (
        "import os, sys, time; from pathlib import Path; from pinglow import files\n"
        "def wait(number): os.utime(sys.argv[1], (0, 0)); print('ready', flush=True); input()\n"
        "files.os.fsync = wait; files.os.getpid = lambda: 2\n"
        "files.secrets.token_hex = lambda count: 'a'\n"
        "files.write_whole(Path(sys.argv[2]), b'content')"
    )
    command = [sys.executable, "-c", script, used, tmp_path / "used"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        remove_parts(tmp_path)
        assert used.exists()
        writer.communicate(b"\n")
    assert (tmp_path / "used").read_bytes() == b"content"
    assert not any(path.exists() for path in dead)
    assert all(path.exists() for path in (*others, new))
    remove_parts(tmp_path / "absent")


def test_an_error_in_a_temporary_folder_names_where_the_file_is_to_go(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such") as raised, naming_below(tmp_path, Path("out")):
        (tmp_path / "a" / "b").read_bytes()
    assert raised.value.filename == str(Path("out/a/b"))
    with pytest.raises(OSError, match="No such") as raised, naming_below(tmp_path, Path("out")):
        Path("absent").read_bytes()
    assert str(raised.value.filename) == "absent"


def test_folders_are_made_on_the_way(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "file", b"x")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"x"


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(OSError, match="it is a pipe or a device"):
            read_whole(tmp_path / name)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="more than 1 MB"):
        read_whole(tmp_path / "sparse", 2**20)
    with pytest.raises(IsADirectoryError):
        read_whole(tmp_path)
    (tmp_path / "file").write_bytes(b"content")
    assert read_whole(tmp_path / "file") == b"content"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "your quota is used up"),
        (errno.EFBIG, "larger than files may be here"),
        (errno.EACCES, "cannot be used"),
    ],
)
def test_an_error_without_a_name_is_given_one(number: int, reason: str) -> None:
    with pytest.raises(OSError, match="the reason") as raised, naming(Path("a/file")):
        raise OSError(number, "the reason")
    said = explain(raised.value)
    assert "a/file" in said
    assert reason in said
    with pytest.raises(OSError, match="the reason") as raised, naming(Path("a/file")):
        raise OSError(number, "the reason", "its own")
    assert raised.value.filename == "its own"
