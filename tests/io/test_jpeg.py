"""What a JPEG's header claims against what it holds, and JPEG of more than 8 bits."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin

from pinglow.errors import FrameError
from pinglow.io.frames import read_frame

RNG = np.random.default_rng(6)
GRAY = np.clip(RNG.normal(100, 12, (96, 128)), 0, 255).astype(np.uint8)
DEEP = RNG.integers(0, 2**12, (96, 128), dtype=np.uint16)
COLOR = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], axis=-1)
WAYS: list[dict[str, Any]] = [
    {"quality": 90},
    {"quality": 40, "optimize": True},
    {"quality": 90, "progressive": True},
    {"quality": 90, "restart_marker_rows": 1},
    {"quality": 90, "restart_marker_blocks": 3},
]


def jpeg(image: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def claim(content: bytes, height: float, width: float) -> bytes:
    """The same with another size in its frame header, as parts of the true one."""
    changed = bytearray(content)
    place = next(p for m in (0xC0, 0xC1, 0xC2, 0xC3) if (p := content.find(bytes([255, m]))) > 0)
    true = struct.unpack_from(">HH", content, place + 5)
    sides = (round(true[0] * height), round(true[1] * width))
    struct.pack_into(">HH", changed, place + 5, *sides)
    return bytes(changed)


def read(folder: Path, content: bytes) -> NDArray[Any]:
    (folder / "f.jpg").write_bytes(content)
    return read_frame(folder / "f.jpg")


@pytest.mark.parametrize("image", [GRAY, COLOR], ids=["gray", "color"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way))
def test_a_header_that_lies_is_refused(
    tmp_path: Path, image: NDArray[Any], way: dict[str, Any]
) -> None:
    whole = jpeg(image, **way)
    assert read(tmp_path, whole).shape == GRAY.shape
    for sides in ((2, 1), (1.25, 1), (1, 2), (0.5, 1), (0.75, 1), (1, 0.5), (2, 2)):
        with pytest.raises(FrameError, match=r"f\.jpg is damaged .*its header claims .* stored"):
            read(tmp_path, claim(whole, *sides))


@pytest.mark.parametrize("image", [GRAY, COLOR], ids=["gray", "color"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_lost_part_between_restart_markers_is_refused(
    tmp_path: Path, image: NDArray[Any], progressive: bool
) -> None:
    whole = jpeg(image, quality=90, restart_marker_rows=1, progressive=progressive)
    assert read(tmp_path, whole).shape == GRAY.shape
    # In the data itself 0 follows each 255; of these markers each scan has its own.
    first, second, third = (whole.index(bytes([0xFF, 0xD0 + number])) for number in range(3))
    swapped = whole[:first] + whole[second:third] + whole[first:second] + whole[third:]
    twice = whole[:second] + whole[first:]
    for changed in (whole[:first] + whole[second:], whole[:second] + whole[third:], swapped, twice):
        with pytest.raises(
            FrameError, match=r"f\.jpg is damaged .*restart markers do not count on"
        ):
            read(tmp_path, changed)


def test_a_small_file_that_claims_much_is_refused_at_once(tmp_path: Path) -> None:
    flat = jpeg(np.full((32, 40), 90, np.uint8))
    with pytest.raises(FrameError, match="claims 16384 x 16384, fewer are stored"):
        read(tmp_path, claim(flat, 512, 409.6))
    with pytest.raises(FrameError, match="fewer are stored"):
        read(tmp_path, claim(flat, 2, 1))


def test_whole_files_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every content that might look made up at its end."""
    monkeypatch.setattr(ImageFile, "MAXBLOCK", 2**20)  # Pillow's progressive buffer is small
    ramp = np.tile(np.arange(128, dtype=np.uint8), (33, 1))
    half = np.where(np.arange(96)[:, None] < 48, GRAY, np.uint8(0))
    contents = [np.full((s, s + 9), v, np.uint8) for s, v in ((1, 0), (17, 128), (96, 255))]
    for content in [*contents, ramp, half, GRAY[:41, :77], COLOR[:50, :31]]:
        for way in WAYS:
            whole = jpeg(content, **way)
            expected = np.asarray(Image.open(io.BytesIO(whole)).convert("L"))
            np.testing.assert_array_equal(read(tmp_path, whole), expected)


def test_a_frame_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    load = JpegImagePlugin.JpegImageFile.load

    def note(image: Any) -> Any:
        decoded.append(image)
        return load(image)

    whole = jpeg(np.tile(GRAY, (6, 6)), quality=95)
    assert len(whole) > 2**17  # Pillow reads it in blocks
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", note)
    read(tmp_path, whole)
    assert len(set(map(id, decoded))) == 1
    with pytest.raises(FrameError, match="more are stored"):
        read(tmp_path, claim(whole, 0.5, 1))


@pytest.mark.parametrize("fill", [b"\xff", b"\0"])
def test_a_scan_may_be_filled_up(tmp_path: Path, fill: bytes) -> None:
    whole = jpeg(GRAY)
    filled = whole[:-2] + fill * 900 + whole[-2:]
    np.testing.assert_array_equal(read(tmp_path, filled), read(tmp_path, whole))


def test_12_bits(tmp_path: Path) -> None:
    smooth = (np.add.outer(np.arange(96), np.arange(128)) * 18).astype(np.uint16)
    whole = imagecodecs.jpeg8_encode(smooth, level=98, bitspersample=12)
    frame = read(tmp_path, whole)
    assert frame.dtype == np.uint16
    assert np.abs(frame.astype(int) - smooth).max() <= 8
    for sides in ((2, 1), (0.5, 1)):
        with pytest.raises(FrameError, match="stored"):
            read(tmp_path, claim(whole, *sides))


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_lossless(tmp_path: Path, bits: int) -> None:
    counts = DEEP << (bits - 12)
    whole = imagecodecs.ljpeg_encode(counts, bitspersample=bits)
    np.testing.assert_array_equal(read(tmp_path, whole), counts)
    for wrong in (claim(whole, 2, 1), claim(whole, 0.5, 1), claim(whole, 1, 0.5), whole[:-2000]):
        with pytest.raises(FrameError, match="damaged"):
            read(tmp_path, wrong)


def test_jpeg_ls(tmp_path: Path) -> None:
    whole = imagecodecs.jpegls_encode(DEEP)
    np.testing.assert_array_equal(read(tmp_path, whole), DEEP)
    with pytest.raises(FrameError, match="damaged"):
        read(tmp_path, whole[:-2000] + whole[-2:])
    for size in (60, 90, 130, len(whole) - 2):
        with pytest.raises(FrameError, match=r"damaged .*its end is missing|no image header"):
            read(tmp_path, whole[:size])


def test_an_unusual_kind_is_no_damage(tmp_path: Path) -> None:
    differential = jpeg(GRAY).replace(b"\xff\xc0", b"\xff\xc5", 1)
    with pytest.raises(FrameError, match="JPEG of an unusual kind: convert it") as caught:
        read(tmp_path, differential)
    assert "damaged" not in str(caught.value)
