"""Ends of PGM headers, and counts against maxval, after https://netpbm.sourceforge.net/doc/."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow import terminal
from pinglow.errors import FrameError
from pinglow.io.frames import read_frame

RNG = np.random.default_rng(8)
DEEP = (np.add.outer(np.arange(20) * 25, np.arange(30) * 9) + 2400).astype(np.uint16)
DEEP += RNG.integers(0, 9, DEEP.shape, dtype=np.uint16)
GRAY = RNG.integers(0, 256, DEEP.shape, dtype=np.uint8)
HEADERS = [
    "P5\n30 20\nMAX\n",
    "P5\r\n30 20\r\nMAX\r\n",
    "P5\r30 20\rMAX\r",
    "P5 30 20 MAX \n",
    "P5\t30\t20\tMAX\t",
    "P5\n# made by\n30 20 # size\nMAX\n",
    "P5\n30 20\nMAX\n# a comment here\n",
    "P5\n30 20\nMAX # top\n",
    "P5\n30 20\nMAX# top\n",
    "P5\r\n# c\r\n30 20\r\nMAX\r\n# d e\r\n",
    "P5\n30   20\n\nMAX\n\n\n",
]


def read(folder: Path, content: bytes) -> NDArray[Any]:
    (folder / "f.pgm").write_bytes(content)
    return read_frame(folder / "f.pgm")


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("header", HEADERS)
def test_ends_of_headers(tmp_path: Path, header: str, tail: bytes) -> None:
    for counts, top in ((DEEP, "65535"), (DEEP, "4095"), (GRAY, "255")):
        stored = counts.astype(">u2" if counts is DEEP else "u1").tobytes()
        frame = read(tmp_path, header.replace("MAX", top).encode() + stored + tail)
        np.testing.assert_array_equal(frame, counts)


@pytest.mark.parametrize("first", [9, 10, 13, 32, 35])
def test_a_first_count_that_looks_like_a_blank_stays(tmp_path: Path, first: int) -> None:
    gray = GRAY.copy()
    gray[0, 0] = first
    for tail in (b"", b"\n"):
        content = b"P5\n30 20\n255\n" + gray.tobytes() + tail
        np.testing.assert_array_equal(read(tmp_path, content), gray)
    deep = DEEP.copy()
    deep[0, :3] = first * 256 + 10
    content = b"P5\n30 20\n65535\n" + deep.astype(">u2").tobytes() + b"\n"
    np.testing.assert_array_equal(read(tmp_path, content), deep)


def test_counts_with_their_bytes_swapped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    terminal._said.clear()
    level = np.full((20, 30), 2570, np.uint16) + GRAY % 2  # nothing but maxval tells
    with caplog.at_level(logging.WARNING, logger="pinglow"):
        for counts, top in ((DEEP, 4095), (DEEP, 65535), (level, 2600)):
            content = b"P5\n30 20\n%d\n" % top + counts.astype("<u2").tobytes()
            np.testing.assert_array_equal(read(tmp_path, content), counts)
    (message,) = caplog.messages
    assert "has the two bytes of each count swapped" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P5\n30 20\n100\n" + GRAY.tobytes(), "a count is 255, above maxval 100"),
        (b"P5\n30 20\n2400\n" + DEEP.astype(">u2").tobytes(), "above maxval 2400"),
        (b"P2\n2 1\n9\n1 2 3\n", "3 counts, where its header claims 2"),
        (b"P2\n2 2\n9\n1 2 3\n", "3 counts, where its header claims 4"),
        (b"P2\n2 1\n9\n1 2\nP2\n2 1\n9\n3 4\n", "several frames"),
        ((b"P5\n30 20\n255\n" + GRAY.tobytes()) * 2, "several frames"),
        (b"P5\r\n30 20\r\n255\r\n" + GRAY.tobytes() + b"more", "5 bytes more than its header"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    GRAY[0, 0] = 255
    with pytest.raises(FrameError, match=message):
        read(tmp_path, content)
