"""Readers that other packages add."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import FrameError
from pinglow.io.frames import count_pages, find_frames, read_frame
from pinglow.io.readers import FRAME_SUFFIXES, frame_suffixes
from pinglow.io.source import open_source

READER = """
import numpy as np

def read(path, page, max_pixels):
    height, width = np.fromfile(path, "<u2", 2)
    if height * width > max_pixels:
        raise MemoryError
    return np.fromfile(path, "<u2", offset=4)[: height * width].reshape(height, width)
"""


@pytest.fixture
def raw14(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of a kind that a package, installed only here, adds."""
    site = tmp_path / "site"
    home = site / "raw_reader-1.0.dist-info"
    home.mkdir(parents=True)
    (site / "raw_reader.py").write_text(READER)
    (home / "METADATA").write_text("Metadata-Version: 2.1\nName: raw-reader\nVersion: 1.0\n")
    (home / "entry_points.txt").write_text("[pinglow.readers]\n.raw14 = raw_reader:read\n")
    monkeypatch.syspath_prepend(str(site))
    path = tmp_path / "frames" / "1.RAW14"
    path.parent.mkdir()
    counts = np.arange(12, dtype="<u2") + 0x3550  # begins as a PGM does, by chance
    path.write_bytes(np.array([3, 4], "<u2").tobytes() + counts.tobytes())
    return path


def test_a_reader_of_another_package_is_found_by_the_suffix(raw14: Path) -> None:
    expected = np.arange(12, dtype=np.uint16).reshape(3, 4) + 0x3550
    frame = read_frame(raw14)
    assert frame.dtype == np.uint16
    np.testing.assert_array_equal(frame, expected)
    assert count_pages(raw14) == 1
    assert find_frames([raw14.parent]) == [raw14]
    np.testing.assert_array_equal(open_source(raw14.parent).read(0), expected)


def test_what_it_raises_names_the_file(raw14: Path) -> None:
    raw14.write_bytes(raw14.read_bytes()[:9])
    with pytest.raises(FrameError, match=r"1\.RAW14 is damaged or cut short"):
        read_frame(raw14)
    with pytest.raises(FrameError, match="no page 1"):
        read_frame(raw14, page=1)


def test_without_it_the_kind_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "1.raw14"
    path.write_bytes(b"\3\0\4\0")
    assert frame_suffixes() == FRAME_SUFFIXES
    with pytest.raises(FrameError, match="not a frame that pinglow reads"):
        read_frame(path)


def as_bmp(counts: NDArray[Any], *masks: int) -> bytes:
    """16 bits a pixel, with the masks of its colors if it has some."""
    extra = struct.pack("<III", *masks) if masks else b""
    height, width = counts.shape
    data = counts[::-1].astype("<u2").tobytes()
    fields = (40, width, height, 1, 16, 3 if masks else 0, len(data), 2835, 2835, 0, 0)
    header = struct.pack("<IiiHHIIiiII", *fields) + extra
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + data


@pytest.mark.parametrize("masks", [(), (0xF800, 0x07E0, 0x001F)])
def test_a_bmp_of_16_bits_does_not_say_what_it_holds(
    tmp_path: Path, masks: tuple[int, ...]
) -> None:
    path = tmp_path / "f.bmp"
    path.write_bytes(as_bmp(np.full((4, 6), 7000, np.uint16), *masks))
    with pytest.raises(FrameError, match="BMP of 16 bits a pixel, counts or colors"):
        read_frame(path)


def test_python_objects_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "f.npy"
    np.save(path, np.array([np.zeros(4), np.zeros(3)], dtype=object), allow_pickle=True)
    with pytest.raises(
        FrameError, match=r"holds Python objects.*save one \(H, W\) array"
    ) as caught:
        read_frame(path)
    assert "damaged" not in str(caught.value)


def test_counts_of_a_dji_drone_are_named_not_passed_over(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG")
    picture = buffer.getvalue()
    counts = b"\xff\xe3" + struct.pack(">H", 40002) + bytes(40000)
    maker = b"\xff\xe1" + struct.pack(">H", 20) + b"Exif\0\0MM\0*DJI\0" + bytes(4)
    (tmp_path / "f.jpg").write_bytes(picture[:2] + maker + counts + picture[2:])
    with pytest.raises(FrameError, match=r"radiometric JPEG of DJI.*Thermal SDK"):
        read_frame(tmp_path / "f.jpg")
    (tmp_path / "f.jpg").write_bytes(picture[:2] + maker + picture[2:])  # of its other camera
    assert read_frame(tmp_path / "f.jpg").shape == (8, 8)


@pytest.mark.parametrize("kind", ["png", "interlaced", "bits", "tif", "bmp"])
def test_numbers_that_a_palette_shows_in_one_color_are_not_lost(tmp_path: Path, kind: str) -> None:
    numbers = np.zeros((8, 8), np.uint8)
    numbers[2:4, 2:4], numbers[5:7, 5:7] = 1, 2

    def save(numbers: NDArray[np.uint8], palette: list[int]) -> Path:
        path = tmp_path / f"m.{kind if kind in ('tif', 'bmp') else 'png'}"
        image = Image.fromarray(numbers).convert("P")
        image.putdata(numbers.ravel().tolist())
        image.putpalette(palette)
        options: dict[str, Any] = {"bits": 2} if kind == "bits" else {}
        image.save(path, **options)
        if kind == "interlaced":
            path.write_bytes(interlace(path.read_bytes(), numbers))
        return path

    for color in (0, 90):
        with pytest.raises(FrameError, match=r"m\.\w+ has a palette that shows all .* in one"):
            read_frame(save(numbers, [color] * 768))
        assert (read_frame(save(numbers * 0, [color] * 768)) == color).all()
    shown = read_frame(save(numbers, [*[0] * 6, *[255] * 3]))
    np.testing.assert_array_equal(shown > 0, numbers == 2)


def interlace(png: bytes, numbers: NDArray[np.uint8]) -> bytes:
    """The same PNG of 8 bits in Adam7's passes."""
    starts = (0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0)
    steps = (8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1)
    passes = (
        numbers[top::down, left::right]
        for (top, left), (down, right) in zip(starts, steps, strict=True)
    )
    lines = b"".join(b"\0" + line.tobytes() for part in passes for line in part)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    palette = png[png.index(b"PLTE") - 4 : png.index(b"IDAT") - 4]
    header = chunk(b"IHDR", png[16:24] + bytes([8, 3, 0, 0, 1]))
    return png[:8] + header + palette + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
