"""Data folders: where frames, masks and lists are.

A folder holds ``images/``, ``masks/`` and one list of names per split (``SPLIT.txt``, one name a
line). Two published layouts are read as they are: BasicIRSTD's ``img_idx/train_NAME.txt``, and
SIRST's ``idx_*/`` lists with ``NAME_pixels0.png`` masks. A line of a list may also be the path of
its image, as detectors' trainers want it: ``./images/NAME.png``, or absolute.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.data.derived import read_derived
from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError, FrameError
from pinglow.io.frames import read_only_frame, strip_suffix
from pinglow.io.labels.text import read_text, spellings
from pinglow.io.readers import frame_suffixes
from pinglow.masks import FULL_SCALES, MOST_NUMBER, READINGS, MaskReading, interpret_mask
from pinglow.structures import BoolArray
from pinglow.terminal import warn_once

_logger = logging.getLogger("pinglow")

_NOT_LISTS: Final = ("readme", "license", "licence")
_JPEG: Final = b"\xff\xd8\xff"
_MOST_STRETCH: Final = 1.02  # of a mask of another size than its frame; SIRST's Misc_111 has 1.002


def list_splits(folder: Path) -> dict[str, Path]:
    """Lists of a data folder by split name ("train", "test", ...).

    A list in a subfolder is called by its file's name, or in img_idx/ by what that begins with.
    Where another has that name, it is called by its file's whole name or, if that is no help, by
    its folder and file, as "idx_427/test".

    Raises:
        DataError: The folder does not exist.
    """
    folder = open_data(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; name one that holds images/, masks/ or boxes, and lists"
            + import_hint(folder)
        )
    splits = {
        path.stem: path
        for path in sorted(folder.glob("*.txt"))
        if path.stem.lower() not in _NOT_LISTS
    }
    inner = sorted(folder.glob("idx_*/*.txt")) + sorted(folder.glob("img_idx/*.txt"))
    short, stems = Counter(map(_short_name, inner)), Counter(path.stem for path in inner)
    for path in inner:
        if path.stem not in splits and stems[path.stem] == 1:
            names = [path.stem]
            if short[_short_name(path)] == 1 and _short_name(path) not in splits:
                names = [_short_name(path)]
        else:
            names = [f"{path.parent.name}/{path.stem}"]
        splits.update(dict.fromkeys(names, path))
    return splits


def import_hint(folder: Path) -> str:
    """The command that makes a data folder of this one, if it holds labels of another tool.

    Returns:
        The end of a sentence, or "".
    """
    from pinglow.io.labels.formats import FORMATS, find_format

    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        return ""
    try:
        form = find_format(folder)
    except DataError:
        form, title = "", "several formats"
    else:
        title = FORMATS[form].title if form else ""
    if form is None:
        return ""
    out = f"{folder.absolute().stem}-pinglow"
    command = shlex.join(["pinglow", "data", "import", str(folder), "--out", out])
    return f"; it holds labels of {title}: {command}"


def _short_name(path: Path) -> str:
    """What a list in a subfolder is called by, in img_idx/ without the data set's name."""
    return path.stem.split("_")[0] if path.parent.name == "img_idx" else path.stem


def _choose_list(folder: Path, split: str) -> Path:
    """The file of a list of the folder.

    Raises:
        DataError: There is none, or there are several.
    """
    splits = list_splits(folder)
    chosen = splits.get(split)
    others = {
        name: path
        for name, path in splits.items()
        if path != chosen
        and split in (path.stem, _short_name(path), f"{path.parent.name}/{path.stem}")
    }
    if chosen is not None:
        rivals = [name for name, path in others.items() if path.stem == split]
        if rivals:
            _logger.warning(f"list {split!r} is {chosen}, not {' or '.join(rivals)}")
        return chosen
    if len(others) == 1:
        return next(iter(others.values()))
    if others:
        raise DataError(
            f"{folder} has several lists {split!r} ({', '.join(others)}); name one of them"
        )
    if not splits:
        hint = import_hint(folder)
        if hint:
            raise DataError(f"{folder} has no lists{hint}")
        if not (folder / "images").is_dir():
            raise DataError(
                f"{folder} has neither lists nor a folder images/: name a folder that holds "
                f"images/, what is true of them, as masks/, and {split}.txt"
            )
        raise DataError(
            f"{folder} has no lists: write {split}.txt there, one file name a line, or let pinglow "
            f"data split {folder} write them"
        )
    known = ", ".join(splits)
    raise DataError(f"{folder} has no list {split}.txt (lists there: {known}); name another")


def read_split(folder: Path, split: str) -> list[str]:
    """Names in a list: a split of the folder, or the path of any .txt list.

    A name that is there twice is taken once, with a warning: it would weigh twice in every score.

    Raises:
        DataError: There is no such list, or there are several; it is no text, it is empty, or a
            line is no frame of this folder.
    """
    folder = open_data(folder)
    path = open_data(split) if split.endswith(".txt") else _choose_list(folder, split)
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    names = [_name_in(folder, line.strip(), path) for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path} names no frames; put one name a line into it")
    counts = Counter(names)
    if len(counts) < len(names):
        again = next(name for name, count in counts.items() if count > 1)
        _logger.warning(
            f"{path} has {len(names)} lines but {len(counts)} names, {again} more than once: each "
            "is taken once"
        )
    return list(counts)


def _name_in(folder: Path, line: str, listed: Path) -> str:
    """The frame that a line of a list means: a name, or the path of an image of the folder.

    It is spelled as its image is, composed or decomposed.
    """
    images = folder / "images"
    if "\\" in line and frame_path(folder, strip_suffix(line)) is None:
        line = line.replace("\\", "/")  # Windows
    place = Path(line.removeprefix("./images/"))
    if place.is_absolute():
        # Of links to the folder the list may know one and the user name another.
        parent, base = place.parent.resolve(), images.resolve()
        if parent.is_relative_to(base):
            place = parent.relative_to(base) / place.name
    elif place.parts[:1] == ("images",) and frame_path(folder, strip_suffix(line)) is None:
        place = place.relative_to("images")
    # With an absolute path or "..", an image would be found in the place of its mask.
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise DataError(
            f"{listed} has the line {line}, which is no frame in {images}: write names, one a line"
        )
    name = strip_suffix(place.as_posix())
    found = None if name.isascii() else frame_path(folder, name)
    return name if found is None else strip_suffix(found.relative_to(images).as_posix())


def frame_path(folder: Path, name: str) -> Path | None:
    """The image of a name, or None."""
    paths = (_find(folder / "images", spelling) for spelling in spellings(name))
    return next(filter(None, paths), None)


def find_mask(folder: Path, name: str) -> Path | None:
    """The mask of a name, plain or with SIRST's suffix, or None."""
    names = [f"{spelling}{end}" for end in ("", "_pixels0") for spelling in spellings(name)]
    return next(filter(None, (_find(folder / "masks", each) for each in names)), None)


def read_image(path: Path) -> NDArray[Any]:
    """(H, W) counts of a file in images/, as stored.

    Raises:
        FrameError: The file is broken, holds several frames, or has no finite pixel.
    """
    frame = read_only_frame(path)
    if not np.isfinite(frame).any():
        raise FrameError(f"{path} has no finite pixel: export it again")
    return frame


def read_mask(path: Path) -> MaskReading:
    """(H, W) targets of a file in masks/, and how it was read; see `pinglow.masks`.

    Raises:
        FrameError: The file is broken or holds several frames.
        DataError: It can be read in two ways.
    """
    values = read_only_frame(path, channels=True)
    with path.open("rb") as file:
        lossy = file.read(len(_JPEG)) == _JPEG
    return interpret_mask(values, path, lossy=lossy)


class MaskReader:
    """Reads masks, and says once of each kind how those are read that are not plain."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._tops: dict[bool, Path] = {}  # of masks of numbers, and of masks of full scale

    def __call__(self, path: Path) -> BoolArray:
        """See `read_mask`."""
        targets, kind, top = read_mask(path)
        if kind in READINGS:
            self._say(kind, f"{path} {READINGS[kind]}")
        if 0 < top <= MOST_NUMBER or top in FULL_SCALES:
            self._tops.setdefault(top in FULL_SCALES, path)
        if len(self._tops) == 2:
            some, others = self._tops[False], self._tops[True]
            self._say(
                "tops",
                f"{others} marks with the largest value and {some} with small numbers: both are "
                "read as targets, so look whether the largest value means pixels to leave out",
            )
        return targets

    def _say(self, kind: str, message: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            _logger.warning(f"{message} (said once)")


class FrameFolder:
    """Frames and masks of one list of a data folder, in the list's order.

    Args:
        folder: Holds images/, masks/ and lists, or is a pack of such a folder (`open_data`).
        split: Name of a list in the folder, or the path of any .txt list.

    Raises:
        DataError: The list or one of its images or masks does not exist.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        self.folder = open_data(folder)
        self.split = split
        self.names = read_split(self.folder, split)
        self._open_mask = MaskReader()
        self._frames = [self._existing(frame_path, name, "image") for name in self.names]
        self._masks = self._find_masks()

    def __len__(self) -> int:
        """Number of frames in the list."""
        return len(self.names)

    def frame(self, index: int) -> NDArray[Any]:
        """(H, W) counts as stored.

        Raises:
            FrameError: See `read_image`.
        """
        return read_image(self._frames[index])

    def mask(self, index: int) -> BoolArray:
        """(H, W) bool at the mask's own size, True at targets.

        Raises:
            FrameError, DataError: See `read_mask`.
        """
        return self._open_mask(self._masks[index])

    def pair(self, index: int) -> tuple[NDArray[Any], BoolArray]:
        """Frame and mask of one size; a mask of another size is brought to the frame's (nearest).

        SIRST's Misc_111 needs that: its image and its mask differ in size.

        Raises:
            FrameError: A file is broken.
            DataError: The mask is of another shape, see `fit_mask`.
        """
        frame = self.frame(index)
        return frame, fit_mask(self._masks[index], self.mask(index), frame.shape)

    def _find_masks(self) -> list[Path]:
        _tell_derived(self.folder, self.names)
        return [self._existing(find_mask, name, "mask") for name in self.names]

    def _existing(self, find: Any, name: str, kind: str) -> Path:
        path: Path | None = find(self.folder, name)
        if path is None:
            raise DataError(
                f"{self.folder} has no {kind} for {name!r} of list {self.split!r}; "
                "add the file or take the name out of the list"
            )
        return path


def _tell_derived(folder: Path, names: list[str]) -> None:
    """Say once that masks were not drawn by a person."""
    derived = read_derived(folder)
    count = sum(name in derived for name in names)
    if count:
        warn_once(
            f"derived masks of {folder}",
            f"{folder}: {count} of {len(names)} masks were derived from boxes or points, not "
            "drawn: scores are against those",
        )


def fit_mask(path: Path, mask: BoolArray, shape: tuple[int, ...]) -> BoolArray:
    """(H, W) mask at its frame's size, by the nearest pixel center.

    Raises:
        DataError: Its width over its height is more than 2 % off the frame's: it is of another
            frame, or cut.
    """
    height, width = mask.shape
    if not 1 / _MOST_STRETCH <= width * shape[0] / (height * shape[1]) <= _MOST_STRETCH:
        raise DataError(
            f"{path} is {width} x {height} but its frame is {shape[1]} x {shape[0]}: "
            "give them one size"
        )
    return resize_nearest(mask, shape)


def resize_nearest(mask: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """(H, W) mask or map at another size, by the nearest pixel center."""
    if mask.shape == shape:
        return mask
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for old, new in zip(mask.shape, shape, strict=True)
    )
    return np.asarray(mask[rows][:, columns])


def _find(folder: Path, name: str) -> Path | None:
    for suffix in (".png", ".bmp", *sorted(frame_suffixes())):
        for spelling in (suffix, suffix.upper(), suffix.title()):
            path = folder / f"{name}{spelling}"
            if os.path.isfile(path):  # False, too, for a name that is too long
                return path
    return None


def name_folders(folders: Iterable[str | Path]) -> list[str]:
    """A name of its own for each folder: the last part of its path, numbered where it is taken."""
    names: list[str] = []
    for folder in folders:
        title = Path(folder).absolute().name
        numbered = (f"{title}-{number}" for number in itertools.count(2))
        names.append(next(n for n in itertools.chain([title], numbered) if n not in names))
    return names
