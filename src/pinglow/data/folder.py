"""Data folders: where frames, masks and lists are.

A folder holds ``images/``, ``masks/`` and one list of names per split (``SPLIT.txt``, one name a
line). Two published layouts are read as they are: BasicIRSTD's ``img_idx/train_NAME.txt``, and
SIRST's ``idx_*/`` lists with ``NAME_pixels0.png`` masks. A line of a list may also be the path of
its image, as detectors' trainers want it: ``./images/NAME.png``, or absolute.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError, FrameError
from pinglow.io.frames import read_only_frame, strip_suffix
from pinglow.io.readers import frame_suffixes
from pinglow.structures import BoolArray, binarize_mask

_logger = logging.getLogger("pinglow")

_NOT_LISTS: Final = ("readme", "license", "licence")
_MOST_STRETCH: Final = 1.02  # of a mask of another size than its frame; SIRST's Misc_111 has 1.002


def list_splits(folder: Path) -> dict[str, Path]:
    """Lists of a data folder by split name ("train", "test", ...).

    Raises:
        DataError: The folder does not exist.
    """
    folder = open_data(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; name one that holds images/, masks/ or boxes, and lists"
        )
    splits = {
        path.stem: path
        for path in sorted(folder.glob("*.txt"))
        if path.stem.lower() not in _NOT_LISTS
    }
    for path in sorted(folder.glob("idx_*/*.txt")):
        splits.setdefault(path.stem, path)
    for path in sorted(folder.glob("img_idx/*.txt")):  # train_NUDT-SIRST.txt
        splits.setdefault(path.stem.split("_")[0], path)
    return splits


def read_split(folder: Path, split: str) -> list[str]:
    """Names in a list: a split of the folder, or the path of any .txt list.

    A name that is there twice is taken once, with a warning: it would weigh twice in every score.

    Raises:
        DataError: There is no such list, it is empty, or a line is no frame of this folder.
    """
    folder = open_data(folder)
    path = open_data(split) if split.endswith(".txt") else list_splits(folder).get(split)
    if path is None:
        known = ", ".join(list_splits(folder))
        if not known:
            raise DataError(f"{folder} has no lists: write {split}.txt there, one file name a line")
        raise DataError(f"{folder} has no list {split}.txt (lists there: {known}); name another")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise DataError(f"list {path} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of names: {error}") from error
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
    """The frame that a line of a list means: a name, or the path of an image of the folder."""
    images = folder / "images"
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
    return strip_suffix(place.as_posix())


def frame_path(folder: Path, name: str) -> Path | None:
    """The image of a name, or None."""
    return _find(folder / "images", name)


def find_mask(folder: Path, name: str) -> Path | None:
    """The mask of a name, plain or with SIRST's suffix, or None."""
    return _find(folder / "masks", name) or _find(folder / "masks", f"{name}_pixels0")


def read_image(path: Path) -> NDArray[Any]:
    """(H, W) counts of a file in images/, as stored.

    Raises:
        FrameError: The file is broken, holds several frames, or has no finite pixel.
    """
    frame = read_only_frame(path)
    if not np.isfinite(frame).any():
        raise FrameError(f"{path} has no finite pixel: export it again")
    return frame


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
        """(H, W) bool at the mask's own size; above half of the file's maximum is target.

        Raises:
            FrameError: The file is broken or holds several frames.
        """
        return binarize_mask(read_only_frame(self._masks[index]))

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
        return [self._existing(find_mask, name, "mask") for name in self.names]

    def _existing(self, find: Any, name: str, kind: str) -> Path:
        path: Path | None = find(self.folder, name)
        if path is None:
            raise DataError(
                f"{self.folder} has no {kind} for {name!r} of list {self.split!r}; "
                "add the file or take the name out of the list"
            )
        return path


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
            if path.is_file():
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
