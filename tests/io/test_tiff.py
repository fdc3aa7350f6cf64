"""Where a TIFF keeps its frames: pages, and images that belong to a page."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import FrameError
from pinglow.io.frames import count_pages, read_frame

FRAME = np.random.default_rng(1).integers(6000, 8000, (48, 64), dtype=np.uint16)
THUMBNAIL = (FRAME[::4, ::4] >> 6).astype(np.uint8)
REDUCED, MASK = 1, 4


def tiff(*images: tuple[NDArray[Any], int, int], **options: Any) -> bytes:
    """Images with their NewSubfileType, and how many of those that follow belong to each."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as writer:
        for image, kind, inner in images:
            color = "rgb" if image.ndim == 3 else "minisblack"
            writer.write(image, photometric=color, subfiletype=kind, subifds=inner, metadata=None)
    return buffer.getvalue()


def check(path: Path, content: bytes, *frames: NDArray[Any]) -> None:
    path.write_bytes(content)
    assert count_pages(path) == len(frames)
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(read_frame(path, page=number), frame)


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}])
def test_a_camera_keeps_its_frame_below_a_thumbnail(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "f.dng"
    colored = np.stack([THUMBNAIL] * 3, axis=-1)
    preview = (FRAME >> 6).astype(np.uint8)
    frame, mask = (FRAME, 0, 0), (FRAME > 7000, MASK, 0)
    for first in ((colored, REDUCED, 3), (THUMBNAIL, REDUCED, 3), (THUMBNAIL, 0, 3)):
        for inner in ((frame, (preview, REDUCED, 0), mask), ((preview, REDUCED, 0), mask, frame)):
            check(path, tiff(first, *inner, **options), FRAME)


def link(content: bytes, *below: int) -> bytes:
    """A TIFF of pages in which each belongs to the one before, the last to what is given."""
    changed = bytearray(content)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        pages: Any = list(file.pages)
        for page, inner in zip(pages, [*[page.offset for page in pages[1:]], *below], strict=False):
            tag = page.tags[270]  # the description, which has room for it
            struct.pack_into("<HHII", changed, tag.offset, 330, 13, 1, inner)
            place = page.offset + 2 + 12 * len(page.tags)  # of the next page
            changed[place : place + 4] = bytes(4)
    return bytes(changed)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("circle", [False, True])
def test_the_main_image_lies_at_any_depth(tmp_path: Path, depth: int, circle: bool) -> None:
    images: list[NDArray[Any]] = [
        THUMBNAIL,
        THUMBNAIL[::2, ::2],
        (FRAME >> 6).astype(np.uint8)[::2, ::2],
        THUMBNAIL,
    ]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for image in (*images[:depth], FRAME):
            writer.write(image, photometric="minisblack", description="below", metadata=None)
    content = buffer.getvalue()
    check(tmp_path / "f.dng", link(content, *([8] if circle else [])), FRAME)


def test_smaller_copies_that_belong_to_a_page_are_no_frames(tmp_path: Path) -> None:
    for kind in (0, REDUCED):  # some writers do not mark them
        pages = [(FRAME, 0, 1), (FRAME[::2, ::2], kind, 0)]
        pages += [(FRAME + 1, 0, 1), (FRAME[::2, ::2], kind, 0)]
        check(tmp_path / "f.tif", tiff(*pages), FRAME, FRAME + 1)


def test_a_lost_frame_is_not_replaced_by_its_thumbnail(tmp_path: Path) -> None:
    content = tiff((THUMBNAIL, REDUCED, 1), (FRAME, 0, 0))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page: Any = file.pages[0]
        place = page.subifds[0]
    (tmp_path / "f.dng").write_bytes(content[:place] + b"\xff" * 40 + content[place + 40 :])
    with pytest.raises(FrameError, match="damaged"):
        read_frame(tmp_path / "f.dng")


def test_linear_counts_of_a_dng(tmp_path: Path) -> None:
    content = bytearray(tiff((FRAME, 0, 0)))
    place = content.index(struct.pack("<HHI", 262, 3, 1)) + 8
    content[place : place + 2] = struct.pack("<H", 34892)
    check(tmp_path / "f.dng", bytes(content), FRAME)
    content[place : place + 2] = struct.pack("<H", 32803)  # colors under a filter
    (tmp_path / "f.dng").write_bytes(content)
    with pytest.raises(FrameError, match="unusual color space"):
        read_frame(tmp_path / "f.dng")


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_counts(tmp_path: Path, bits: int) -> None:
    counts = FRAME >> (14 - bits)
    packed = "".join(f"{count:0{bits}b}" for count in counts.ravel())
    stored = int(packed, 2).to_bytes(len(packed) // 8, "big")
    fields = {256: 64, 257: 48, 258: bits, 259: 1, 262: 1, 273: 200, 277: 1, 278: 48}
    fields[279] = len(stored)
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    header = struct.pack("<2sHIH", b"II", 42, 8, len(fields)) + tags + bytes(4)
    check(tmp_path / "f.tif", header.ljust(200, b"\0") + stored, counts)


@pytest.mark.parametrize("counts_first", [True, False])
def test_counts_go_before_their_picture(tmp_path: Path, counts_first: bool) -> None:
    picture = np.stack([(FRAME >> 6).astype(np.uint8)] * 3, axis=-1)
    images = (FRAME, picture) if counts_first else (picture, FRAME)
    check(tmp_path / "f.tif", tiff((images[0], 0, 1), (images[1], 0, 0)), FRAME)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_luma_that_is_stored_is_taken(tmp_path: Path, compression: str | None) -> None:
    colors = np.random.default_rng(2).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    colors = np.asarray(Image.fromarray(colors).convert("YCbCr"))
    image = Image.fromarray(colors, "YCbCr")
    image.save(tmp_path / "f.tif", compression=compression)
    np.testing.assert_array_equal(read_frame(tmp_path / "f.tif"), colors[..., 0])


def test_a_second_plane_that_is_no_alpha_is_not_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    frame = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    tifffile.imwrite(path, np.stack([frame, frame + 1]), planarconfig="separate")
    with pytest.raises(FrameError, match="2 planes that may be frames"):
        read_frame(path)
    gray_alpha = np.stack([frame, frame % 2], axis=-1)
    tifffile.imwrite(path, gray_alpha, photometric="minisblack", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_frame(path), frame)
