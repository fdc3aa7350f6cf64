"""Files of saved probability maps: which one is whose, and the values in it."""

from __future__ import annotations

import re
import struct
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import DataError, FrameError, PinglowError
from pinglow.io.counts import damaged
from pinglow.io.frames import read_only_frame
from pinglow.io.npy import read_npy_header
from pinglow.io.readers import frame_suffixes

_ENDS: Final = re.compile(r"[_\-. ]+(?=[A-Za-z])")
"""Where a frame's name may end in that of its map, as before ``_mask``; not before a number."""
_EXAMPLES: Final = 4


def find_maps(place: Path, names: Sequence[str]) -> dict[str, Path]:
    """The map of each name."""
    if not place.is_dir() and str(place).count("*") == 1:
        paths = {name: Path(str(place).replace("*", name)) for name in names}
        _check_whole(place, names, [name for name, path in paths.items() if path.is_file()])
        return paths
    if not place.is_dir():
        raise DataError(f"{place} is not a folder: name the one that holds the saved predictions.")
    found = _match_files(place, names)
    whole = sorted(rest for rest, paths in found.items() if len(paths) == len(names))
    if len(whole) > 1:
        kinds = shorten([f"*{rest}" for rest in whole])
        likely = next((rest for rest in whole if "pred" in rest.lower()), whole[0])
        raise DataError(
            f"{place} holds several files for each name ({kinds}): say which as a pattern, such as "
            f"--predictions '{place / ('*' + likely)}'."
        )
    if not found:
        other = sorted(path.name for path in place.iterdir())
        raise DataError(
            f"{place} has no map of any of the {len(names)} names ({shorten(names)}): it holds "
            f"{shorten(other) or 'nothing'}. Save them under these names, or give a pattern with "
            f"* for the name, such as '{place}/pred_*.png'."
        )
    rest = whole[0] if whole else max(found, key=lambda rest: len(found[rest]))
    _check_whole(place / f"*{rest}", names, found[rest])
    return found[rest]


def _match_files(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Path]]:
    """What comes after a name, to the names that have such a file, to the file."""
    suffixes = frame_suffixes() | {".mat"}
    wanted = {unicodedata.normalize("NFC", name): name for name in names}
    found: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for parent in sorted({Path(name).parent for name in names}):
        inner = folder / parent
        for path in sorted(inner.iterdir()) if inner.is_dir() else ():
            if path.name.startswith(".") or path.suffix.lower() not in suffixes:
                continue
            whole = unicodedata.normalize("NFC", (parent / path.name).as_posix())
            stem = whole.removesuffix(path.suffix)
            for end in [len(stem), *(match.start() for match in _ENDS.finditer(stem))]:
                if stem[:end] in wanted:
                    found[whole[end:]][wanted[stem[:end]]] = path
    return found


def _check_whole(place: Path, names: Sequence[str], found: Iterable[str]) -> None:
    missing = sorted(set(names).difference(found))
    if missing:
        raise DataError(
            f"{place} is missing for {len(missing)} of the {len(names)} names ({shorten(missing)})"
            ": save one map for every name in the list."
        )


def shorten(names: Sequence[str]) -> str:
    """The first few and how many more."""
    more = len(names) - _EXAMPLES
    return ", ".join(names[:_EXAMPLES]) + (f" and {more} more" if more > 0 else "")


def read_values(path: Path) -> NDArray[Any]:
    """(H, W) values of a file as stored, of the type that it has."""
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".mat"):
        values = read_only_frame(path, as_stored=True)
        _check_gray(path)
        return np.where(values, np.uint8(255), np.uint8(0)) if values.dtype == np.bool_ else values
    if not path.is_file():
        raise FrameError(f"{path} is a pipe, a device or a folder: save the map to a file")
    try:
        if suffix == ".npy":  # not as a frame, which has 32 bits at most
            read_npy_header(path)
            # `np.load` takes anything for a pickle.
            values = np.array(np.lib.format.open_memmap(path, mode="r"))
        else:
            values = _read_matlab(path)
    except PinglowError:
        raise
    except NotImplementedError:
        raise DataError(f"{path} is a MATLAB 7.3 file: save it by save(..., '-v7')") from None
    except Exception as error:  # readers raise anything at all on damaged bytes
        raise damaged(path, error) from error
    if values.ndim > 2:
        values = values.squeeze()
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "buif":
        raise DataError(
            f"{path} holds {values.dtype} values of shape {values.shape}: save one map of numbers, "
            "(height, width)"
        )
    return values


def _read_matlab(path: Path) -> NDArray[Any]:
    """The only variable of a MATLAB file that has rows and columns."""
    from scipy.io import loadmat

    # By mat_dtype logical values are no levels, and MATLAB's doubles no bytes.
    content = loadmat(path, mat_dtype=True)
    arrays = {
        name: np.asarray(value.toarray() if hasattr(value, "toarray") else value)  # sparse
        for name, value in content.items()
        if not name.startswith("__")
    }
    maps = [
        name
        for name, each in arrays.items()
        if each.ndim == 2 and each.size > 1 and each.dtype.kind in "buif"
    ]
    if len(maps) != 1:
        names = ", ".join(maps) or "none"
        raise DataError(f"{path} should hold one two-dimensional variable (it has {names})")
    return arrays[maps[0]]


def _check_gray(path: Path) -> None:
    # The plug-in itself, not Image.open: ultralytics replaces that by one that installs packages.
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        return
    with path.open("rb") as file:
        try:
            image = Image.OPEN[kind][0](file, str(path))
            if image.mode not in ("P", "RGB", "RGBA"):
                return
            red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
        except (SyntaxError, LookupError, TypeError, ValueError, OSError, struct.error):
            return  # of a kind that Pillow does not know, or broken, which its reader tells
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        raise DataError(f"Prediction {path} is in color: save gray levels")
