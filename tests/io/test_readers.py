"""Readers that other packages add."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
