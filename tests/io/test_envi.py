"""ENVI files written as their definition says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.io.frames import count_pages, find_frames, read_frame
from pinglow.io.source import open_source

CUBE = np.random.default_rng(2).integers(0, 200, (3, 5, 7))
TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def write(
    folder: Path, cube: NDArray[Any], *, data: str = "c.img", header: str = "c.hdr", **changes: Any
) -> Path:
    """A header, and the numbers in the order that it says behind what its offset skips."""
    bands, lines, samples = cube.shape
    fields = {"samples": samples, "lines": lines, "bands": bands, "header_offset": 0}
    fields |= {"data_type": 12, "interleave": "bsq", "byte_order": 0} | changes
    text = "ENVI\ndescription = {\n  samples = 9, none of the header's}\n"
    text += "".join(f"{key.replace('_', ' ')} = {value}\n" for key, value in fields.items())
    (folder / header).write_text(text)
    order = "<>"[fields["byte_order"]]
    values = cube.transpose(AXES[str(fields["interleave"]).lower()])
    stored = values.astype(order + TYPES[fields["data_type"]]).tobytes()
    (folder / data).write_bytes(
        b"P5"[: fields["header_offset"]].ljust(fields["header_offset"]) + stored
    )
    return folder / header


@pytest.mark.parametrize("byte_order", [0, 1])
@pytest.mark.parametrize("interleave", ["bsq", "BIL", "bip"])
def test_every_type_and_order(tmp_path: Path, interleave: str, byte_order: int) -> None:
    for kind in TYPES:
        options = {"data_type": kind, "byte_order": byte_order, "interleave": interleave}
        path = write(tmp_path, CUBE, header_offset=3, **options)
        for place in (path, tmp_path / "c.img"):
            assert count_pages(place) == 3
            for band, expected in enumerate(CUBE):
                np.testing.assert_array_equal(read_frame(place, page=band), expected)
    frames = [frame.counts for frame in open_source(path).select()]
    np.testing.assert_array_equal(np.array(frames), CUBE)


@pytest.mark.parametrize(
    ("data", "header"), [("c", "c.hdr"), ("c.dat", "c.dat.hdr"), ("c.RAW", "c.HDR")]
)
def test_names_of_the_pair(tmp_path: Path, data: str, header: str) -> None:
    path = write(tmp_path, CUBE[:1], data=data, header=header)
    for place in (path, tmp_path / data):
        np.testing.assert_array_equal(read_frame(place), CUBE[0])
    assert find_frames([tmp_path]) == [path]  # once


def test_what_was_not_measured_is_nan(tmp_path: Path) -> None:
    cube = CUBE[:1].copy()
    cube[0, 2, 3] = 9999
    frame = read_frame(write(tmp_path, cube, data_ignore_value=9999))
    assert np.argwhere(np.isnan(frame)).tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_type": 12, "lines": 6}, "252 bytes claimed, 210 stored"),
        ({"bands": 0}, "bytes claimed"),
        ({"samples": "many"}, "samples is many"),
        ({"samples": 10**6, "lines": 10**6}, "more than the limit"),
        ({"file_compression": 1}, "compressed"),
        ({"header_offset": 0, "file_type": "TIFF"}, "header of a TIFF"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        read_frame(write(tmp_path, CUBE, **changes))


def test_bytes_beyond_the_header_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pinglow.terminal._said", set())
    path = write(tmp_path, CUBE)
    np.testing.assert_array_equal(read_frame(path), CUBE[0])
    assert caplog.messages == []
    (tmp_path / "c.img").write_bytes((tmp_path / "c.img").read_bytes() + bytes(6))
    np.testing.assert_array_equal(read_frame(path, page=2), CUBE[2])
    read_frame(path)
    (said,) = caplog.messages
    assert "c.img holds 6 bytes more than the 210 that its header claims" in said


def test_other_refusals(tmp_path: Path) -> None:
    path = write(tmp_path, CUBE)
    text = path.read_text()
    for old, new, message in (
        ("data type = 12", "data type = 6", "ENVI's type 6"),
        ("interleave = bsq", "interleave = up", "interleave is up"),
        ("bands = 3\n", "", "bands is missing"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(FrameError, match=message):
            read_frame(path)
    path.write_text(text)
    source = open_source(path.read_bytes(), "upload.hdr")
    with pytest.raises(FrameError, match=r"upload\.hdr is an ENVI header"):
        source.read(0)
    (tmp_path / "c.img").unlink()
    with pytest.raises(FrameError, match=r"no data beside it: put c\.img"):
        read_frame(path)
    path.write_text("#?RADIANCE\n")
    with pytest.raises(FrameError, match="not a frame that pinglow reads"):
        read_frame(path)
