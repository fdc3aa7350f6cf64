"""Archives that strangers send."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pinglow.errors import FrameError
from pinglow.serve import unpacking
from pinglow.serve.unpacking import clean_name, is_archive, unpack

_FILES = {"night/1.png": b"one", "night/2.png": b"two" * 1000, "3.png": b""}


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _FILES.items():
            archive.writestr(name, content)


def _tar(path: Path, mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in _FILES.items():
            archive.addfile(_info(name, len(content)), io.BytesIO(content))


def _info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def _files_in(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    assert not any(path.is_symlink() for path in paths)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return an empty folder beside which nothing may appear."""
    folder = tmp_path / "inner" / "out"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "make",
    [
        _zip,
        _tar,
        lambda path: _tar(path, "w:gz"),
        lambda path: _tar(path, "w:bz2"),
        lambda path: _tar(path, "w:xz"),
    ],
)
def test_each_kind_is_unpacked(make: Callable[[Path], None], tmp_path: Path, out: Path) -> None:
    make(tmp_path / "sent")
    assert is_archive(tmp_path / "sent", "sent")
    unpack(tmp_path / "sent", "sent", out, 10_000)
    assert _files_in(out) == _FILES


def test_frames_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "frame").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(600))
    assert not is_archive(tmp_path / "frame", "frame.png")
    _zip(tmp_path / "arrays")
    assert not is_archive(tmp_path / "arrays", "arrays.NPZ")


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("a/b.png", "a/b.png"),
        ("../../etc/x.png", "etc/x.png"),
        ("/etc/x.png", "etc/x.png"),
        ("C:\\x\\..\\y.png", "C_/x/y.png"),
        ("a\0b\n\x1b[31m.png", "a_b__(31m.png".replace("(", "_")),
        ("夜/帧.png", "夜/帧.png"),
        ("../..", ""),
    ],
)
def test_names_stay_inside(name: str, cleaned: str) -> None:
    assert clean_name(name) == cleaned


def test_long_names_fit_a_file_system(out: Path) -> None:
    name = clean_name("/".join(["夜" * 300] * 50) + ".png")
    assert name.endswith(".png")
    (out / name).parent.mkdir(parents=True)
    (out / name).touch()


def test_nothing_leaves_the_folder(tmp_path: Path, out: Path) -> None:
    with tarfile.open(tmp_path / "sent.tar", "w") as archive:
        for name in ("../up.png", "/abs.png", "in/../../../deep.png"):
            archive.addfile(_info(name, 1), io.BytesIO(b"x"))
        link = _info("link", kind=tarfile.SYMTYPE)
        link.linkname = str(tmp_path)
        archive.addfile(link)
        archive.addfile(_info("link/through.png", 1), io.BytesIO(b"x"))
        hard = _info("hard", kind=tarfile.LNKTYPE)
        hard.linkname = "/etc/passwd"
        archive.addfile(hard)
        archive.addfile(_info("pipe", kind=tarfile.FIFOTYPE))
        archive.addfile(_info("device", kind=tarfile.CHRTYPE))
    before = set(tmp_path.rglob("*"))
    unpack(tmp_path / "sent.tar", "sent.tar", out, 100)
    assert set(_files_in(out)) == {"up.png", "abs.png", "in/deep.png", "link/through.png"}
    assert all(out in path.parents for path in set(tmp_path.rglob("*")) - before)


def test_a_zip_s_links_are_left_out(tmp_path: Path, out: Path) -> None:
    with zipfile.ZipFile(tmp_path / "sent", "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("real.png", b"x")
    unpack(tmp_path / "sent", "sent", out, 100)
    assert set(_files_in(out)) == {"real.png"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_bombs_are_refused_before_they_are_written(kind: str, tmp_path: Path, out: Path) -> None:
    sent = tmp_path / "sent"
    zeros = bytes(30_000_000)
    if kind == "zip":
        with zipfile.ZipFile(sent, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", zeros)
    else:
        with gzip.open(sent, "wb", 1) as file, tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(_info("a.png", len(zeros)), io.BytesIO(zeros))
    with pytest.raises(FrameError, match=r"sent has more than 10 MB when unpacked"):
        unpack(sent, "sent", out, 10 * 2**20)
    assert not _files_in(out)


def test_a_size_that_is_a_lie_writes_no_more(tmp_path: Path, out: Path) -> None:
    sent = tmp_path / "sent"
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(100_000))
    content = sent.read_bytes().replace(struct.pack("<L", 100_000), struct.pack("<L", 10))
    sent.write_bytes(content)
    with pytest.raises(FrameError, match="cannot be unpacked"):
        unpack(sent, "sent", out, 1000)
    assert sum(map(len, _files_in(out).values())) <= 10


def test_headers_that_claim_memory_are_refused(tmp_path: Path, out: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux counts a process's memory so")
    sent = tmp_path / "sent"
    info = _info("././@PaxHeader", 2**36, tarfile.XHDTYPE)
    with sent.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**36)  # sparse: it takes no room
    with pytest.raises(FrameError, match="takes too much memory"):
        unpack(sent, "sent", out, 1000)


@pytest.mark.parametrize("damage", ["cut", "garbage", "gzip of no tar", "password"])
def test_damage_is_one_sentence(damage: str, tmp_path: Path, out: Path) -> None:
    sent = tmp_path / "sent"
    _tar(sent, "w:gz")
    if damage == "cut":
        sent.write_bytes(sent.read_bytes()[:60])
    elif damage == "garbage":
        sent.write_bytes(b"PK\3\4" + bytes(100))
    elif damage == "gzip of no tar":
        sent.write_bytes(gzip.compress(b"no tar" * 1000))
    else:
        _zip(sent)
        content = bytearray(sent.read_bytes())
        content[6] |= 1
        content[content.index(b"PK\1\2") + 8] |= 1
        sent.write_bytes(content)
    with pytest.raises(FrameError, match=r"^sent cannot be unpacked \([^\n]+\): send") as caught:
        unpack(sent, "sent", out, 10_000)
    assert str(tmp_path) not in str(caught.value)


def test_two_members_of_one_name(tmp_path: Path, out: Path) -> None:
    with zipfile.ZipFile(tmp_path / "sent", "w") as archive:
        archive.writestr("a/1.png", b"x")
        archive.writestr("../a/1.png", b"y")
    with pytest.raises(FrameError, match=r"two members called a/1\.png"):
        unpack(tmp_path / "sent", "sent", out, 100)


def test_too_many_members(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_MEMBERS", 2)
    _zip(tmp_path / "sent")
    with pytest.raises(FrameError, match="more than 2 members"):
        unpack(tmp_path / "sent", "sent", out, 10_000)
