"""Frames in NumPy's .npz."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinglow.errors import FrameError
from pinglow.io.frames import find_frames, read_frame

COUNTS = np.random.default_rng(0).integers(0, 16384, (33, 47)).astype(np.uint16)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("counts", [COUNTS, COUNTS[None], COUNTS.astype(">u2"), COUNTS.T.copy().T])
def test_the_only_array_of_rows_and_columns_is_the_frame(
    tmp_path: Path, save: Any, counts: Any
) -> None:
    save(tmp_path / "f.npz", time=np.float64(3), frame=counts, names=np.array(["a"], dtype=object))
    np.testing.assert_array_equal(read_frame(tmp_path / "f.npz"), COUNTS)
    assert find_frames([tmp_path]) == [tmp_path / "f.npz"]


def test_several_arrays_and_none_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", frame=COUNTS, mask=COUNTS)
    with pytest.raises(FrameError, match=r"two\.npz should hold one .* several \(frame, mask\)"):
        read_frame(tmp_path / "two.npz")
    np.savez(tmp_path / "none.npz", np.zeros(3), np.array([{}], dtype=object))
    with pytest.raises(FrameError, match="it holds none"):
        read_frame(tmp_path / "none.npz")


def test_damage_and_lies_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, COUNTS)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (whole[:-200], bytes(flipped), b"PK\3\4"):
        path.write_bytes(content)
        with pytest.raises(FrameError, match=r"f\.npz is damaged or cut short"):
            read_frame(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (9000, 9000)}
    )
    for content in (header.getvalue(), header.getvalue() + bytes(100)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", content)
        with pytest.raises(FrameError, match="648000000 bytes claimed"):
            read_frame(path)
