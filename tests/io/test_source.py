"""Images, stacks, videos, folders and bytes as sources of frames."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import DataError, FrameError, OptionError
from pinglow.io.frames import read_frame
from pinglow.io.source import Selection, Source, open_source

STACK = np.random.default_rng(3).integers(0, 2**14, (4, 12, 17), dtype=np.uint16)
SaveClip = Callable[..., Path]


def as_file(frames: NDArray[Any], kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "tif":
        tifffile.imwrite(buffer, frames, photometric="minisblack")
    elif kind == "npy":
        np.save(buffer, frames)
    elif kind == "png":
        buffer.write(imagecodecs.png_encode(frames))
    else:
        Image.fromarray(frames.astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def frames_of(source: Source, **selection: Any) -> list[NDArray[Any]]:
    frames = []
    for frame in source.select(Selection(**selection)):
        assert not isinstance(frame.counts, FrameError)
        frames.append(frame.counts)
    return frames


def test_whatever_holds_them_frames_come_out_alike(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in zip((1, 2, 10, 11), STACK, strict=True):
        (folder / f"f{number}.png").write_bytes(as_file(frame, "png"))
    stack = tmp_path / "stack.tif"
    stack.write_bytes(as_file(STACK, "tif"))
    for what in (stack, str(stack), stack.read_bytes(), folder):
        source = open_source(what)
        assert (source.frames, source.rate) == (4, None)
        assert source.expect(Selection(every=3)) == 2
        np.testing.assert_array_equal(frames_of(source), STACK)
        np.testing.assert_array_equal(frames_of(source, every=3), STACK[::3])
        np.testing.assert_array_equal(source.read(2), STACK[2])
        labels = [frame.label for frame in source.select()]
        assert len(set(labels)) == 4
        for index in (4, -1):
            with pytest.raises(FrameError):
                source.read(index)


def test_a_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_clip: SaveClip
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_clip(tmp_path / "clip.mkv", 2)
    assert len(frames_of(open_source("~/clip.mkv"))) == 2


def test_names_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.b.png").write_bytes(as_file(STACK[0], "png"))
    image = open_source(tmp_path / "a.b.png")
    assert (image.name, image.stem) == (str(tmp_path / "a.b.png"), "a.b")
    assert (image.home, image.sequence) == (tmp_path.name, str(tmp_path))
    folder = open_source(tmp_path)
    assert (folder.stem, folder.sequence) == (tmp_path.name, str(tmp_path))
    content = open_source(as_file(STACK[0], "png"), "upload.png")
    assert (content.name, content.stem, content.sequence) == ("upload.png", "upload", "upload.png")


@pytest.mark.parametrize("kind", ["png", "tif", "npy", "bmp", "ppm", "jpeg"])
def test_bytes_are_what_their_file_is(tmp_path: Path, kind: str) -> None:
    content = as_file(STACK[0], kind)
    (tmp_path / "file").write_bytes(content)
    (found,) = frames_of(open_source(content))
    np.testing.assert_array_equal(found, read_frame(tmp_path / "file"))
    assert found.dtype == read_frame(tmp_path / "file").dtype


@pytest.mark.parametrize("kind", ["png", "tif", "npy", "bmp", "ppm", "jpeg"])
def test_bytes_that_are_cut_short_are_refused_by_name(kind: str) -> None:
    content = as_file(STACK[0], kind)
    for length in (0, 9, len(content) // 2):
        (frame,) = open_source(content[:length], "upload").select()
        assert isinstance(frame.counts, FrameError)
        assert str(frame.counts).startswith("upload ")
    with pytest.raises(FrameError, match=r"^upload is not a frame that pinglow reads"):
        open_source(b"some text", "upload").read(0)


def test_a_huge_claim_of_bytes_is_refused() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<u2", "fortran_order": False, "shape": (2**20, 2**20)}
    )
    with pytest.raises(FrameError, match=r"^upload\.npy "):
        open_source(header.getvalue() + b"1234", "upload.npy").read(0)


def test_a_video_is_a_source_with_times(tmp_path: Path, save_clip: SaveClip) -> None:
    source = open_source(save_clip(tmp_path / "clip.mkv", 12))
    assert (source.frames, source.rate, source.stem) == (12, 10.0, "clip")
    frames = list(source.select(Selection(every=5)))
    assert [frame.index for frame in frames] == [0, 5, 10]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.5, 1])
    assert [frame.label for frame in frames] == ["_f0000", "_f0005", "_f0010"]
    np.testing.assert_array_equal(source.read(5), frames[1].counts)
    part = frames_of(source, start=0.2, end=0.65)
    assert source.expect(Selection(start=0.2, end=0.65)) == pytest.approx(len(part), abs=1)
    with pytest.raises(FrameError, match="has no frame 12"):
        source.read(12)


def test_a_broken_page_costs_no_other(tmp_path: Path) -> None:
    for number, frame in enumerate(STACK):
        (tmp_path / f"{number}.png").write_bytes(as_file(frame, "png"))
    (tmp_path / "2.png").write_bytes(b"")
    counts = [frame.counts for frame in open_source(tmp_path).select()]
    assert [isinstance(each, FrameError) for each in counts] == [False, False, True, False]


@pytest.mark.parametrize("name", ["torn.tif", "gone.png", "clip.mp4"])
def test_a_broken_source_says_so_when_it_is_read(tmp_path: Path, name: str) -> None:
    if name != "gone.png":
        (tmp_path / name).write_bytes(b"II*\0\xff\xff\xff")
    (frame,) = open_source(tmp_path / name).select()
    assert isinstance(frame.counts, FrameError)
    assert name in str(frame.counts)


def test_an_empty_folder_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no frames"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"every": 0}, "every is 0"),
        ({"start": -1.0}, "start is -1"),
        ({"start": float("nan")}, "start is nan"),
        ({"start": 2.0, "end": 2.0}, "end is 2.0; use more than start"),
    ],
)
def test_an_impossible_selection_is_refused(values: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Selection(**values)
