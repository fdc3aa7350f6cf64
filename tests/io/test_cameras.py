"""FITS written byte by byte, HDF5 by h5py, which the extra brings."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow import terminal
from pinglow.errors import FrameError, MissingExtraError
from pinglow.io.frames import count_pages, find_frames, read_frame
from pinglow.io.source import open_source

STACK = np.random.default_rng(4).integers(0, 2**14, (3, 5, 7), dtype=np.uint16)
BITS = {"u1": 8, "i2": 16, "u2": 16, "i4": 32, "f4": -32, "f8": -64}


def hdu(values: NDArray[Any] | None, kind: str = "u2", start: str = "SIMPLE", **more: Any) -> bytes:
    """One unit of a FITS file: cards of 80 letters, then big-endian numbers, in blocks of 2,880."""
    first = "T" if start == "SIMPLE" else "'IMAGE   '"
    shape = () if values is None else values.shape
    cards: dict[str, Any] = {start: first, "BITPIX": BITS[kind], "NAXIS": len(shape)}
    cards |= {f"NAXIS{i + 1}": side for i, side in enumerate(shape[::-1])}
    if start == "XTENSION":
        cards |= {"PCOUNT": 0, "GCOUNT": 1}
    if kind == "u2":  # FITS has no unsigned numbers of 16 bits
        cards |= {"BZERO": 32768, "BSCALE": 1}
    cards |= more
    header = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in cards.items()) + "END"
    content = b""
    if values is not None:
        stored = values.astype(np.int64) - 32768 if kind == "u2" else values
        content = stored.astype(">i2" if kind == "u2" else f">{kind}").tobytes()
    blocks = header.encode().ljust(-(-len(header) // 2880) * 2880)
    return blocks + content.ljust(-(-len(content) // 2880) * 2880, b"\0")


@pytest.fixture
def fits(tmp_path: Path) -> Path:
    """Return where a FITS file goes."""
    pytest.importorskip("astropy")
    return tmp_path / "f.fits"


@pytest.mark.parametrize("kind", BITS)
def test_fits_of_every_type(fits: Path, kind: str) -> None:
    stack = STACK % 200 if kind == "u1" else STACK
    fits.write_bytes(hdu(stack[0], kind))
    assert find_frames([fits.parent]) == [fits]
    for content in (fits, fits.read_bytes()):
        source = open_source(content, "f.fits")
        assert source.frames == 1
        np.testing.assert_array_equal(source.read(0), stack[0])
    assert read_frame(fits).dtype == {"u1": np.uint8, "f4": np.float32, "f8": np.float32}.get(
        kind, np.uint16
    )


def test_fits_cubes_and_extensions_are_frames(fits: Path) -> None:
    extensions = b"".join(hdu(frame, start="XTENSION") for frame in STACK)
    for content in (hdu(STACK), hdu(None) + extensions, hdu(STACK[:, None])):
        fits.write_bytes(content)
        assert count_pages(fits) == 3
        for number, frame in enumerate(STACK):
            np.testing.assert_array_equal(read_frame(fits, page=number), frame)
    fits.write_bytes(hdu(STACK[0]) + hdu(STACK[1] > 3, "u1", "XTENSION"))  # the picture's mask
    assert count_pages(fits) == 1
    np.testing.assert_array_equal(read_frame(fits), STACK[0])


def test_fits_scales_and_gaps(fits: Path) -> None:
    values = np.arange(35).reshape(5, 7)
    fits.write_bytes(hdu(values, "i2", BSCALE=0.5, BZERO=10, BLANK=3))
    expected = values * 0.5 + 10
    expected[0, 3] = np.nan
    np.testing.assert_array_equal(read_frame(fits), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (hdu(None), "holds no image"),
        (
            hdu(None) + hdu(STACK[0], start="XTENSION") + hdu(STACK[0, 1:], start="XTENSION"),
            "sizes",
        ),
        (hdu(STACK[0, ::2, ::2]) + hdu(STACK[0], start="XTENSION"), "sizes"),  # a thumbnail
        (hdu(STACK[0])[:2900], "damaged"),
        (
            hdu(STACK[0]).replace(
                b"NAXIS1  =                    7", b"NAXIS1  = 99999999999999999999"
            ),
            r"f\.fits",
        ),
        (hdu(STACK[0], NAXIS1=30000, NAXIS2=30000), "30000 x 30000"),
    ],
)
def test_fits_refusals(fits: Path, content: bytes, message: str) -> None:
    fits.write_bytes(content)
    with pytest.raises(FrameError, match=message) as caught:
        read_frame(fits)
    assert str(fits) in str(caught.value)


def test_without_its_extra_a_kind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, start in (("h5py", b"\x89HDF\r\n\x1a\n"), ("astropy.io.fits", b"SIMPLE  = T")):
        monkeypatch.setitem(sys.modules, module, None)
        (tmp_path / "frame").write_bytes(start)
        with pytest.raises(MissingExtraError, match=r"\[cameras\]"):
            read_frame(tmp_path / "frame")


@pytest.fixture
def hdf5(tmp_path: Path) -> Any:
    """Return what writes named arrays to a file."""
    h5py = pytest.importorskip("h5py")

    def save(arrays: dict[str, NDArray[Any]], **options: Any) -> Path:
        with h5py.File(tmp_path / "f.h5", "w") as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values, **options)
        return tmp_path / "f.h5"

    return save


@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2", ">i4", "<f4", "f8"])
def test_hdf5_of_every_type(hdf5: Any, kind: str) -> None:
    stack = (STACK % 200).astype(kind)
    packed = {"chunks": (1, 5, 7), "compression": "gzip", "shuffle": True}
    for path in (hdf5({"camera/frames": stack}), hdf5({"camera/frames": stack}, **packed)):
        assert find_frames([path.parent]) == [path]
        for content in (path, path.read_bytes()):
            source = open_source(content, "f.h5")
            assert source.frames == 3
            np.testing.assert_array_equal([f.counts for f in source.select()], stack)
    np.testing.assert_array_equal(read_frame(hdf5({"one": stack[0]})), stack[0])
    np.testing.assert_array_equal(read_frame(hdf5({"gray": stack[..., None]}), page=1), stack[1])
    np.testing.assert_array_equal(read_frame(hdf5({"rgb": np.stack([stack[0]] * 3, -1)})), stack[0])


def test_hdf5_the_largest_data_set_is_read_and_said(
    hdf5: Any, caplog: pytest.LogCaptureFixture
) -> None:
    terminal._said.clear()
    path = hdf5({"dark": STACK[0], "a/frames": STACK, "z/offset": STACK[1]})
    with caplog.at_level(logging.WARNING, logger="pinglow"):
        np.testing.assert_array_equal(read_frame(path, page=2), STACK[2])
    assert "holds 3 data sets: reading the largest, /a/frames" in caplog.text


def test_hdf5_refusals(hdf5: Any) -> None:
    with pytest.raises(FrameError, match=r"several data sets of one size \(/a, /b\)"):
        read_frame(hdf5({"a": STACK, "b": STACK}))
    picture = np.stack([STACK] * 3, -1)  # has no more pixels than what it shows
    with pytest.raises(FrameError, match=r"several data sets of one size \(/a, /b\)"):
        read_frame(hdf5({"a": STACK, "b": picture}))
    with pytest.raises(FrameError, match="no data set of frames"):
        read_frame(hdf5({"times": np.arange(3.0), "table": np.ones((9, 1))}))
    path = hdf5({"a": STACK})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(FrameError, match=r"f\.h5 is damaged"):
        read_frame(path)
