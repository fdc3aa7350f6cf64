from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pinglow.archive import listing
from pinglow.archive.listing import list_sources
from pinglow.errors import DataError


def names(*words: str, troubles: list[str] | None = None) -> list[str]:
    told = pytest.fail if troubles is None else troubles.append
    return sorted(Path(found.uri).name for found in list_sources(words, told))


def test_folders_are_searched_to_their_depth(footage: Path) -> None:
    assert names(str(footage)) == ["a.png", "b.png", "clip.mkv", "shard.tar", "stack.tif"]
    assert names(str(footage / "**" / "*.png")) == ["a.png", "b.png"]
    assert names(str(footage / "*.tif"), str(footage / "notes.txt")) == ["notes.txt", "stack.tif"]


def test_links_in_a_circle_end(footage: Path) -> None:
    (footage / "cam1" / "up").symlink_to(footage)
    assert len(names(str(footage))) == 5


def test_a_link_that_leads_nowhere_costs_no_other(footage: Path) -> None:
    (footage / "gone.png").symlink_to("nowhere.png")
    (footage / "circle").symlink_to("circle")
    troubles: list[str] = []
    assert len(names(str(footage), troubles=troubles)) == 5
    assert [f"{footage}/circle cannot be read" in trouble for trouble in troubles] == [True]


def test_a_list_names_a_source_a_line(footage: Path, tmp_path: Path) -> None:
    lines = [
        "# night",
        str(footage / "cam1"),
        "",
        str(footage / "gone.png"),
        "file://" + str(footage / "stack.tif"),
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    troubles: list[str] = []
    found = names(f"@{tmp_path / 'list.txt'}", troubles=troubles)
    assert found == ["a.png", "b.png", "stack.tif"]
    assert len(troubles) == 1
    assert "gone.png is not there" in troubles[0]
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="names nothing"):
        names(f"@{tmp_path / 'list.txt'}")


def test_what_is_not_there_or_holds_no_frames_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    for word, reason in (("gone", "is not there"), ("", "holds no frames"), ("*.png", "no frames")):
        with pytest.raises(DataError, match=reason):
            names(str(tmp_path / word))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png is a pipe"):
        names(str(tmp_path / "a.png"))


def test_a_listing_without_end_is_not_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with os.scandir(tmp_path) as entries:
        entry = next(entries)

    class Endless:
        def __enter__(self) -> Any:
            return iter(lambda: entry, None)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(listing.os, "scandir", lambda folder: Endless())
    found = list(islice(list_sources([str(tmp_path)], pytest.fail), 10_000))
    assert {each.uri for each in found} == {str(tmp_path / "a.png")}


def test_a_store_is_listed_as_a_disk_is(footage: Path, flaky: Any) -> None:
    store = flaky()
    for path in footage.rglob("*"):
        if path.is_file():
            store.pipe_file(f"flaky://b/{path.relative_to(footage)}", path.read_bytes())
    assert names("flaky://b") == names(str(footage))
    assert names("flaky://b/**/*.png") == ["a.png", "b.png"]
    assert names("flaky://b/stack.tif") == ["stack.tif"]
    [found] = list_sources(["flaky://b/cam1/a.png"], pytest.fail)
    assert found.uri == "flaky://b/cam1/a.png"
    assert found.size == (footage / "cam1" / "a.png").stat().st_size
    before = found.mark
    store.pipe_file("flaky://b/cam1/a.png", b"x")
    [found] = list_sources(["flaky://b/cam1/a.png"], pytest.fail)
    assert found.mark != before
