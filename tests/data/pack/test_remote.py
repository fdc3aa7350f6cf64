"""Packs on object storage: here fsspec's store in memory, in tests/archive a real S3 server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pinglow.cli.train import _as_table
from pinglow.data.folder import FrameFolder
from pinglow.data.pack.cache import open_data
from pinglow.data.pack.remote import split_address
from pinglow.data.pack.writer import write_pack
from pinglow.data.synthetic.scenes import SceneSpec, write_dataset
from pinglow.errors import DataError, MissingExtraError
from pinglow.training.recipe import DataSection, DataSet


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def store() -> Iterator[Any]:
    """A store in memory, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, bytes]:
    """A folder of two scenes, a pack of it, and a pack of another one with its name."""
    contents = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("data") / "scenes"
        spec = SceneSpec(width=32, height=32, targets=(1, 1), snr=(20, 30), length=(2, 6))
        write_dataset(folder, 2, spec, kinds=("gradient",), seed=seed)
        (folder / "train.txt").write_text("000000\n000001\n")
        write_pack([folder], folder.parent / "frames.pack")
        contents.append((folder, (folder.parent / "frames.pack").read_bytes()))
    (folder, one), (_, two) = contents
    return folder, one, two


def fetched(home: Path) -> list[Path]:
    return list(home.rglob("fetched/*.pack"))


def test_a_pack_in_a_store_is_the_folder_and_is_fetched_once(
    packs: tuple[Path, bytes, bytes],
    store: Any,
    home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, content, _ = packs
    store.pipe("/bucket/frames.pack", content)

    frames = FrameFolder(Path("memory://bucket/frames.pack/scenes"), "train")  # a slash is lost
    assert [frames.frame(n).tobytes() for n in range(2)] == [
        FrameFolder(folder, "train").frame(n).tobytes() for n in range(2)
    ]
    assert "fetching memory://bucket/frames.pack" in caplog.text
    caplog.clear()
    assert open_data("memory://bucket/frames.pack") == frames.folder
    assert open_data("memory://bucket/frames.pack/scenes/train.txt").read_text()
    assert not caplog.text
    assert len(fetched(home)) == 1


def test_a_pack_that_was_changed_is_fetched_anew(
    packs: tuple[Path, bytes, bytes], store: Any
) -> None:
    _, one, two = packs
    store.pipe("/bucket/frames.pack", one)
    before = open_data("memory://bucket/frames.pack")
    store.pipe("/bucket/frames.pack", two)
    after = open_data("memory://bucket/frames.pack")
    assert before != after
    assert FrameFolder(before, "train").frame(0).tobytes() != (
        FrameFolder(after, "train").frame(0).tobytes()
    )


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "a break"])
def test_what_does_not_arrive_whole_never_counts(
    damage: str,
    packs: tuple[Path, bytes, bytes],
    store: Any,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, content, _ = packs
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 1
    store.pipe("/bucket/frames.pack", content)
    whole = type(store).open

    def spoil(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        file = whole(self, path, mode, **options)
        if damage == "a break":
            monkeypatch.setattr(file, "read", fail)
        else:
            file.seek(0)
            file.write(flipped if damage == "a flipped bit" else content[:-100])
            file.truncate(len(content) - 100 * (damage == "cut short"))
            file.seek(0)
        return file

    def fail(*_: object) -> bytes:
        raise ConnectionResetError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr("pinglow.io.places._PAUSE", 0)
        patch.setattr(type(store), "open", spoil)
        with pytest.raises(DataError, match=r"bucket/frames\.pack (is no whole|cannot be)"):
            open_data("memory://bucket/frames.pack")
    assert not fetched(home)
    store.pipe("/bucket/frames.pack", content)
    assert open_data("memory://bucket/frames.pack").is_dir()


def test_what_is_not_there_is_one_sentence(store: Any) -> None:
    with pytest.raises(DataError, match=r"memory://bucket/none\.pack is not there"):
        open_data("memory://bucket/none.pack")
    with pytest.raises(DataError, match="memory://bucket/frames is no pack: name one that"):
        open_data("memory://bucket/frames")
    with pytest.raises(DataError, match="kind that fsspec does not know"):
        open_data("s4://bucket/frames.pack")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match="needs gcsfs, which is not installed"):
        open_data("gs://bucket/frames.pack")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"\[archive\]"):
        open_data("gs://bucket/frames.pack")


@pytest.mark.parametrize("path", ["frames.pack", "/data/a:b", "C:/frames.pack", "C:\\frames.pack"])
def test_local_paths_are_no_addresses(path: str) -> None:
    assert split_address(path) is None


def test_lists_are_named_after_an_address(packs: tuple[Path, bytes, bytes], store: Any) -> None:
    store.pipe("/bucket/frames.pack", packs[1])
    for word in ("memory://bucket/frames.pack/scenes:train", "memory://bucket/frames.pack:train"):
        table = _as_table(word, {})
        assert table == f'{{folder = "{word.removesuffix(":train")}", split = "train"}}'
    missing = _as_table("memory://bucket/none.pack:train", {})
    assert missing == '{folder = "memory://bucket/none.pack", split = "train"}'
    place = DataSection(root="/data", sets=[DataSet(folder="memory://b/a.pack", split="x")]).place
    assert split_address(place(DataSet(folder="memory://b/a.pack", split="x"))) == (
        "memory://b/a.pack",
        (),
    )
