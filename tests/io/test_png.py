from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import FrameError
from pinglow.io.frames import read_frame


def make_png(
    width: int,
    height: int,
    data: bytes,
    depth: int = 8,
    interlaced: bool = False,
    extra: bytes = b"",
) -> bytes:
    """A gray PNG around data that has a filter byte before each line."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def lines(counts: NDArray[np.unsignedinteger]) -> bytes:
    return b"".join(b"\0" + line.astype(line.dtype.newbyteorder(">")).tobytes() for line in counts)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9, 17), (16, 16)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_interlaced_frames_are_read(
    shape: tuple[int, int],
    dtype: type[np.unsignedinteger],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    counts = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    # Each pass: first row and column, and steps to the next (PNG specification, Adam7).
    starts = (0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0)
    steps = (8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1)
    parts = [
        counts[top::down, left::right]
        for (top, left), (down, right) in zip(starts, steps, strict=True)
    ]
    data = b"".join(lines(part) for part in parts if part.size)
    file = make_png(shape[1], shape[0], data, 8 * counts.itemsize, interlaced=True)
    (tmp_path / "f.png").write_bytes(file)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), counts)
    np.testing.assert_array_equal(read_frame(tmp_path / "f.png"), counts)
    assert capfd.readouterr().err == ""


def test_more_pixels_than_the_header_claims_are_refused_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counts = np.random.default_rng(1).integers(0, 256, (20, 30), dtype=np.uint8)
    (tmp_path / "f.png").write_bytes(make_png(30, 20, lines(counts) + b"more"))
    with pytest.raises(FrameError, match="more pixels than its header claims"):
        read_frame(tmp_path / "f.png")
    assert capfd.readouterr().err == ""


def test_what_pixels_do_not_need_is_not_looked_at(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counts = np.random.default_rng(2).integers(0, 256, (20, 30), dtype=np.uint8)
    broken = struct.pack(">I", 4) + b"gAMA" + b"\0\0\0\0" + b"\0\0\0\0"  # a wrong checksum
    (tmp_path / "f.png").write_bytes(make_png(30, 20, lines(counts), extra=broken))
    np.testing.assert_array_equal(read_frame(tmp_path / "f.png"), counts)
    assert capfd.readouterr().err == ""


def test_a_side_that_libpng_prints_about_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "long.png").write_bytes(make_png(3, 2**20, b"\0"))
    with pytest.raises(FrameError, match=r"long\.png is damaged"):
        read_frame(tmp_path / "long.png")
    assert capfd.readouterr().err == ""
