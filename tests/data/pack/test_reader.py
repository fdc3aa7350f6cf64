"""Folders into a pack and out of it, and packs read in the place of folders."""

from __future__ import annotations

import filecmp
import io
import json
import logging
import lzma
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from pinglow.data.audit import audit_folder
from pinglow.data.boxes import BoxFolder
from pinglow.data.convert import convert_labels
from pinglow.data.folder import FrameFolder, list_splits, read_split
from pinglow.data.pack import reader as packs
from pinglow.data.pack.cache import _temporary_folder, open_data, open_images
from pinglow.data.pack.coding import encode_file
from pinglow.data.pack.png import PngStream
from pinglow.data.pack.reader import Pack, unpack_folders
from pinglow.data.pack.writer import write_pack
from pinglow.data.synthetic.scenes import SceneSpec, write_dataset
from pinglow.errors import DataError, OptionError, PinglowError
from pinglow.io.frames import find_frames


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes with VOC, YOLO and COCO boxes, two of them in test.txt."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    spec = SceneSpec(width=64, height=48, targets=(1, 2), snr=(20, 30), length=(2, 6))
    write_dataset(folder, 4, spec, kinds=("gradient",), seed=1)
    (folder / "train.txt").write_text("000000\n000001\n000002\n000003\n")
    (folder / "test.txt").write_text("000001\n000003\n")
    convert_labels(folder, ["train", "test"], "coco", folder)
    convert_labels(folder, ["train"], "voc", folder)
    convert_labels(folder, ["train"], "yolo", folder.parent / "yolo")
    shutil.copytree(folder.parent / "yolo" / "labels", folder / "labels")
    return folder


@pytest.fixture(scope="module")
def packed(scenes: Path) -> Path:
    out = scenes.parent / "frames.pack"
    write_pack([scenes], out)
    return out


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of all sorts of files."""
    folder = tmp_path / "mixed"
    for inner in ("images/night", "masks", "idx_4", "img_idx", "labels", "annotations", "empty/in"):
        (folder / inner).mkdir(parents=True)
    random = np.random.default_rng(0)
    walk = random.integers(-2, 3, (60, 80)).cumsum(axis=0).cumsum(axis=1)
    frame = (walk - walk.min()).clip(0, 255).astype(np.uint8)
    Image.fromarray(frame).save(folder / "images" / "gray.png")
    Image.fromarray(frame).save(folder / "images" / "night" / "Größe 夜.png", optimize=True)
    Image.fromarray(frame.astype(np.uint16) * 100).save(folder / "images" / "deep.png")
    Image.fromarray(np.stack([frame] * 3, axis=-1)).save(folder / "images" / "rgb.png")
    Image.fromarray(frame).convert("P").save(folder / "images" / "palette.PNG", transparency=3)
    Image.fromarray(np.pad(np.ones((4, 5), bool), 90)).save(folder / "masks" / "bilevel.png")
    Image.fromarray(frame).save(folder / "images" / "lossy.jpg")
    Image.fromarray(frame).save(folder / "images" / "plain.bmp")
    tifffile.imwrite(folder / "images" / "counts.tif", frame.astype(np.uint16) * 100)
    np.save(folder / "images" / "kelvin.npy", frame.astype(np.float32) / 7)
    (folder / "images" / "broken.png").write_bytes((folder / "images/gray.png").read_bytes()[:99])
    (folder / "idx_4" / "train.txt").write_text("gray\ndeep\n")
    (folder / "img_idx" / "test_mixed.txt").write_bytes(b"\xff\xfe not UTF-8\r\n")
    (folder / "labels" / "gray.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "labels" / "deep.txt").touch()
    (folder / "annotations" / "train.json").write_text("{}")
    (folder / "noise.bin").write_bytes(random.bytes(3000))
    return folder


def content(folder: Path) -> dict[str, bytes | None]:
    """Every file, and every folder as None."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def unpack(path: Path, out: Path) -> int:
    with Pack(path) as pack:
        return unpack_folders(pack, out)


def repack(path: Path, out: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A pack with other members, of which the zip file has the right checksums."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), change(name, old.read(name)))
    return out


def restate(path: Path, out: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A pack whose manifest says something else."""

    def edit(name: str, data: bytes) -> bytes:
        if name != "pack.json.xz":
            return data
        manifest = json.loads(lzma.decompress(data))
        change(manifest)
        return lzma.compress(json.dumps(manifest).encode())

    return repack(path, out, edit)


# --- there and back -------------------------------------------------------------------------------


def test_a_folder_comes_back_byte_for_byte(mixed: Path, tmp_path: Path) -> None:
    summary = write_pack([mixed], tmp_path / "mixed.pack")
    assert unpack(tmp_path / "mixed.pack", tmp_path / "out") == 0
    assert content(tmp_path / "out" / "mixed") == content(mixed)
    assert summary.frames == 10
    with Pack(tmp_path / "mixed.pack") as pack:
        kept = [file.path for file in pack.folders["mixed"].files if not file.pixels]
    assert [path for path in kept if path.lower().endswith(".png")] == ["images/broken.png"]
    assert summary.kept == 1
    assert summary.before == sum(len(data or b"") for data in content(mixed).values())
    assert summary.after == (tmp_path / "mixed.pack").stat().st_size
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mixed"]


def test_a_pack_is_smaller_than_its_folder(scenes: Path, packed: Path) -> None:
    assert packed.stat().st_size < 0.7 * sum(len(data or b"") for data in content(scenes).values())


def test_several_parts_come_back(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pinglow.data.pack.writer._PART", 500)
    write_pack([mixed], tmp_path / "mixed.pack")
    with Pack(tmp_path / "mixed.pack") as pack:
        assert len(pack.folders["mixed"].parts) > 3
    unpack(tmp_path / "mixed.pack", tmp_path / "out")
    assert content(tmp_path / "out" / "mixed") == content(mixed)


def test_equal_folders_make_equal_packs(mixed: Path, tmp_path: Path) -> None:
    shutil.copytree(mixed, tmp_path / "copy" / "mixed")
    write_pack([mixed], tmp_path / "one.pack")
    write_pack([tmp_path / "copy" / "mixed"], tmp_path / "two.pack")
    assert filecmp.cmp(tmp_path / "one.pack", tmp_path / "two.pack", shallow=False)


def test_links_become_what_they_lead_to_and_hidden_files_stay_out(tmp_path: Path) -> None:
    folder = tmp_path / "linked"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("a")
    folder.mkdir()
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(folder / "images")
    (folder / "b.txt").symlink_to(tmp_path / "elsewhere" / "a.txt")
    for hidden in (".git", "__pycache__"):
        (folder / hidden).mkdir()
        (folder / hidden / "c.txt").write_text("c")
    (folder / ".hidden").write_text("d")
    write_pack([folder], tmp_path / "linked.pack")
    unpack(tmp_path / "linked.pack", tmp_path / "out")
    out = tmp_path / "out" / "linked"
    assert content(out) == {
        "images": None, "again": None, "images/a.txt": b"a", "again/a.txt": b"a", "b.txt": b"a",
    }  # fmt: skip
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_folders_of_one_name_are_told_apart(scenes: Path, mixed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "scenes"
    shutil.copytree(mixed, other)
    write_pack([scenes, other], tmp_path / "both.pack")
    unpack(tmp_path / "both.pack", tmp_path / "out")
    assert content(tmp_path / "out" / "scenes") == content(scenes)
    assert content(tmp_path / "out" / "scenes-2") == content(other)


def test_a_pack_says_the_license_of_each_folder(scenes: Path, tmp_path: Path) -> None:
    for name in ("irstd-1k", "mine"):
        shutil.copytree(scenes, tmp_path / name)
    folders = [tmp_path / "irstd-1k", tmp_path / "mine"]
    known = write_pack(folders, tmp_path / "a.pack").folders
    assert known == {"irstd-1k": "MIT", "mine": "not stated"}
    given = write_pack(folders, tmp_path / "b.pack", license="CC0-1.0").folders
    assert given == {"irstd-1k": "CC0-1.0", "mine": "CC0-1.0"}
    with Pack(tmp_path / "a.pack") as pack:
        assert {name: folder.license for name, folder in pack.folders.items()} == known
    with zipfile.ZipFile(tmp_path / "a.pack") as archive:
        assert "irstd-1k: license: MIT" in archive.read(archive.namelist()[0]).decode()


def test_with_another_zlib_pixels_are_equal_and_it_is_said_how_many(
    scenes: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PngStream, "deflate", _stored_blocks)
    assert unpack(packed, tmp_path) == 8
    for name in ("images/000000.png", "masks/000003.png"):
        one, other = Image.open(scenes / name), Image.open(tmp_path / "scenes" / name)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert (tmp_path / "scenes/train.txt").read_bytes() == (scenes / "train.txt").read_bytes()


def _stored_blocks(self: PngStream, rows: bytes) -> list[bytes]:
    packer = io.BytesIO()
    for start in range(0, len(rows), 2**16 - 1):
        piece = rows[start : start + 2**16 - 1]
        last = start + len(piece) == len(rows)
        sizes = len(piece).to_bytes(2, "little") + (len(piece) ^ 0xFFFF).to_bytes(2, "little")
        packer.write(bytes([last]) + sizes + piece)
    return [packer.getvalue()]


# --- what cannot be packed or unpacked ------------------------------------------------------------


def test_nothing_is_left_of_a_pack_that_could_not_be_made(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(scenes, folder)
    (folder / "images" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"gone\.png"):
        write_pack([folder], tmp_path / "out" / "a.pack")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_left(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "train.txt":
            raise OSError(5, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataError, match=r"train\.txt.*Input/output"):
        write_pack([scenes], tmp_path / "a.pack")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_pack_and_leaves_the_old_one(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.pack"
    out.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError, match=r"a\.pack"):
        write_pack([scenes], out, overwrite=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.pack": "old"}


def _make_circle(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "up").symlink_to(folder)


def _make_bytes(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff.txt")).touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_make_circle, "up leads back"),
        (_make_bytes, "UTF-8"),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe"),
        (lambda folder: None, "empty"),
        (lambda folder: folder.rmdir(), "not a folder"),
    ],
)
def test_what_cannot_be_packed_is_named(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        write_pack([folder], tmp_path / "a.pack")
    assert str(folder) in str(caught.value)
    assert not (tmp_path / "a.pack").exists()


def test_a_folder_whose_name_is_not_utf_8_is_refused(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.symlink_to(scenes)
    with pytest.raises(DataError, match="UTF-8"):
        write_pack([folder], tmp_path / "a.pack")


def test_a_pack_replaces_nothing_unless_told(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.pack"
    out.write_text("mine")
    with pytest.raises(OptionError, match="--overwrite"):
        write_pack([scenes], out)
    assert out.read_text() == "mine"
    write_pack([scenes], out, overwrite=True)
    assert unpack(out, tmp_path / "out") == 0


def test_a_pack_does_not_go_into_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(OptionError, match="would lie in"):
        write_pack([tmp_path], tmp_path / "in" / "a.pack")


def test_unpacking_replaces_nothing(scenes: Path, packed: Path, tmp_path: Path) -> None:
    unpack(packed, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    unpack(packed, tmp_path)  # there already
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (tmp_path / "scenes" / "train.txt").write_text("mine")
    with pytest.raises(DataError, match="scenes is there already"):
        unpack(packed, tmp_path)
    assert (tmp_path / "scenes" / "train.txt").read_text() == "mine"


# --- damaged and hostile packs --------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A pack of one little frame, a list and bytes."""
    folder = tmp_path / "s"
    (folder / "images").mkdir(parents=True)
    walk = np.random.default_rng(0).integers(0, 3, (30, 40)).cumsum(axis=1)
    Image.fromarray(walk.astype(np.uint8)).save(folder / "images" / "a.png")
    (folder / "train.txt").write_text("a\n")
    (folder / "b").write_bytes(np.random.default_rng(0).bytes(60))
    write_pack([folder], tmp_path / "s.pack")
    with Pack(tmp_path / "s.pack") as pack:
        assert all(file.pixels for file in pack.folders["s"].files if file.path.endswith("png"))
    return tmp_path / "s.pack"


def assert_damage_is_seen(path: Path, expected: dict[str, bytes | None], out: Path) -> bool:
    """Whether a pack is refused; else it has to give what it should."""
    refusal = None
    try:
        unpack(path, out)
    except PinglowError as error:
        refusal = str(error)
    if refusal is None:
        assert content(out / "s") == expected
        shutil.rmtree(out)
        return False
    assert str(path) in refusal
    assert "\n" not in refusal
    assert not out.exists() or not list(out.iterdir())
    return True


def test_a_pack_cut_short_is_refused(small: Path, tmp_path: Path) -> None:
    whole, expected = small.read_bytes(), content(tmp_path / "s")
    cut = tmp_path / "cut.pack"
    for size in (*range(0, len(whole), 7), *range(len(whole) - 100, len(whole))):
        cut.write_bytes(whole[:size])
        assert assert_damage_is_seen(cut, expected, tmp_path / "out"), size


def test_a_flipped_bit_is_seen_or_does_no_harm(small: Path, tmp_path: Path) -> None:
    whole, expected = small.read_bytes(), content(tmp_path / "s")
    flipped = tmp_path / "flipped.pack"
    refused = 0
    places = range(0, len(whole), 3)
    for number, place in enumerate(places):
        data = bytearray(whole)
        data[place] ^= 1 << number % 8
        flipped.write_bytes(data)
        refused += assert_damage_is_seen(flipped, expected, tmp_path / "out")
    assert refused > 0.6 * len(places)  # the rest is dates, permissions and the text


def test_a_damaged_pack_is_one_sentence_wherever_it_is_named(packed: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pack"
    cut.write_bytes(packed.read_bytes()[:-100])
    for ask in (
        open_data,
        audit_folder,
        list_splits,
        lambda path: FrameFolder(path, "train"),
        lambda path: BoxFolder(path, "train"),
        lambda path: open_images(str(path)),
        lambda path: read_split(path, "train"),
    ):
        with pytest.raises(DataError, match=r"cut\.pack is damaged or cut short"):
            ask(cut)


def test_nothing_of_a_damaged_pack_stays_in_the_cache(
    packed: Path, tmp_path: Path, home: Path
) -> None:
    bad = repack(
        packed, tmp_path / "bad.pack", lambda name, data: data[::-1] if "blobs" in name else data
    )
    with pytest.raises(DataError, match="damaged"):
        open_data(bad)
    assert not [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert open_data(packed).is_dir()


@pytest.mark.parametrize("path", ["../x.txt", "/x.txt", "images/../../x.txt", "images//x", ""])
def test_a_path_out_of_the_folder_is_refused(packed: Path, tmp_path: Path, path: str) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["folders"][0]["parts"][0]["files"][0]["path"] = path

    bad = restate(packed, tmp_path / "bad.pack", edit)
    with pytest.raises(DataError, match=r"bad\.pack is damaged"):
        unpack(bad, tmp_path / "deep" / "out")
    assert {each.name for each in tmp_path.rglob("*")} == {"bad.pack"}


@pytest.mark.parametrize("name", ["../scenes", "a/b", "..", "", "."])
def test_a_folder_name_that_leads_out_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    bad = restate(packed, tmp_path / "b.pack", lambda m: m["folders"][0].update(name=name))
    with pytest.raises(DataError, match="damaged"):
        Pack(bad)


def test_parts_larger_than_stated_are_not_inflated(packed: Path, tmp_path: Path) -> None:
    bomb = lzma.compress(bytes(2**24), preset=0)  # 3 kB
    with zipfile.ZipFile(packed) as archive:
        digest = packs.digest_part(bomb, archive.read("scenes/1.blobs"))
    stated = restate(
        packed,
        tmp_path / "stated.pack",
        lambda manifest: manifest["folders"][0]["parts"][0].update(sha256=digest),
    )
    bad = repack(
        stated, tmp_path / "bad.pack", lambda name, data: bomb if name == "scenes/1.xz" else data
    )
    with pytest.raises(DataError, match=r"bad\.pack .*larger than it may be"):
        unpack(bad, tmp_path / "out")


def test_a_manifest_larger_than_any_is_not_inflated(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "_LARGEST_MANIFEST", 1000)
    with pytest.raises(DataError, match="larger than it may be"):
        Pack(packed)


def test_other_bytes_than_those_stated_are_not_looked_at(packed: Path, tmp_path: Path) -> None:
    """A manifest stands for what is in its pack, also in the cache."""
    other = repack(
        packed, tmp_path / "o.pack", lambda name, data: data[::-1] if "blobs" in name else data
    )
    with Pack(packed) as one, Pack(other) as two:
        assert one.digest == two.digest
    with pytest.raises(DataError, match="a checksum differs"):
        open_data(other)


def test_members_that_zip_inflates_are_refused(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(tmp_path / "bad.pack", "w") as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), old.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="damaged"):
        Pack(tmp_path / "bad.pack")


def test_a_picture_larger_than_stated_is_refused(packed: Path, tmp_path: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        for file in manifest["folders"][0]["parts"][0]["files"]:
            if file["path"].startswith("images/"):
                file["pixels"]["columns"] //= 2

    with pytest.raises(DataError, match=r"damaged.*shape"):
        unpack(restate(packed, tmp_path / "bad.pack", edit), tmp_path / "out")


def test_other_files_are_no_packs(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("images/a.png", b"")
    (tmp_path / "empty").touch()
    for path in (tmp_path / "plain.zip", tmp_path / "empty", tmp_path / "gone", tmp_path):
        assert open_data(path) == path
        with pytest.raises(DataError, match=path.name):
            Pack(path)
    with pytest.raises(DataError, match="not a folder"):
        FrameFolder(tmp_path / "plain.zip", "train")


def test_a_pack_of_a_later_version_is_refused(packed: Path, tmp_path: Path) -> None:
    later = restate(packed, tmp_path / "b.pack", lambda m: m.update(version=2, new=[]))
    with pytest.raises(DataError, match=r"version 2.*update pinglow"):
        Pack(later)


def test_without_jpeg_xl_it_is_said_what_to_install(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("no jpegxl")  # as imagecodecs does

    monkeypatch.setattr("imagecodecs.jpegxl_decode", fail)
    with pytest.raises(DataError, match="pip install --upgrade imagecodecs"):
        unpack(packed, tmp_path)


# --- in the place of a folder ---------------------------------------------------------------------


def test_frames_and_masks_are_those_of_the_folder(scenes: Path, packed: Path) -> None:
    for split in ("train", "test"):
        one, other = FrameFolder(scenes, split), FrameFolder(packed, split)
        assert one.names == other.names
        for index in range(len(one)):
            for a, b in zip(one.pair(index), other.pair(index), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("source", ["masks", "voc", "yolo", "coco"])
def test_boxes_are_those_of_the_folder(scenes: Path, packed: Path, source: str) -> None:
    one, other = (BoxFolder(folder, "train", source) for folder in (scenes, packed))
    assert len(one) == 4
    for index in range(4):
        np.testing.assert_array_equal(one.boxes(index), other.boxes(index))


def test_an_audit_is_that_of_the_folder(scenes: Path, packed: Path) -> None:
    one, other = audit_folder(scenes).to_dict(), audit_folder(packed).to_dict()
    assert other.pop("folder") == str(packed)
    one.pop("folder")
    assert one == other


def test_converted_boxes_are_those_of_the_folder(
    scenes: Path, packed: Path, tmp_path: Path
) -> None:
    for folder, out in ((scenes, "a"), (packed, "b")):
        done = convert_labels(folder, ["train"], "voc", tmp_path / out, source="masks")
        assert done.frames == 4
    assert content(tmp_path / "a") == content(tmp_path / "b")
    with pytest.raises(DataError, match="is a file"):
        convert_labels(packed, ["train"], "voc", packed)


def test_a_path_may_lead_into_a_pack(packed: Path, scenes: Path) -> None:
    assert open_data(packed) == open_data(packed / "scenes")
    assert open_data(packed).name == "scenes"
    assert open_data(packed / "images" / "a.png") == open_data(packed) / "images" / "a.png"
    assert read_split(packed, str(packed / "scenes" / "test.txt")) == ["000001", "000003"]
    found = find_frames([open_images(str(packed))])
    assert [path.name for path in found] == [f"00000{number}.png" for number in range(4)]
    assert find_frames([open_images(f"{packed}/scenes/masks/*1.png")])[0].name == "000001.png"
    assert open_images("night/*.tif") == "night/*.tif"


def test_of_several_folders_one_is_to_be_named(scenes: Path, mixed: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.pack"
    write_pack([scenes, mixed], path)
    assert FrameFolder(path / "scenes", "train").names == read_split(scenes, "train")
    assert open_data(path / "mixed" / "noise.bin").read_bytes()
    with pytest.raises(DataError, match=r"scenes, mixed: name one of them, as .*both\.pack/scenes"):
        open_data(path)
    with pytest.raises(DataError, match="no folder sirst, but scenes, mixed"):
        open_data(path / "sirst")


def test_the_second_time_nothing_is_unpacked(
    packed: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = open_data(packed)
    assert "frames.pack" in caplog.text
    caplog.clear()
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    monkeypatch.setattr(Pack, "extract", None)
    assert open_data(packed) == first
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before
    assert not caplog.text


def test_of_two_threads_one_unpacks(
    packed: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = Pack.extract
    calls = []

    def slowly(self: Pack, *given: Any, **options: Any) -> int:
        calls.append(given)
        time.sleep(0.2)
        return extract(self, *given, **options)

    monkeypatch.setattr(Pack, "extract", slowly)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(open_data, [packed, packed])
    assert one == other
    assert len(calls) == 1
    assert content(one).keys() == content(scenes).keys()
    assert [path.name for path in one.parent.iterdir()] == ["scenes"]


@pytest.mark.parametrize("kind", ["no home", "a home that cannot be written"])
def test_without_a_home_a_pack_is_unpacked_once_a_process(
    kind: str, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _temporary_folder.cache_clear()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if kind == "no home":
        monkeypatch.setattr("pinglow.data.pack.cache.cache_folder", lambda: None)
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = open_data(packed)
    assert folder.is_relative_to(tmp_path)
    assert FrameFolder(packed, "train").folder == folder
    _temporary_folder.cache_clear()


def test_a_full_cache_is_said_and_leaves_nothing(
    packed: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def fail(path: Path, data: bytes) -> int:
        if path.name == "test.txt":
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        open_data(packed)
    assert not [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_real_frames_shrink(shared_data: Path) -> None:
    for folder, share in (("lwir-clouds", 0.4), ("sirst", 0.8), ("nudt-sirst", 0.8)):
        path = sorted((shared_data / folder / "images").iterdir())[1]
        data = path.read_bytes()
        assert len(encode_file("a", data).blob) < share * len(data)
