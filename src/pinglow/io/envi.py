"""ENVI: a text header (.hdr) beside a file of plain numbers; every band is a frame.

https://www.nv5geospatialsoftware.com/docs/ENVIHeaderFiles.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.io.counts import Pages, check_size, damaged
from pinglow.io.memory import MemoryFile
from pinglow.terminal import warn_once

ENVI_START: Final = b"ENVI"

_TYPES = {
    **{1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8"},
    **{12: "u2", 13: "u4", 14: "i8", 15: "u8"},
}
_DATA_SUFFIXES = ("", ".img", ".dat", ".raw", ".bin", ".bsq", ".bil", ".bip")
_LONGEST = 2**20  # bytes of a header
_ENTRY = re.compile(r"^[^\S\n]*([^=;{}\n]+?)\s*=\s*(\{[^}]*\}|[^\n]*)", re.MULTILINE)
# The order of the axes in the file, slowest first: band, line, sample.
_INTERLEAVES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def find_envi_header(path: Path) -> Path | None:
    """The header of a file of plain numbers; None: it has none."""
    if path.suffix.lower() not in _DATA_SUFFIXES:
        return None
    for place in (path.with_name(f"{path.name}.hdr"), path.with_suffix(".hdr")):
        for header in (place, place.with_suffix(".HDR")):
            if header.is_file():
                with header.open("rb") as file:
                    if file.read(4) == ENVI_START:
                        return header
    return None


@contextmanager
def open_envi(path: Path | MemoryFile, max_pixels: int) -> Iterator[Pages]:
    """The bands of a file, from the path of its header or of its data."""
    if not isinstance(path, Path):
        raise FrameError(f"{path} is an ENVI header: give the path of its file, not its bytes")
    header = find_envi_header(path) or path
    with header.open("rb") as file:
        entries = _parse(file.read(_LONGEST).decode("utf-8", "replace"))
    data = _find_data(header) if header == path else path
    if entries.get("file compression", "0") not in ("0", ""):
        raise FrameError(f"{path} is compressed: save it without compression")
    if entries.get("file type", "").lower() in ("tiff", "tiff file"):
        raise FrameError(f"{path} is the header of a TIFF: name {data.name}")
    bands, lines, samples = (_number(path, entries, key) for key in ("bands", "lines", "samples"))
    check_size(path, lines, samples, max_pixels)
    interleave = entries.get("interleave", "bsq").lower()
    if interleave not in _INTERLEAVES:
        raise damaged(path, f"interleave is {interleave}")
    axes = _INTERLEAVES[interleave]
    dtype = _dtype(path, entries)
    offset = _number(path, entries, "header offset", 0)
    claimed = bands * lines * samples * dtype.itemsize
    stored = data.stat().st_size - offset
    if bands < 1 or stored < claimed:
        raise damaged(path, f"{claimed} bytes claimed, {max(stored, 0)} stored in {data.name}")
    if stored > claimed:  # other sizes than the true ones give a picture as well
        warn_once(
            "envi",
            f"{data} holds {stored - claimed} bytes more than the {claimed} that its header "
            "claims: they are left out, so look whether samples, lines and data type are right",
        )
    shape = tuple((bands, lines, samples)[axis] for axis in axes)
    values = np.memmap(data, dtype, mode="r", offset=offset, shape=shape)
    cube = values.transpose(np.argsort(axes))
    yield Pages(bands, lambda band: _mark_ignored(entries, np.array(cube[band])))


def _parse(text: str) -> dict[str, str]:
    return {key.lower(): value.strip() for key, value in _ENTRY.findall(text)}


def _number(path: Path, entries: dict[str, str], key: str, default: int | None = None) -> int:
    text = entries.get(key, default if default is None else str(default))
    if text is None or not re.fullmatch(r"\d{1,18}", text):
        raise damaged(path, f"{key} is {'missing' if text is None else text}")
    return int(text)


def _dtype(path: Path, entries: dict[str, str]) -> np.dtype[Any]:
    kind = _number(path, entries, "data type")
    if kind not in _TYPES:
        raise FrameError(f"{path} holds numbers of ENVI's type {kind}: save integers or floats")
    order = _number(path, entries, "byte order", 0)
    return np.dtype(f"{'>' if order else '<'}{_TYPES[kind]}")


def _find_data(header: Path) -> Path:
    stem = header.with_suffix("")
    for suffix in _DATA_SUFFIXES:
        for place in (stem.with_name(f"{stem.name}{end}") for end in (suffix, suffix.upper())):
            if place.is_file():
                return place
    raise FrameError(
        f"{header} has no data beside it: put {stem.name}.img or {stem.name}.dat there"
    )


def _mark_ignored(entries: dict[str, str], counts: NDArray[Any]) -> NDArray[Any]:
    """The same with NaN where the header says that nothing was measured."""
    try:
        ignored = float(entries["data ignore value"])
    except (KeyError, ValueError):
        return counts
    missing = counts == ignored
    return np.where(missing, np.float32(np.nan), counts) if missing.any() else counts
