"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pinglow.files import explain, naming, read_whole, write_whole


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
