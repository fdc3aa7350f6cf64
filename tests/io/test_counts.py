"""The order of the two bytes of a count."""

from __future__ import annotations

import io
import logging
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
from scipy import ndimage

from pinglow import terminal
from pinglow.io.counts import looks_swapped
from pinglow.io.frames import find_frames, read_frame

RNG = np.random.default_rng(9)
SHAPE = (48, 64)
CLOUDS = ndimage.gaussian_filter(RNG.normal(size=SHAPE), 8)
CLOUDS = (CLOUDS / CLOUDS.std() * 400 + 7000 + RNG.normal(size=SHAPE) * 12).astype(np.uint16)
DETECTORS = {
    "14 bits": CLOUDS,
    "12 bits": CLOUDS >> 2,
    "left-aligned": CLOUDS << 2,
    "with hot pixels": np.where(RNG.random(SHAPE) < 0.02, np.uint16(16383), CLOUDS),
    "around zero": CLOUDS.astype(np.int16) - np.int16(7000),
}


def as_tiff(counts: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, counts, photometric="minisblack", **options)
    return buffer.getvalue()


def as_npy(counts: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, counts)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", DETECTORS)
def test_swapped_counts_are_swapped_back_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    terminal._said.clear()
    counts = DETECTORS[kind]
    assert not looks_swapped(counts)
    swapped = counts.byteswap()
    files = [as_tiff(swapped), as_tiff(swapped, byteorder=">", compression="zlib"), as_npy(swapped)]
    files += [imagecodecs.png_encode(swapped)] if counts.dtype == np.uint16 else []
    with caplog.at_level(logging.WARNING, logger="pinglow"):
        for content in files:
            (tmp_path / "f").write_bytes(content)
            np.testing.assert_array_equal(read_frame(tmp_path / "f"), counts)
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'f'} has the two bytes of each count swapped")


EIGHT = (CLOUDS >> 5).astype(np.uint16)


@pytest.mark.parametrize(
    "counts",
    [
        RNG.integers(0, 65536, SHAPE, dtype=np.uint16),
        EIGHT << 8,
        EIGHT,
        EIGHT * 257,
        np.where(CLOUDS > 7400, np.uint16(65535), EIGHT << 8),
        np.where(CLOUDS > 7400, np.uint16(255), EIGHT << 8),
        np.where(CLOUDS > 7400, 65535, 0).astype(np.uint16),
        np.where(CLOUDS > 7400, 256, 0).astype(np.uint16),
        ndimage.label(CLOUDS > 7200)[0].astype(np.uint16) * 37,
        np.full(SHAPE, 300, np.uint16),
        (CLOUDS >> 6) << 6,
    ],
)
def test_what_is_unusual_but_right_stays(counts: NDArray[Any]) -> None:
    assert not looks_swapped(counts)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(st.sampled_from(["u2", "i2"]), hnp.array_shapes(min_dims=2, max_dims=2)))
def test_never_both_ways(counts: NDArray[Any]) -> None:
    assert not (looks_swapped(counts) and looks_swapped(counts.byteswap()))


def test_real_frames(shared_data: Path) -> None:
    frames = [read_frame(path) for path in find_frames([shared_data / "lwir-clouds" / "images"])]
    assert not any(looks_swapped(frame) for frame in frames)
    # But for one, whose high byte never changes.
    assert sum(looks_swapped(frame.byteswap()) for frame in frames) >= len(frames) - 1
