"""Files taken apart and made again, byte for byte, against a PNG writer that follows the text."""

from __future__ import annotations

import io
import struct
import zlib
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

from pinglow.data.pack.coding import Encoded, StoredFile, decode_file, encode_file
from pinglow.data.pack.png import DamageError, PngStream, make_idat, split_png

Array = NDArray[Any]
LAYOUTS = {"gray": (0, ()), "gray-alpha": (4, (2,)), "rgb": (2, (3,)), "rgba": (6, (4,))}


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def filter_row(kind: int, row: bytes, above: bytes, step: int) -> bytes:
    """One row, byte for byte as the PNG specification has it."""
    out = bytearray([kind])
    for x, value in enumerate(row):
        a = row[x - step] if x >= step else 0
        b = above[x]
        c = above[x - step] if x >= step else 0
        p = a + b - c
        nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        out.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
    return bytes(out)


def write_png(
    pixels: Array,
    *,
    color: int = 0,
    depth: int | None = None,
    filters: list[int] | None = None,
    level: int = 6,
    memory: int = 8,
    strategy: int = 0,
    window: int = 15,
    chunk_size: int = 8192,
    before: bytes = b"",
    after: bytes = b"",
    width: int | None = None,
) -> bytes:
    """A PNG of 8- or 16-bit pixels, or of packed bytes where ``width`` and ``depth`` are given."""
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">"))
    step = rows.itemsize * (rows.shape[2] if rows.ndim == 3 else 1)
    data, above = b"", bytes(rows[0].nbytes)
    for number, row in enumerate(rows):
        kind = 0 if filters is None else filters[number % len(filters)]
        data += filter_row(kind, row.tobytes(), above, step)
        above = row.tobytes()
    packer = zlib.compressobj(level, zlib.DEFLATED, window, memory, strategy)
    stream = packer.compress(data) + packer.flush()
    pieces = [stream[at : at + chunk_size] for at in range(0, len(stream), chunk_size)]
    header = (width or rows.shape[1], len(rows), depth or rows.itemsize * 8, color, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", *header)),
            before,
            *(chunk(b"IDAT", piece) for piece in pieces),
            after,
            chunk(b"IEND", b""),
        ]
    )


def smooth(shape: tuple[int, ...] = (40, 50), dtype: type = np.uint8, seed: int = 0) -> Array:
    """Pixels like those of a frame: neighbors are alike."""
    steps = np.random.default_rng(seed).integers(-2, 3, shape)
    walk = steps.cumsum(axis=0).cumsum(axis=1)
    return (walk - walk.min()).astype(dtype)


def assert_returns(content: bytes) -> Encoded:
    """What a file is kept as, once it has come back byte for byte."""
    encoded = encode_file("images/a", content)
    assert decode_file(*encoded) == (content, True)
    assert (len(encoded.solid), len(encoded.blob)) == (encoded.file.solid, encoded.file.blob)
    return encoded


def assert_taken_apart(content: bytes) -> Encoded:
    encoded = assert_returns(content)
    assert encoded.file.pixels is not None
    return encoded


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_filter_of_a_png_comes_back(layout: str, dtype: type) -> None:
    color, channels = LAYOUTS[layout]
    pixels = smooth((40, 50, *channels), dtype)
    content = write_png(pixels, color=color, filters=[0, 1, 2, 3, 4, 4, 3, 1])
    read = np.asarray(imagecodecs.png_decode(content))
    np.testing.assert_array_equal(read, pixels)  # the writer of this test is right
    encoded = assert_taken_apart(content)
    assert len(encoded.blob) < 0.9 * len(content)


def several_blocks(**parameters: int) -> bytes:
    """A PNG of more symbols than zlib puts into a block, so that its memory shows."""
    pixels = np.random.default_rng(0).integers(0, 64, (200, 100), np.uint8)
    return write_png(pixels, **parameters)


@pytest.mark.parametrize("strategy", [0, 1, 2, 3])
@pytest.mark.parametrize("memory", [8, 9])
@pytest.mark.parametrize("level", range(1, 10))
def test_the_parameters_of_zlib_are_found(level: int, memory: int, strategy: int) -> None:
    content = several_blocks(level=level, memory=memory, strategy=strategy)
    png = split_png(content, 10**6)
    assert png is not None
    assert png.stream.memory == memory
    body = make_idat(png.pixels, png.stream, png.filters, png.raw, exact=True)
    assert png.head + body + png.tail == content


@pytest.mark.parametrize("window", range(9, 16))
def test_small_windows_are_found(window: int) -> None:
    assert_taken_apart(write_png(smooth(), filters=[4], window=window))


def test_a_window_may_be_stated_smaller_than_it_was() -> None:
    """As libpng does where all rows fit into a smaller one."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 41), np.uint8)
    pixels[-3:] = pixels[:3]  # farther back than zlib looks in a window of 1 KiB
    content = write_png(pixels)
    start = content.index(b"IDAT") + 4
    header = 0x28 << 8 | 2 << 6  # 1 KiB, level 6
    header += 31 - header % 31
    stream = header.to_bytes(2, "big") + content[start + 2 : content.index(b"IEND") - 8]
    patched = content[: start - 8] + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    png = split_png(patched, 10**6)
    assert png is not None
    assert png.stream.window == 15
    body = make_idat(png.pixels, png.stream, png.filters, png.raw, exact=True)
    assert png.head + body + png.tail == patched


@pytest.mark.parametrize("chunk_size", [1, 7, 8192, 10**6])
def test_idat_chunks_of_any_size_and_other_chunks_come_back(chunk_size: int) -> None:
    text, time = (
        chunk(b"tEXt", b"Comment\0a camera"),
        chunk(b"tIME", bytes([7, 233, 1, 1, 0, 0, 0])),
    )
    content = write_png(smooth(), chunk_size=chunk_size, before=text, after=time)
    assert_taken_apart(content + b"what some writer left at the end")


def test_a_palette_and_its_transparency_stay_as_they_are() -> None:
    palette = chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"tRNS", bytes(range(256)))
    content = write_png(smooth((30, 40)) % 250, color=3, filters=[1, 4], before=palette)
    assert Image.open(io.BytesIO(content)).mode == "P"
    assert_taken_apart(content)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("width", [37, 40])
def test_pixels_of_less_than_a_byte_come_back(depth: int, width: int) -> None:
    packed = smooth((60, (width * depth + 7) // 8))
    content = write_png(packed, width=width, depth=depth, filters=[0, 2, 4])
    assert Image.open(io.BytesIO(content)).size == (width, 60)
    assert_taken_apart(content)


def test_a_mask_is_compressed_with_others() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[50:53, 60:64] = 255
    encoded = assert_taken_apart(write_png(mask, filters=[1, 2]))
    assert not encoded.blob
    assert mask.tobytes() in encoded.solid


def interlaced(pixels: Array) -> bytes:
    """Adam7."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
    passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b"".join(
        b"\0" + row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx] if row.size
    )
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def odd_pngs() -> dict[str, bytes]:
    good = write_png(smooth())
    start = good.index(b"IDAT")
    stream = zlib.decompress(good[start + 4 : good.index(b"IEND") - 8])
    other = b"".join([b"\x78\x9c", zlib.compress(stream, 9)[2:]])  # says level 6
    head, tail = good[: start - 4], chunk(b"IEND", b"")
    return {
        "interlaced": interlaced(smooth((21, 13))),
        "cut short": good[:-40],
        "header only": good[:33],
        "signature only": good[:8],
        "level that it does not state": head + chunk(b"IDAT", other) + tail,
        "stored": write_png(smooth(), level=0),
        "more rows than it states": head + chunk(b"IDAT", zlib.compress(stream + b"x")) + tail,
        "fewer rows than it states": head + chunk(b"IDAT", zlib.compress(stream[:-9])) + tail,
        "wrong checksum": good[:start] + b"IDAT" + good[start + 4 : -20] + bytes(20),
        "filter that there is not": head + chunk(b"IDAT", zlib.compress(b"\7" + stream[1:])) + tail,
        "claims of a billion pixels": write_png(smooth(), width=2**30),
        "no pixels": write_png(smooth()).replace(good[12:29], b"IHDR" + bytes(13)),
        "noise": write_png(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)),
    }


@pytest.mark.parametrize("kind", odd_pngs())
def test_a_png_that_cannot_be_made_again_is_kept_as_bytes(kind: str) -> None:
    encoded = assert_returns(odd_pngs()[kind])
    if kind != "level that it does not state":
        assert encoded.file.pixels is None


@settings(deadline=None, max_examples=60)
@given(
    pixels=st.sampled_from(["u1", "u2"]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    ),
    filters=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    level=st.integers(0, 9),
    strategy=st.integers(0, 4),
    cut=st.integers(0, 30),
)
def test_any_png_comes_back(
    pixels: Array, filters: list[int], level: int, strategy: int, cut: int
) -> None:
    content = write_png(pixels, filters=filters, level=level, strategy=strategy, chunk_size=33)
    assert_returns(content[: len(content) - cut * (cut > 25)])


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_come_back(content: bytes) -> None:
    for start in (
        b"",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"II*\0",
        b"\x93NUMPY\1\0",
        b"P5 3 2 255\n",
    ):
        assert_returns(start + content)


def counts(kind: str) -> bytes:
    frame = smooth((50, 64), np.uint16) + np.uint16(7000)
    file = io.BytesIO()
    if kind.startswith("tiff"):
        options: dict[str, Any] = {
            "tiff": {},
            "tiff-big-endian": {"byteorder": ">"},
            "tiff-lzw": {"compression": "zlib"},
            "tiff-strips": {"rowsperstrip": 7},
        }[kind]
        tifffile.imwrite(file, frame, **options)
    elif kind == "pgm":
        return b"P5\n64 50\n16383\n" + frame.astype(">u2").tobytes()
    else:
        array = {
            "npy": frame,
            "npy-fortran": np.asfortranarray(frame),
            "npy-signed": frame.astype(np.int16) - 8000,
            "npy-stack": np.stack([frame] * 3),
            "npy-color": np.stack([frame] * 3, axis=-1),
            "npy-float": frame.astype(np.float32),
            "npy-scalar": np.array(3, np.uint16),
            "npy-empty": np.zeros((0, 5), np.uint16),
        }[kind]
        np.save(file, array)
    return file.getvalue()


WHOLE = ["tiff-lzw", "npy-float", "npy-scalar", "npy-empty"]
APART = ["tiff", "tiff-big-endian", "tiff-strips", "pgm"]
APART += ["npy", "npy-fortran", "npy-signed", "npy-stack", "npy-color"]


@pytest.mark.parametrize("kind", [*WHOLE, *APART])
def test_counts_of_recordings_come_back(kind: str) -> None:
    content = counts(kind)
    encoded = assert_returns(content)
    assert (encoded.file.pixels is not None) == (kind in APART)
    if kind in APART:
        assert len(encoded.blob) < len(content) / 2


def test_what_is_compressed_already_is_not_compressed_again() -> None:
    noise = np.random.default_rng(0).bytes(5000)
    assert assert_returns(noise).blob == noise
    assert assert_returns(b"train\n" * 100).blob == b""


def test_without_need_to_be_exact_pixels_and_chunks_are_equal() -> None:
    text = chunk(b"tEXt", b"Comment\0a camera")
    content = write_png(smooth((100, 120), np.uint16), filters=[4], level=9, before=text)
    quick, equal = decode_file(*assert_taken_apart(content), exact=False)
    assert not equal
    assert text in quick
    np.testing.assert_array_equal(imagecodecs.png_decode(quick), imagecodecs.png_decode(content))


def test_where_zlib_is_another_pixels_and_chunks_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_png(smooth(), filters=[3, 1], chunk_size=300, after=chunk(b"tEXt", b"A\0b"))
    encoded = assert_taken_apart(content)
    monkeypatch.setattr(
        PngStream, "deflate", lambda self, rows: [zlib.compress(rows, 0)[2:-4]], raising=True
    )
    made, equal = decode_file(*encoded)
    assert not equal
    assert made != content
    assert made.endswith(content[-25:])
    np.testing.assert_array_equal(imagecodecs.png_decode(made), imagecodecs.png_decode(content))


@pytest.mark.parametrize("exact", [True, False])
def test_other_pixels_than_those_packed_are_damage(exact: bool) -> None:
    one, other = (assert_taken_apart(write_png(smooth(seed=seed))) for seed in (1, 2))
    with pytest.raises(DamageError):
        decode_file(one.file, one.solid, other.blob, exact)
    tiff = assert_taken_apart(counts("tiff"))
    with pytest.raises(DamageError):
        decode_file(tiff.file, tiff.solid[:-1] + b"?", tiff.blob, exact)
    with pytest.raises(DamageError):
        decode_file(assert_returns(b"abc").file, b"abd", b"", exact)


def test_an_image_of_another_size_than_stated_is_refused() -> None:
    encoded = assert_taken_apart(write_png(smooth((40, 50))))
    large = imagecodecs.jpegxl_encode(np.zeros((400, 500), np.uint8), lossless=True)
    with pytest.raises(ValueError, match="shape"):
        decode_file(encoded.file, encoded.solid, large)


def test_parts_that_are_too_short_are_damage() -> None:
    encoded = assert_taken_apart(write_png(smooth()))
    with pytest.raises(DamageError):
        decode_file(encoded.file, b"", encoded.blob)


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\0", "."])
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        StoredFile(path=path, size=0, sha256="0" * 64)
