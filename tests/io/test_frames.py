from __future__ import annotations

import glob
import io
import logging
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from pinglow import terminal
from pinglow.errors import DataError, FrameError
from pinglow.io.frames import (
    count_pages,
    find_frames,
    open_frames,
    read_frame,
    read_only_frame,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)
RNG = np.random.default_rng(7)
GRAY8 = RNG.integers(0, 256, (23, 37), dtype=np.uint8)
GRAY16 = RNG.integers(0, 65536, (23, 37), dtype=np.uint16)


def as_png(counts: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.png_encode(counts))


def as_pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_tiff(counts: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, counts, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def as_npy(counts: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, counts)
    return buffer.getvalue()


def as_pgm(counts: NDArray[Any], top: int, *, plain: bool = False) -> bytes:
    height, width = counts.shape
    head = f"P{2 if plain else 5}\n# a comment\n{width} {height}\n{top}\n".encode()
    if plain:
        return head + b"\n".join(b" ".join(b"%d" % n for n in row) for row in counts.tolist())
    return head + counts.astype(">u2" if top > 255 else "u1").tobytes()


def read_bytes(folder: Path, data: bytes, name: str = "frame.bin", **options: Any) -> NDArray[Any]:
    path = folder / name
    path.write_bytes(data)
    return read_frame(path, **options)


def check(folder: Path, data: bytes, expected: NDArray[Any], **options: Any) -> None:
    frame = read_bytes(folder, data, **options)
    assert frame.dtype == expected.dtype
    assert frame.dtype.isnative
    assert frame.flags.c_contiguous
    np.testing.assert_array_equal(frame, expected)


# --- counts survive ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_integer_counts_survive_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, data: st.DataObject
) -> None:
    counts = data.draw(hnp.arrays(dtype, SHAPES))
    folder = tmp_path_factory.getbasetemp()
    top = int(np.iinfo(dtype).max)
    wide = counts.astype(f">{dtype}")
    for encoded in (
        as_png(counts),
        as_tiff(counts),
        as_tiff(counts, byteorder=">"),
        as_tiff(counts, bigtiff=True, compression="zlib", predictor=True),
        as_tiff(counts, compression="lzw", rowsperstrip=3),
        as_tiff(counts, tile=(16, 16), compression="zstd"),
        as_npy(counts),
        as_npy(wide),
        as_npy(np.asfortranarray(counts)),
        as_pgm(counts, top),
        as_pgm(counts, top, plain=True),
    ):
        check(folder, encoded, counts)


def test_a_single_channel_axis_of_an_array_is_dropped(tmp_path: Path) -> None:
    check(tmp_path, as_npy(GRAY16[..., None]), GRAY16)
    check(tmp_path, as_npy(GRAY16[None]), GRAY16)


@settings(max_examples=25, deadline=None)
@given(counts=hnp.arrays("f4", SHAPES))  # NaN, inf and subnormals included
def test_float_counts_survive(
    tmp_path_factory: pytest.TempPathFactory, counts: NDArray[Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    check(folder, as_npy(counts), counts)
    check(folder, as_tiff(counts), counts)
    check(folder, as_tiff(counts, byteorder=">", compression="zlib"), counts)


@settings(max_examples=40, deadline=None)
@given(counts=hnp.arrays(st.sampled_from(["i1", "i2", ">i2", "i4", "u4", "i8"]), SHAPES))
def test_other_integers_widen_to_the_nearest_value(
    tmp_path_factory: pytest.TempPathFactory, counts: NDArray[Any]
) -> None:
    frame = read_bytes(tmp_path_factory.getbasetemp(), as_npy(counts))
    exact = counts.astype(np.float64)
    if exact.min() >= 0 and exact.max() <= 65535:
        assert frame.dtype == np.uint16
        np.testing.assert_array_equal(frame, exact)
    else:
        assert frame.dtype == np.float32
        np.testing.assert_allclose(frame, exact, rtol=2**-24)
        small = np.abs(exact) <= 2**24
        np.testing.assert_array_equal(frame[small], exact[small])


def test_signed_thermal_tiff_keeps_counts_below_zero(tmp_path: Path) -> None:
    counts = np.array([[-32768, -1], [0, 32767]], dtype=np.int16)
    check(tmp_path, as_tiff(counts), counts.astype(np.float32))


def test_doubles_become_singles_and_overflow_to_inf(tmp_path: Path) -> None:
    counts = np.array([[1.5, -2.0], [1e300, np.nan]])
    expected = np.array([[1.5, -2.0], [np.inf, np.nan]], dtype=np.float32)
    check(tmp_path, as_npy(counts), expected)


@pytest.mark.parametrize("top", [4095, 16383])
def test_pgm_counts_are_not_stretched_to_the_full_range(tmp_path: Path, top: int) -> None:
    counts = (GRAY16 % (top + 1)).astype(np.uint16)
    check(tmp_path, as_pgm(counts, top), counts)


def test_a_14_bit_gradient_keeps_all_its_levels(tmp_path: Path) -> None:
    levels = np.arange(2**14, dtype=np.uint16).reshape(128, 128)
    for encoded in (as_png(levels), as_tiff(levels), as_npy(levels), as_pgm(levels, 2**14 - 1)):
        assert len(np.unique(read_bytes(tmp_path, encoded))) == 2**14


# --- modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gray", [GRAY8, GRAY16], ids=["8-bit", "16-bit"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4], ids=["L", "LA", "RGB", "RGBA"])
def test_equal_channels_collapse_exactly_and_alpha_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gray: NDArray[Any], channels: int
) -> None:
    alpha = np.flip(gray)
    planes = {1: [gray], 2: [gray, alpha], 3: [gray] * 3, 4: [gray, gray, gray, alpha]}[channels]
    stack = np.squeeze(np.stack(planes, axis=-1))
    check(tmp_path, as_png(stack), gray)
    photometric = "rgb" if channels > 2 else "minisblack"
    extra = {2: [2], 4: [2]}.get(channels)
    if channels > 1:
        for planar in ("contig", "separate"):
            data = np.moveaxis(stack, -1, 0) if planar == "separate" else stack
            encoded = as_tiff(
                data, photometric=photometric, planarconfig=planar, extrasamples=extra
            )
            check(tmp_path, encoded, gray)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_pillow_modes(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(GRAY8)
    modes = ["L", "P", "RGB"] + (["RGBA", "LA"] if kind != "BMP" else [])
    for mode in modes:
        check(tmp_path, as_pillow(image.convert(mode), kind), GRAY8)
    bilevel = np.where(GRAY8 > 99, np.uint8(255), np.uint8(0))
    check(tmp_path, as_pillow(Image.fromarray(GRAY8 > 99), kind), bilevel)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_shuffled_gray_palette_gives_the_grays_not_the_indices(tmp_path: Path, kind: str) -> None:
    grays = RNG.permutation(256).astype(np.uint8)
    image = Image.fromarray(GRAY8)
    image.putpalette(np.repeat(grays, 3).tobytes())
    check(tmp_path, as_pillow(image, kind), grays[GRAY8])


def test_a_16_bit_palette_keeps_16_bits(tmp_path: Path) -> None:
    grays = RNG.permutation(65536)[:256].astype(np.uint16)
    encoded = as_tiff(GRAY8, photometric="palette", colormap=np.stack([grays] * 3))
    check(tmp_path, encoded, grays[GRAY8])


@pytest.mark.parametrize("gray", [GRAY8, GRAY16, GRAY8 > 99], ids=["8", "16", "1"])
def test_white_is_zero_tiffs_are_turned_over(tmp_path: Path, gray: NDArray[Any]) -> None:
    top = True if gray.dtype == bool else np.iinfo(gray.dtype).max
    encoded = as_tiff(gray, photometric="miniswhite", software="a scanner")
    expected = gray ^ top
    check(tmp_path, encoded, expected * np.uint8(255) if gray.dtype == bool else expected)


def test_true_and_false_of_tifffile_are_as_meant(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY8 > 99)  # "white is zero", unless told otherwise
    check(tmp_path, (tmp_path / "a.tif").read_bytes(), (GRAY8 > 99) * np.uint8(255))


def test_packed_12_bit_tiff(tmp_path: Path) -> None:
    counts = GRAY16[:, :36] % 4096
    encoded = as_tiff(counts, bitspersample=12)
    assert len(encoded) < counts.nbytes  # two counts in three bytes
    check(tmp_path, encoded, counts)


def test_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    encoded = as_pillow(Image.fromarray(smooth), "JPEG", quality=95)
    check(tmp_path, encoded, np.asarray(Image.open(io.BytesIO(encoded))))
    gray_in_color = as_pillow(Image.fromarray(smooth).convert("RGB"), "JPEG", quality=95)
    frame = read_bytes(tmp_path, gray_in_color)
    assert np.abs(frame.astype(int) - smooth).max() <= 3


def test_color_becomes_luminance_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    terminal._said.clear()
    color = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    luminance = np.asarray(Image.fromarray(color).convert("L"))
    with caplog.at_level(logging.WARNING, logger="pinglow"):
        for encoded in (as_png(color), as_tiff(color, photometric="rgb")):
            check(tmp_path, encoded, luminance)
    assert [record.name for record in caplog.records] == ["pinglow"]
    # 16-bit color by the same weights (ITU-R BT.601), with all its levels.
    deep = RNG.integers(0, 65536, (40, 50, 3), dtype=np.uint16)
    deep[0, 0] = 65535
    frame = read_bytes(tmp_path, as_png(deep))
    np.testing.assert_allclose(frame, deep @ [0.299, 0.587, 0.114], atol=1.5)
    assert frame[0, 0] == 65535


# --- pages ---------------------------------------------------------------------------------------


def test_every_page_of_a_tiff(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    stack = RNG.integers(0, 16384, (5, 9, 11), dtype=np.uint16)
    with tifffile.TiffWriter(path) as writer:
        for page in stack:
            writer.write(page, contiguous=False)
    assert count_pages(path) == 5
    for number, page in enumerate(stack):
        np.testing.assert_array_equal(read_frame(path, page=number), page)
    for number in (-1, 5):
        with pytest.raises(FrameError, match=r"stack\.tif has no page -?\d: choose 0 to 4"):
            read_frame(path, page=number)


@pytest.mark.parametrize("kinds", [[0, 1, 1], [0, 4, 0, 1], [1, 0, 0], [0, 0, 1, 1], [1, 1]])
def test_smaller_copies_and_masks_are_no_frames(tmp_path: Path, kinds: list[int]) -> None:
    path = tmp_path / "overviews.tif"
    pages = RNG.integers(0, 16384, (len(kinds), 9, 11), dtype=np.uint16)
    with tifffile.TiffWriter(path) as writer:
        for page, kind in zip(pages, kinds, strict=True):
            content = page > 8000 if kind == 4 else page  # a mask has one bit a pixel
            writer.write(content, subfiletype=kind, photometric="minisblack", contiguous=False)
    frames = [page for page, kind in zip(pages, kinds, strict=True) if kind == 0]
    frames = frames or list(pages)  # a file of thumbnails alone
    assert count_pages(path) == len(frames)
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(read_frame(path, page=number), frame)
    with pytest.raises(FrameError, match=f"choose 0 to {len(frames) - 1}"):
        read_frame(path, page=len(frames))


@pytest.mark.parametrize("marked", [0, 1])
def test_a_page_whose_header_is_lost_costs_no_other(tmp_path: Path, marked: int) -> None:
    path = tmp_path / "stack.tif"
    pages = RNG.integers(0, 16384, (4, 9, 11), dtype=np.uint16)
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(pages):
            writer.write(page, subfiletype=marked * (number == 3), contiguous=False)
    with tifffile.TiffFile(path) as tiff:
        second: Any = tiff.pages[1]
        place = second.offset
    content = path.read_bytes()
    path.write_bytes(content[: place + 20])
    assert count_pages(path) >= 1
    np.testing.assert_array_equal(read_frame(path), pages[0])
    with pytest.raises(FrameError, match=r"stack\.tif is damaged"):
        read_frame(path, page=1)
    with pytest.raises(FrameError, match=r"stack\.tif is damaged"):
        read_only_frame(path)
    broken = bytearray(content)
    broken[place + 4 : place + 12] = b"\xff" * 8  # the type, count and value of its first tag
    path.write_bytes(broken)
    for number in (0, 2):
        np.testing.assert_array_equal(read_frame(path, page=number), pages[number])


@pytest.mark.parametrize("name", ["stack.tif", "imagej.tif"])
def test_a_stack_written_in_one_go_has_all_its_pages(tmp_path: Path, name: str) -> None:
    stack = RNG.integers(0, 16384, (4, 9, 11), dtype=np.uint16)
    tifffile.imwrite(tmp_path / name, stack, imagej=name == "imagej.tif", photometric="minisblack")
    assert count_pages(tmp_path / name) == 4
    for number, page in enumerate(stack):
        np.testing.assert_array_equal(read_frame(tmp_path / name, page=number), page)


@pytest.mark.parametrize("frames", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_stack_saved_as_color_planes_is_refused(tmp_path: Path, frames: int, dtype: str) -> None:
    stack = RNG.integers(0, 256, (frames, 23, 37)).astype(dtype)
    for photometric, planar in (("rgb", "separate"), ("minisblack", "contig")):
        order = stack if planar == "separate" else np.moveaxis(stack, 0, -1)
        encoded = as_tiff(order, photometric=photometric, planarconfig=planar)
        with pytest.raises(FrameError, match=rf"frame\.bin holds {frames} planes"):
            read_bytes(tmp_path, encoded)
    still = np.repeat(stack[:1], frames, 0)
    encoded = as_tiff(still, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_bytes(tmp_path, encoded), stack[0])


@pytest.mark.parametrize("options", [{"imagej": True}, {}])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_stack_with_a_header_for_its_first_frame_alone(
    tmp_path: Path, options: dict[str, Any], dtype: str
) -> None:
    stack = RNG.integers(0, 65536, (5, 23, 37)).astype(dtype)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, truncate=True, photometric="minisblack", **options)
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
    assert count_pages(path) == 5
    for page in range(5):
        np.testing.assert_array_equal(read_frame(path, page=page), stack[page])
    with pytest.raises(FrameError, match="no page 5: choose 0 to 4"):
        read_frame(path, page=5)
    path.write_bytes(path.read_bytes()[: -23 * 37 * 5])  # more than a frame is gone
    assert 2 <= count_pages(path) <= 4
    np.testing.assert_array_equal(read_frame(path, page=0), stack[0])
    with pytest.raises(FrameError, match="cut short"):
        read_frame(path, page=count_pages(path) - 1)
    path.write_bytes(path.read_bytes()[: -(count_pages(path) - 2) * stack[0].nbytes])
    assert count_pages(path) == 2  # of the second frame a part is left
    with pytest.raises(FrameError, match="cut short after page 0"):
        read_frame(path, page=1)


@pytest.mark.parametrize("options", [{"imagej": True}, {}])
def test_a_frame_that_kept_the_description_of_its_stack_is_one(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "stack.tif"
    stack = RNG.integers(0, 65536, (5, 23, 37), dtype=np.uint16)
    tifffile.imwrite(path, stack, photometric="minisblack", **options)
    with tifffile.TiffFile(path) as tiff:
        description = tiff.pages.first.description
    for frame in (stack[2], stack[2, :9, :11]):
        encoded = as_tiff(frame, description=description, metadata=None)
        check(tmp_path, encoded, frame)
        assert count_pages(tmp_path / "frame.bin") == 1


def test_a_file_is_opened_once_for_all_its_pages(tmp_path: Path) -> None:
    stack = RNG.integers(0, 65536, (6, 23, 37), dtype=np.uint16)
    path = tmp_path / "stack.tif"
    path.write_bytes(as_tiff(stack))
    with open_frames(path) as read:
        path.unlink()
        for page in (5, 0, 3):
            np.testing.assert_array_equal(read(page), stack[page])
        with pytest.raises(FrameError, match="no page 6"):
            read(6)
        np.testing.assert_array_equal(read(1), stack[1])


def test_several_frames_in_a_file_of_one_are_refused(tmp_path: Path) -> None:
    one = as_pgm(GRAY16, 65535)
    np.testing.assert_array_equal(read_bytes(tmp_path, one + b"\n"), GRAY16)
    with pytest.raises(FrameError, match=r"frame\.bin holds several frames"):
        read_bytes(tmp_path, one + one)
    pictures = [Image.fromarray(GRAY8), Image.fromarray(GRAY8[::-1].copy())]
    animation = as_pillow(pictures[0], "PNG", save_all=True, append_images=pictures[1:])
    with pytest.raises(FrameError, match=r"frame\.bin is an animation"):
        read_bytes(tmp_path, animation)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint16", "7"),
        ("float32", "-9999"),
        ("float32", "-3.4028234663852886e+38"),
        ("int16", "-5"),
    ],
)
def test_pixels_of_the_no_data_value_are_no_numbers(
    tmp_path: Path, dtype: str, nodata: str
) -> None:
    counts = (GRAY8 + np.float64(300)).astype(dtype)
    counts[2, 3:6] = np.array(float(nodata)).astype(dtype)
    tag = (42113, "s", 0, nodata, True)
    frame = read_bytes(tmp_path, as_tiff(counts, extratags=[tag]))
    assert frame.dtype == np.float32
    assert np.argwhere(np.isnan(frame)).tolist() == [[2, 3], [2, 4], [2, 5]]
    keeps = ~np.isnan(frame)
    np.testing.assert_array_equal(frame[keeps], counts[keeps])
    unused = (42113, "s", 0, "-77", True)  # no pixel has it: the counts stay as they are
    check(tmp_path, as_tiff(GRAY16, extratags=[unused]), GRAY16)


def test_a_tiff_that_does_not_say_what_is_white_is_black_is_zero(tmp_path: Path) -> None:
    encoded = bytearray(as_tiff(GRAY8))
    place = encoded.index(struct.pack("<HHI", 262, 3, 1))
    encoded[place : place + 2] = struct.pack("<H", 261)  # some other tag
    check(tmp_path, bytes(encoded), GRAY8)


def test_other_kinds_have_one_page(tmp_path: Path) -> None:
    for encoded in (as_png(GRAY8), as_npy(GRAY8), as_pgm(GRAY8, 255)):
        (tmp_path / "frame").write_bytes(encoded)
        assert count_pages(tmp_path / "frame") == 1
        with pytest.raises(FrameError, match="no page 1"):
            read_frame(tmp_path / "frame", page=1)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"just some text\n", "is not a frame that pinglow reads: .*; predict --raw reads"),
        (b"PK\x03\x04 a zip", "damaged or cut short"),
        (as_npy(np.zeros((2, 3, 4))), r"shape \(2, 3, 4\)"),
        (as_npy(np.zeros(7)), r"shape \(7,\)"),
        (as_npy(np.zeros((0, 4))), "has no pixels"),
        (as_npy(np.zeros((2, 2), dtype=complex)), "complex128 values"),
        (as_npy(np.zeros((2, 2), dtype="S3")), "values: save integers or floats"),
        (as_tiff(np.zeros((4, 5, 6), np.uint8), volumetric=True, tile=(16, 16, 16)), "volume"),
        (as_tiff(np.zeros((8, 8, 7), np.uint8), planarconfig="contig"), "7 bands"),
        (b"P5\n3 3\n0\n123456789", "maxval is 0"),
        (b"P5\nx 3\n255\n123456789", "no PGM header"),
        (b"P2\n2 1\n9\n4 10\n", "above maxval"),
        (b"P2\n2 1\n9\n4 x\n", "damaged"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "wrong.png"
    path.write_bytes(content)
    with pytest.raises(FrameError, match=message) as caught:
        read_frame(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([[print, 1]], dtype=object), allow_pickle=True)
    with pytest.raises(FrameError, match=r"evil\.npy"):
        read_frame(tmp_path / "evil.npy")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for function in (read_frame, count_pages):
        with pytest.raises(FrameError, match=r"gone\.png does not exist"):
            function(tmp_path / "gone.png")
        with pytest.raises(FrameError, match="is a folder"):
            function(tmp_path)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(5000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def tiff_header(width: int, height: int, *, compression: str | None = None) -> bytes:
    data = bytearray(as_tiff(np.zeros((64, 64), np.uint16), compression=compression))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page: Any = tiff.pages[0]
        tags = [
            (page.tags[code], size) for code, size in ((256, width), (257, height), (278, height))
        ]
    for tag, size in tags:
        assert tag.count == 1
        # Rewrite the whole entry as one 32-bit number.
        data[tag.offset + 2 : tag.offset + 12] = struct.pack("<HII", 4, 1, size)
    return bytes(data)


def npy_header(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": "<u2", "fortran_order": False, "shape": (height, width)}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue() + bytes(500)


def bmp_header(width: int, height: int) -> bytes:
    data = bytearray(as_pillow(Image.fromarray(GRAY8), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def jpeg_header(width: int, height: int) -> bytes:
    data = bytearray(as_pillow(Image.fromarray(GRAY8), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_header(30000, 30000), "30000 x 30000 pixels"),
        (tiff_header(30000, 30000), "30000 x 30000 pixels"),
        (tiff_header(30000, 30000, compression="zlib"), "30000 x 30000 pixels"),
        (jpeg_header(30000, 30000), "30000 x 30000 pixels"),
        (bmp_header(30000, 30000), "30000 x 30000 pixels"),
        (npy_header(30000, 30000), "30000 x 30000 pixels"),
        (b"P5\n30000 30000\n255\n" + bytes(99), "30000 x 30000 pixels"),
        # Within the limit of pixels, yet far more than the file holds.
        (tiff_header(12000, 12000), "bytes of image data claimed"),
        (npy_header(12000, 12000), "damaged or cut short"),
        (b"P5\n12000 12000\n255\n" + bytes(99), "damaged or cut short"),
    ],
)
def test_header_bombs_are_refused_before_allocation(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match=message):
            read_frame(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_the_limit_is_an_argument(tmp_path: Path) -> None:
    (tmp_path / "frame.png").write_bytes(as_png(GRAY8))
    assert read_frame(tmp_path / "frame.png", max_pixels=GRAY8.size).size == GRAY8.size
    with pytest.raises(FrameError, match=f"limit of {GRAY8.size - 1}"):
        read_frame(tmp_path / "frame.png", max_pixels=GRAY8.size - 1)


SMOOTH = np.add.outer(np.arange(23), np.arange(37)).astype(np.uint8)
SAMPLES: dict[str, Callable[[], bytes]] = {
    "png8": lambda: as_png(GRAY8),
    "png16": lambda: as_png(GRAY16),
    "png-rgb16": lambda: as_png(np.stack([GRAY16] * 3, axis=-1)),
    "png-palette": lambda: as_pillow(Image.fromarray(GRAY8).convert("P"), "PNG"),
    "tiff": lambda: as_tiff(GRAY16),
    "tiff-lzw": lambda: as_tiff(GRAY16, compression="lzw", rowsperstrip=5),
    "tiff-zlib-tiles": lambda: as_tiff(GRAY16, compression="zlib", tile=(16, 16)),
    "tiff-float": lambda: as_tiff(GRAY16.astype(np.float32)),
    "tiff-palette": lambda: as_pillow(Image.fromarray(GRAY8).convert("P"), "TIFF"),
    "tiff-jpeg": lambda: as_tiff(SMOOTH, compression="jpeg", tile=(16, 16)),
    "npy": lambda: as_npy(GRAY16),
    "pgm": lambda: as_pgm(GRAY16, 65535),
    "pgm-plain": lambda: as_pgm(GRAY8, 255, plain=True),
    "bmp": lambda: as_pillow(Image.fromarray(GRAY8), "BMP"),
    "jpeg": lambda: as_pillow(Image.fromarray(SMOOTH), "JPEG"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_cut_short_is_refused_or_whole(tmp_path: Path, name: str) -> None:
    whole = SAMPLES[name]()
    expected = read_bytes(tmp_path, whole)
    cuts = {*range(0, 40, 3), *np.linspace(40, len(whole) - 1, 40, dtype=int).tolist()}
    refused = 0
    for cut in sorted(cuts):
        (tmp_path / "cut").write_bytes(whole[:cut])
        try:
            frame = read_frame(tmp_path / "cut")
        except FrameError:
            refused += 1
        else:  # only bytes after the last pixel are missing
            if name == "pgm-plain":  # the last number may lose a digit
                np.testing.assert_array_equal(frame.ravel()[:-1], expected.ravel()[:-1])
            else:
                np.testing.assert_array_equal(frame, expected)
    assert refused > 0.6 * len(cuts)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.filterwarnings("ignore")
def test_flipped_bits_never_raise_anything_else(tmp_path: Path, name: str) -> None:
    whole = SAMPLES[name]()
    random = np.random.default_rng(3)
    positions = [*range(0, min(120, len(whole)), 2), *random.integers(0, len(whole), 40)]
    for position in positions:
        broken = bytearray(whole)
        broken[position] ^= 1 << int(random.integers(8))
        (tmp_path / "broken").write_bytes(broken)
        try:
            frame = read_frame(tmp_path / "broken", max_pixels=2**20)
        except FrameError:
            continue
        assert frame.ndim == 2
        assert frame.dtype in (np.uint8, np.uint16, np.float32)


# --- finding frames ------------------------------------------------------------------------------


def test_find_frames_in_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("f10.png", "f2.PNG", "f1.tif", ".hidden.png", "notes.txt", "odd.raw"):
        (tmp_path / name).touch()
    (tmp_path / "inner.png").mkdir()
    (tmp_path / "inner.png" / "deep.bmp").touch()

    def names(*sources: str | Path) -> list[str]:
        return [path.name for path in find_frames(sources)]

    assert names(tmp_path) == ["f1.tif", "f2.PNG", "f10.png"]
    assert names(f"{tmp_path}/f1*") == ["f1.tif", "f10.png"]
    assert sorted(names(f"{tmp_path}/**/*")) == ["deep.bmp", "f1.tif", "f10.png", "f2.PNG"]
    assert names(tmp_path / "odd.raw") == ["odd.raw"]
    assert names(tmp_path / "f10.png", tmp_path) == ["f10.png", "f1.tif", "f2.PNG"]
    assert names(tmp_path, tmp_path / "inner.png" / ".." / "f2.PNG") == names(tmp_path)


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "f[1].png").touch()
    assert find_frames([tmp_path / "f[1].png"]) == [tmp_path / "f[1].png"]


def test_links_to_nothing_are_found_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(as_png(GRAY8))
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "c.png").symlink_to(tmp_path)  # a folder is no frame
    (tmp_path / "d.png").symlink_to(tmp_path / "d.png")
    found = find_frames([tmp_path])
    assert [path.name for path in found] == ["a.png", "b.png", "d.png"]
    for path in found[1:]:
        with pytest.raises(FrameError, match=path.name):
            read_frame(path)


def test_patterns_find_nothing_among_the_results(tmp_path: Path) -> None:
    for place in ("in", "out/overlays"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.png").write_bytes(as_png(GRAY8))
    everything = [f"{tmp_path}/**/*.png"]
    assert len(find_frames(everything)) == 2
    named = tmp_path / "out" / "overlays"
    assert find_frames(everything, results=[named]) == [tmp_path / "in" / "a.png"]
    assert find_frames([named], results=[named]) == [named / "a.png"]


def test_links_in_circles_are_gone_round_once(tmp_path: Path) -> None:
    for place in ("a", "a/sub", "b", ".hidden"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x.png").touch()
    (tmp_path / "a" / "here").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    every = [tmp_path / place / "x.png" for place in ("a", "a/sub", "b")]
    assert sorted(find_frames([f"{tmp_path}/**/*.png"])) == sorted(every)
    below = [*every[:2], tmp_path / "a/sub/up/b/x.png"]
    assert sorted(find_frames([f"{tmp_path}/a/**"])) == sorted(below)
    assert every[1] in find_frames([f"{tmp_path}/*/**/sub/**/x.*"])


def test_a_file_has_the_name_that_no_link_is_in(tmp_path: Path) -> None:
    (tmp_path / "set" / "seq2").mkdir(parents=True)
    (tmp_path / "set" / "seq2" / "x.png").touch()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "set" / "seq2")
    (tmp_path / "a").symlink_to(tmp_path / "set" / "seq2")
    for pattern in ("**/*.png", "*/**/x.png", "set/**/*"):
        assert find_frames([f"{tmp_path}/{pattern}"]) == [tmp_path / "set" / "seq2" / "x.png"]
    assert find_frames([f"{tmp_path}/a/**/*"]) == [tmp_path / "a" / "x.png"]


@pytest.mark.parametrize(
    "pattern", ["**/*.png", "a/**/x*", "*/**/deep/*.png", "**/deep/**/*.png", "a**/*.png", "**"]
)
def test_patterns_find_what_glob_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    for place in ("x.png", "a/x.png", "a/deep/x2.png", "ab/c/deep/er/x.png", ".git/x.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    monkeypatch.chdir(tmp_path)
    for prefix in ("", f"{tmp_path}/"):
        expected = glob.glob(prefix + pattern, recursive=True)
        found = find_frames([prefix + pattern])
        assert len(found) == len(set(found))
        assert set(found) == {Path(path) for path in expected if path.endswith(".png")}


def test_find_frames_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        find_frames([tmp_path / "gone.png"])
    for source, hint in ((tmp_path, True), (tmp_path / "*.png", False)):
        with pytest.raises(DataError, match="holds no frames") as raised:
            find_frames([source])
        assert ("subfolders are not searched" in str(raised.value)) is hint


def test_real_frames_read_as_pillow_reads_them(shared_data: Path) -> None:
    for path in find_frames([shared_data / "sirst" / "images"])[:5]:
        np.testing.assert_array_equal(read_frame(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("contiguous", [True, False])
def test_a_stack_that_is_cut_short_says_so(tmp_path: Path, share: float, contiguous: bool) -> None:
    path = tmp_path / "stack.tif"
    stack = RNG.integers(0, 16384, (10, 32, 32), dtype=np.uint16)
    if contiguous:
        tifffile.imwrite(path, stack, photometric="minisblack", metadata=None)
    else:
        with tifffile.TiffWriter(path) as writer:
            for page in stack:
                writer.write(page, contiguous=False)
    assert count_pages(path) == 10
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    count = count_pages(path)
    lost = []
    for page in range(count):
        try:
            assert np.array_equal(read_frame(path, page=page), stack[page])
        except FrameError as error:
            lost.append(str(error))
    assert lost
    assert "cut short" in lost[-1]
    assert len(lost) < count


def test_a_pgm_may_have_comments_among_its_counts(tmp_path: Path) -> None:
    path = tmp_path / "frame.pgm"
    path.write_bytes(b"P2\n2 2\n255\n1 2 # first row\n3 4\n")
    assert read_frame(path).tolist() == [[1, 2], [3, 4]]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "frame.png")
    with pytest.raises(FrameError, match=r"frame\.png is a pipe or a device"):
        read_frame(tmp_path / "frame.png")
