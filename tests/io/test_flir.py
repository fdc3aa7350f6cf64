"""FLIR files written byte by byte, after https://exiftool.org/TagNames/FLIR.html."""

from __future__ import annotations

import io
import logging
import math
import re
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pinglow import terminal
from pinglow.errors import FrameError
from pinglow.io.flir import read_temperature
from pinglow.io.frames import count_pages, find_frames, read_frame, read_only_frame
from pinglow.io.source import open_source

RNG = np.random.default_rng(5)
# Smooth enough that the order of bytes shows, and over several high bytes.
COUNTS = (np.add.outer(np.arange(24) * 9, np.arange(32) * 11) + 12800).astype(np.uint16)
COUNTS += RNG.integers(0, 12, COUNTS.shape, dtype=np.uint16)
NOISE = RNG.integers(0, 65536, (9, 11), dtype=np.uint16)
CONSTANTS: dict[int, float] = {
    **{0x20: 0.95, 0x24: 30.0, 0x28: 295.15, 0x2C: 293.15, 0x30: 294.15, 0x34: 0.8, 0x3C: 0.5},
    **{0x58: 16556.0, 0x5C: 1428.0, 0x60: 1.0},
    **{0x70: 0.006569, 0x74: 0.01262, 0x78: -0.002276, 0x7C: -0.00667, 0x80: 1.9},
}


def raw_record(counts: NDArray[Any], payload: bytes, order: str) -> bytes:
    height, width = counts.shape
    return struct.pack(f"{order}HHH", 2, width, height).ljust(32, b"\0") + payload


def camera_record(order: str = "<", **changes: float) -> bytes:
    record = bytearray(0x400)
    struct.pack_into(f"{order}H", record, 0, 2)
    for place, value in CONSTANTS.items():
        struct.pack_into(f"{order}f", record, place, changes.get(f"x{place:02x}", value))
    struct.pack_into(f"{order}if", record, 0x308, -342, 0.046952)
    return bytes(record)


def block(records: list[tuple[int, bytes]], order: str = ">", name: bytes = b"FFF\0") -> bytes:
    start = 64 + 32 * (len(records) + 1)  # an empty entry is among them
    table, content = bytes(32), b""
    for kind, record in records:
        place = start + len(content)
        table += struct.pack(f"{order}HHIIIIIII", kind, 1, 100, 1, place, len(record), 0, 0, 0)
        content += record
    header = name.ljust(20, b"\0") + struct.pack(f"{order}III", 100, 64, len(records) + 1)
    return header.ljust(64, b"\0") + table + content


def raw(counts: NDArray[Any], order: str = "<") -> bytes:
    return raw_record(counts, counts.astype(f"{order}u2").tobytes(), order)


def png(counts: NDArray[Any]) -> bytes:
    return raw_record(counts, bytes(imagecodecs.png_encode(counts)), "<")


def jpeg(flir: bytes, chunk: int = 65000) -> bytes:
    """A colored picture with a block in as many segments as it takes, the last one first."""
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    picture = buffer.getvalue()
    chunks = [flir[i : i + chunk] for i in range(0, len(flir), chunk)]
    segments = [
        b"\xff\xe1"
        + struct.pack(">H", len(part) + 10)
        + b"FLIR\0\x01"
        + bytes([number, len(chunks) - 1])
        + part
        for number, part in enumerate(chunks)
    ]
    return picture[:2] + b"".join(reversed(segments)) + picture[2:]


def check(path: Path, content: bytes, expected: NDArray[Any]) -> None:
    path.write_bytes(content)
    frame = read_frame(path)
    assert frame.dtype == np.uint16
    np.testing.assert_array_equal(frame, expected)
    assert count_pages(path) == 1


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_counts_of_every_kind(tmp_path: Path, order: str) -> None:
    for counts in (COUNTS, NOISE):
        record = raw(counts, order)
        for content in (
            block([(1, record)], ">"),
            block([(32, camera_record()), (1, record)], "<"),
        ):
            check(tmp_path / "f.fff", content, counts)
            check(tmp_path / "f.jpg", jpeg(content), counts)
            check(tmp_path / "f.jpg", jpeg(content, chunk=500), counts)


def test_counts_in_a_png_come_in_both_orders(tmp_path: Path) -> None:
    check(tmp_path / "f.jpg", jpeg(block([(1, png(COUNTS.byteswap()))])), COUNTS)
    check(tmp_path / "f.jpg", jpeg(block([(1, png(COUNTS))])), COUNTS)
    # Where the counts do not tell, FLIR's own order, which is not PNG's.
    check(tmp_path / "f.jpg", jpeg(block([(1, png(NOISE.byteswap()))])), NOISE)


def test_which_of_the_two_was_read_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    terminal._said.clear()
    path = tmp_path / "f.jpg"
    path.write_bytes(jpeg(block([(1, raw(COUNTS))])))
    with caplog.at_level(logging.WARNING, logger="pinglow"):
        read_frame(path)
        read_frame(path)
    (message,) = caplog.messages
    assert message.startswith(f"{path}: reading the raw counts in its FLIR segments")


@pytest.mark.parametrize("name", [b"FFF\0", b"AFF\0"])
@pytest.mark.parametrize("kind", ["raw", "png", "jpegls"])
def test_a_sequence(tmp_path: Path, kind: str, name: bytes) -> None:
    frames = [COUNTS + 100 * number for number in range(4)]
    stored = {
        "raw": raw,
        "png": lambda counts: png(counts.byteswap()),
        "jpegls": lambda counts: raw_record(counts, imagecodecs.jpegls_encode(counts), "<"),
    }[kind]
    blocks = [block([(1, stored(f)), (32, camera_record())], "<", name) for f in frames]
    blocks[1] += b"FFF\0 and what fills up"
    path = tmp_path / "f.seq"
    path.write_bytes(block([(32, camera_record())], "<", name) + b"".join(blocks))
    assert count_pages(path) == 4
    assert find_frames([tmp_path]) == [path]
    for content in (path, path.read_bytes()):
        source = open_source(content)
        assert source.frames == 4
        read = [frame.counts for frame in source.select()]
        np.testing.assert_array_equal(np.array(read), frames)
    with pytest.raises(FrameError, match="holds 4 frames"):
        read_only_frame(path)
    with pytest.raises(FrameError, match=r"no page 4: choose 0 to 3"):
        read_frame(path, page=4)


def test_a_sequence_that_is_cut_short_loses_its_last_frame_alone(tmp_path: Path) -> None:
    path = tmp_path / "f.seq"
    path.write_bytes((block([(1, raw(COUNTS))]) * 3)[:-40])
    assert count_pages(path) == 3
    found = [frame.counts for frame in open_source(path).select()]
    np.testing.assert_array_equal(found[1], COUNTS)
    assert isinstance(found[2], FrameError)
    assert "40 bytes of a frame are missing" in str(found[2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (jpeg(b"FFF\0" + bytes(200)), "FLIR segment without raw counts"),
        (jpeg(block([(32, camera_record())])), "FLIR segment without raw counts"),
        (jpeg(b"nothing"), "FLIR segment without raw counts"),
        (jpeg(block([(1, raw(COUNTS)[:-1])])), "damaged"),
        (jpeg(block([(1, b"\7\7" + raw(COUNTS)[2:])])), "record of an unknown kind"),
        (jpeg(block([(1, raw_record(COUNTS, png(NOISE)[32:], "<"))])), "11 x 9 stored"),
        (
            jpeg(block([(1, raw(COUNTS))]), 900).replace(b"FLIR\0\x01\x01", b"FLAR\0\x01\x01"),
            "missing",
        ),
        (block([(1, raw_record(np.zeros((9, 0)), b"", "<"))]), "no pixels"),
        (block([(1, struct.pack("<HHH", 2, 60000, 60000).ljust(99, b"\0"))]), "60000 x 60000"),
        (b"FFF\0" + b"\xff" * 99, "FLIR segment without raw counts"),
    ],
)
def test_the_picture_is_never_taken_instead(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.jpg"
    path.write_bytes(content)
    with pytest.raises(FrameError, match=message) as caught:
        read_frame(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("order", ["<", ">"])
def test_temperatures_are_those_that_were_put_in(tmp_path: Path, order: str) -> None:
    """Counts made of temperatures by the formula forwards, in scalars."""
    kelvin = np.linspace(250, 400, 24 * 32).reshape(24, 32)
    c = CONSTANTS

    def radiance(t: float) -> float:
        return c[0x58] / (np.float32(0.046952) * (math.exp(c[0x5C] / t) - c[0x60])) + 342

    air = c[0x2C] - 273.15
    water = c[0x3C] * math.exp(
        1.5587 + 0.06939 * air - 0.00027816 * air**2 + 0.00000068455 * air**3
    )
    tau = sum(
        share * math.exp(-math.sqrt(c[0x24] / 2) * (c[alpha] + c[beta] * math.sqrt(water)))
        for share, alpha, beta in ((c[0x80], 0x70, 0x78), (1 - c[0x80], 0x74, 0x7C))
    )

    def reach(t: float) -> float:
        """What the detector sees of an object: itself and reflections, air, window, air."""
        leaving = c[0x20] * radiance(t) + (1 - c[0x20]) * radiance(c[0x28])
        before = leaving * tau + (1 - tau) * radiance(c[0x2C])
        behind = before * c[0x34] + (1 - c[0x34]) * radiance(c[0x30])
        return behind * tau + (1 - tau) * radiance(c[0x2C])

    counts = np.vectorize(reach)(kelvin).round().astype(np.uint16)
    records = [(32, camera_record(order)), (1, raw(counts, order))]
    (tmp_path / "f.jpg").write_bytes(jpeg(block(records)))
    (tmp_path / "f.seq").write_bytes(block(records) * 2)
    for name, page in (("f.jpg", 0), ("f.seq", 1)):
        celsius = read_temperature(tmp_path / name, page=page)
        assert celsius.dtype == np.float32
        np.testing.assert_allclose(celsius, kelvin - 273.15, atol=0.05)  # of rounded counts


def test_temperatures_need_constants(tmp_path: Path) -> None:
    path = tmp_path / "f.fff"
    for records in ([(1, raw(COUNTS))], [(32, camera_record(x58=0.0)), (1, raw(COUNTS))]):
        path.write_bytes(block(records))
        with pytest.raises(FrameError, match=r"f\.fff lacks the constants"):
            read_temperature(path)
    path.write_bytes(block([(32, camera_record()), (1, raw(COUNTS))]))
    with pytest.raises(FrameError, match="no page 1"):
        read_temperature(path, page=1)
    path.write_bytes(bytes(imagecodecs.png_encode(COUNTS)))
    with pytest.raises(FrameError, match="no raw counts"):
        read_temperature(path)


def test_real_files_hold_what_another_way_finds(shared_data: Path) -> None:
    """Segments by a pattern, Pillow's PNG, and where the size stands: no table of records."""
    sizes = {"01": 120, "03": 120, "05": 180, "10": 320, "11": 320, "17": 320}
    for number, width in sizes.items():
        path = shared_data / "radiometric" / f"rjpeg-{number}.jpg"
        parts = re.split(rb"\xff\xe1..FLIR\0\x01..", path.read_bytes(), flags=re.DOTALL)
        height = {320: 240}.get(width, width)
        flir = b"".join(parts[1:])
        head = re.escape(struct.pack("<HHH6xI", 2, width, height, width - 1)) + b".{16}"
        if found := re.search(head + rb"(?=\x89PNG)", flir, re.DOTALL):
            image = Image.open(io.BytesIO(flir[found.end() :]))
            expected = np.array(image).astype(np.uint16).byteswap()
        else:
            *_, found = re.finditer(head, flir, re.DOTALL)  # cameras repeat it before
            expected = np.frombuffer(flir, "<u2", width * height, found.end())
            expected = expected.reshape(height, width)
        frame = read_frame(path)
        np.testing.assert_array_equal(frame, expected)
        celsius = read_temperature(path)
        assert -80 < celsius.min() < celsius.max() < 150
        assert (np.diff(celsius.ravel()[np.argsort(frame, axis=None)]) >= 0).all()
