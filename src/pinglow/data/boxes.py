"""Boxes around targets: from masks and back, of a data folder, and from one format to another.

A box is (left, top, width, height) in pixels, where pixel i covers [i, i + 1): the same as
``Target.bbox`` and COCO. `pinglow.io.labels` says how each format holds it.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.data.folder import FrameFolder, fit_mask, import_hint, list_splits
from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError, OptionError
from pinglow.io.labels.boxes import BoxArray, Shape, check_shape, stack_boxes
from pinglow.io.labels.coco import CocoImage, read_coco
from pinglow.io.labels.marks import Region
from pinglow.io.labels.text import spellings
from pinglow.io.labels.voc import read_voc
from pinglow.io.labels.yolo import read_yolo
from pinglow.structures import BoolArray, find_targets, label_targets, whole_pixels


def mask_boxes(mask: BoolArray) -> BoxArray:
    """The box of each target of an (H, W) bool mask, in raster order of the targets."""
    return stack_boxes(target.bbox for target in find_targets(mask))


def mask_regions(mask: BoolArray) -> list[Region]:
    """The pixels of each target of an (H, W) bool mask, in raster order of the targets."""
    regions = []
    for target in find_targets(mask):
        left, top, width, height = target.bbox
        labels, _ = label_targets(mask[top : top + height, left : left + width])
        # Another target may lie in this one's box; the box is tight around this one alone.
        sizes = ndimage.find_objects(labels)
        own = next(
            number
            for number, (rows, columns) in enumerate(sizes, start=1)
            if (rows.stop - rows.start, columns.stop - columns.start) == (height, width)
            and (labels == number).sum() == target.area
        )
        regions.append(Region(left, top, labels == own))
    return regions


def fill_boxes(boxes: BoxArray, shape: Shape) -> BoolArray:
    """(H, W) bool mask of every pixel in a box: edges go to whole pixels, each box keeps one.

    Boxes that touch become one target.
    """
    mask = np.zeros(shape, dtype=np.bool_)
    for left, top, width, height in boxes:
        (first, right), (upper, bottom) = whole_pixels(left, width), whole_pixels(top, height)
        mask[max(upper, 0) : max(bottom, 0), max(first, 0) : max(right, 0)] = True
    return mask


# --- a data folder -------------------------------------------------------------------------------

_logger = logging.getLogger("pinglow")

BOX_SOURCES: Final = {
    "masks": "masks/",
    "voc": "boxes/",
    "yolo": "labels/",
    "coco": "annotations/SPLIT.json or annotations.json",
}
"""What a data folder's boxes are taken from, in the order in which it is looked for."""
_LONGEST_PATH: Final = 4096  # of a file that could be there


class BoxFolder(FrameFolder):
    """Frames and boxes of one list of a data folder, in the list's order.

    Args:
        folder: Holds images/, lists, and what ``source`` says, or is a pack of such a folder.
        split: Name of a list in the folder, or the path of any .txt list.
        source: A name in `BOX_SOURCES`; None: the first that the folder has.

    Attributes:
        source: The name in `BOX_SOURCES` that the boxes are from.

    Raises:
        DataError: The list, the source, or an image or a label in them does not exist.
        OptionError: There is no such source.
    """

    def __init__(self, folder: str | Path, split: str, source: str | None = None) -> None:
        folder = open_data(folder)
        self.source, self._place = _choose_source(folder, split, source)
        super().__init__(folder, split)
        self._repeated = False
        self._shapes: dict[int, Shape] = {}  # a frame that was read is not read again for its size
        if self.source == "voc":
            self._labels = [self._existing(_voc_file, name, "boxes/ file") for name in self.names]
        elif self.source == "yolo":
            self._labels = [_spelled_file(self._place, f"{name}.txt") for name in self.names]
            if not any(path.is_file() for path in self._labels):
                raise DataError(
                    f"{self._place} has no label for any frame of list {split!r}; put them there "
                    "as NAME.txt (an empty one for a frame without targets)"
                )
        elif self.source == "coco":
            self._entries = _find_entries(self._place, self.names)

    def frame(self, index: int) -> NDArray[Any]:
        """(H, W) counts as stored.

        Raises:
            FrameError: See `pinglow.data.folder.read_image`.
        """
        frame = super().frame(index)
        self._shapes[index] = frame.shape
        return frame

    def boxes(self, index: int) -> BoxArray:
        """(n, 4) boxes of a frame's targets; (0, 4) where there are none.

        Raises:
            FrameError: The frame or its mask is broken.
            DataError: The label is broken or of a frame of another size, or a box is wrong.
        """
        return self._read_boxes(index, self._shape(index))

    def mask(self, index: int) -> BoolArray:
        """(H, W) bool at the frame's size: the folder's mask, or else the boxes, filled.

        Raises:
            As `boxes`.
        """
        return self._read_mask(index, self._shape(index))

    def pair(self, index: int) -> tuple[NDArray[Any], BoolArray]:
        """Frame and mask of one size."""
        frame = self.frame(index)
        return frame, self._read_mask(index, frame.shape)

    def boxed(self, index: int) -> tuple[NDArray[Any], BoxArray]:
        """Frame and (n, 4) boxes of its targets."""
        return self.frame(index), self.boxes(index)

    def _shape(self, index: int) -> Shape:
        return self._shapes[index] if index in self._shapes else self.frame(index).shape

    def _read_mask(self, index: int, shape: Shape) -> BoolArray:
        if self.source == "masks":
            return fit_mask(self._masks[index], super().mask(index), shape)
        return fill_boxes(self._read_boxes(index, shape), shape)

    def _read_boxes(self, index: int, shape: Shape) -> BoxArray:
        if self.source == "masks":
            return mask_boxes(self._read_mask(index, shape))
        if self.source == "coco":
            entry = self._entries[index]
            if entry.shape is not None:
                check_shape(f"{self._place}: {self.names[index]}", entry.shape, shape)
            return self._once(index, entry.boxes(shape))
        read = read_voc if self.source == "voc" else read_yolo
        return self._once(index, read(self._labels[index], shape))

    def _once(self, index: int, boxes: BoxArray) -> BoxArray:
        """Boxes without those that a label repeats: a target counts once."""
        rows = dict.fromkeys(map(tuple, boxes.tolist()))
        if len(rows) < len(boxes) and not self._repeated:
            self._repeated = True
            _logger.warning(
                f"the {self.source} label of {self.names[index]} repeats a box: equal boxes of a "
                "frame are taken once (said once)"
            )
        return stack_boxes(rows)

    def _find_masks(self) -> list[Path]:
        return super()._find_masks() if self.source == "masks" else []


def split_title(split: str) -> str:
    """Name of a split that is given as its name, with or without a folder, or as a .txt file."""
    return Path(split).stem if split.endswith(".txt") else split.rpartition("/")[2]


def _choose_source(folder: Path, split: str, source: str | None) -> tuple[str, Path]:
    """The source, and the folder or file of it."""
    list_splits(folder)  # says so if there is no such folder
    places = {
        "masks": folder / "masks",
        "voc": folder / "boxes",
        "yolo": folder / "labels",
        "coco": folder / "annotations" / f"{split_title(split)}.json",
    }
    if not places["coco"].exists():
        places["coco"] = folder / "annotations.json"
    if source is None:
        source = next((name for name, place in places.items() if place.exists()), None)
    if source is None:
        raise DataError(
            f"{folder} has none of {', '.join(BOX_SOURCES.values())}; add one of them"
            + import_hint(folder)
        )
    if source not in places:
        raise OptionError(f"boxes from {source!r} are unknown; use {', '.join(BOX_SOURCES)}")
    if not places[source].exists():
        raise DataError(f"{folder} has no {BOX_SOURCES[source]}; add it or name another source")
    return source, places[source]


def _voc_file(folder: Path, name: str) -> Path | None:
    path = _spelled_file(folder / "boxes", f"{name}.xml")
    return path if path.exists() else None


def _spelled_file(folder: Path, name: str) -> Path:
    """A file by its name in any Unicode form; as it is if there is none."""
    places = [folder / spelling for spelling in spellings(name)]
    return next(filter(os.path.exists, places), places[0])


def _find_entries(path: Path, names: list[str]) -> list[CocoImage]:
    """The image of each name: its file name is the name, or ends in a folder and the name."""
    entries = {unicodedata.normalize("NFC", name): image for name, image in read_coco(path).items()}
    wanted = {unicodedata.normalize("NFC", name) for name in names}
    depths = sorted({name.count("/") + 1 for name in wanted})
    endings: dict[str, list[str]] = defaultdict(list)
    for key in entries:
        parts = key.split("/") if len(key) <= _LONGEST_PATH else []
        for depth in depths:
            if depth < len(parts) and (ending := "/".join(parts[-depth:])) in wanted:
                endings[ending].append(key)
    found = []
    for name in names:
        plain = unicodedata.normalize("NFC", name)
        keys = [plain] if plain in entries else endings[plain]
        if len(keys) == 1:
            found.append(entries[keys[0]])
            continue
        fault = (
            f"{path} has {len(keys) or 'no'} images called {name!r}; it has to have one for "
            "each name in the list, also for a frame without targets"
        )
        found.append(CocoImage(name, fault=fault))
    if all(entry.fault is not None for entry in found):
        raise DataError(str(found[0].fault))
    return found
