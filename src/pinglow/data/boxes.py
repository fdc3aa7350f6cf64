"""Boxes around targets: from masks and back, of a data folder, and from one format to another.

A box is (left, top, width, height) in pixels, where pixel i covers [i, i + 1): the same as
``Target.bbox`` and COCO. `pinglow.io.labels` says how each format holds it.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.data.folder import FrameFolder, fit_mask, frame_path, list_splits, read_split
from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.files import write_whole
from pinglow.io.labels.boxes import BoxArray, Shape, check_shape, stack_boxes
from pinglow.io.labels.coco import read_coco, write_coco
from pinglow.io.labels.voc import read_voc, write_voc
from pinglow.io.labels.yolo import read_yolo, write_yolo
from pinglow.preprocess import normalize_frame
from pinglow.structures import BoolArray, find_targets, whole_pixels


def mask_boxes(mask: BoolArray) -> BoxArray:
    """The box of each target of an (H, W) bool mask, in raster order of the targets."""
    return stack_boxes(target.bbox for target in find_targets(mask))


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

BOX_SOURCES: Final = {
    "masks": "masks/",
    "voc": "boxes/",
    "yolo": "labels/",
    "coco": "annotations/SPLIT.json or annotations.json",
}
"""What a data folder's boxes are taken from, in the order in which it is looked for."""


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
        self._shapes: dict[int, Shape] = {}  # a frame that was read is not read again for its size
        if self.source == "voc":
            self._labels = [self._existing(_voc_file, name, "boxes/ file") for name in self.names]
        elif self.source == "yolo":
            self._labels = [self._place / f"{name}.txt" for name in self.names]
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
            stated, boxes = self._entries[index]
            check_shape(f"{self._place}: {self.names[index]}", stated, shape)
            return boxes
        read = read_voc if self.source == "voc" else read_yolo
        return read(self._labels[index], shape)

    def _find_masks(self) -> list[Path]:
        return super()._find_masks() if self.source == "masks" else []


def split_title(split: str) -> str:
    """Name of a split that is given as its name or as the path of a .txt list."""
    return Path(split).stem if split.endswith(".txt") else split


def _choose_source(folder: Path, split: str, source: str | None) -> tuple[str, Path]:
    """The source, and the folder or file of it."""
    list_splits(folder)  # says so if there is no such folder
    places = {
        "masks": folder / "masks",
        "voc": folder / "boxes",
        "yolo": folder / "labels",
        "coco": folder / "annotations" / f"{split_title(split)}.json",
    }
    if not places["coco"].is_file():
        places["coco"] = folder / "annotations.json"
    if source is None:
        source = next((name for name, place in places.items() if place.exists()), None)
    if source is None:
        raise DataError(f"{folder} has none of {', '.join(BOX_SOURCES.values())}; add one of them")
    if source not in places:
        raise OptionError(f"boxes from {source!r} are unknown; use {', '.join(BOX_SOURCES)}")
    if not places[source].exists():
        raise DataError(f"{folder} has no {BOX_SOURCES[source]}; add it or name another source")
    return source, places[source]


def _voc_file(folder: Path, name: str) -> Path | None:
    path = folder / "boxes" / f"{name}.xml"
    return path if path.is_file() else None


def _find_entries(path: Path, names: list[str]) -> list[tuple[Shape, BoxArray]]:
    """The image of each name: its file name is the name, or ends in a folder and the name."""
    entries = read_coco(path)
    endings = defaultdict(list)
    for key in entries:
        parts = key.split("/")
        for start in range(1, len(parts)):
            endings["/".join(parts[start:])].append(key)
    found = []
    for name in names:
        keys = [name] if name in entries else endings[name]
        if len(keys) != 1:
            raise DataError(
                f"{path} has {len(keys) or 'no'} images called {name!r}; it has to have one for "
                "each name in the list, also for a frame without targets"
            )
        found.append(entries[keys[0]])
    return found


# --- from one format to another ------------------------------------------------------------------

BOX_FORMATS: Final = ("voc", "yolo", "coco")
"""What `convert_boxes` writes."""

_DARKEST, _BRIGHTEST = -4.0, 7.0  # normalized values at level 0 and 255 of an 8-bit frame
_YOLO_FILE: Final = "data.yaml"


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        frames: Frames whose boxes were written, each counted once.
        targets: Boxes in them.
        broken: Name and reason of each frame that was left out.
    """

    frames: int
    targets: int
    broken: dict[str, str]


def gray_8_bits(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """A frame of any bit depth in 8 bits, for what reads no more.

    `normalize_frame`, with -4 at level 0 and 7 at level 255: from 27 spreads below the median to
    548 above it, in steps of 0.043 spreads at the median. In 1,959 frames of SIRST, SIRST-V2,
    IRSTD-1k and NUDT-SIRST that cuts no target pixel; a narrower range does, a wider one has
    coarser steps. Steps grow with brightness, so bright counts may still become equal.

    Args:
        frame: (H, W) counts; NaN and infinite pixels become the median.

    Returns:
        (H, W) uint8; 93 all over for a constant frame.
    """
    levels = (normalize_frame(frame) - _DARKEST) * (255 / (_BRIGHTEST - _DARKEST))
    return np.asarray(np.rint(levels).clip(0, 255), dtype=np.uint8)


def convert_boxes(
    folder: Path,
    splits: Sequence[str],
    target: str,
    out: Path,
    *,
    source: str | None = None,
    overwrite: bool = False,
    on_frame: Callable[[], object] = lambda: None,
) -> Conversion:
    """Write the boxes of a data folder's lists in another format, with the lists themselves.

    VOC and COCO give the boxes alone, beside the frames if ``out`` is ``folder``, whose lists then
    stay as they are. YOLO gives a folder that ultralytics' trainer takes: frames as 8-bit PNG
    (`gray_8_bits`; that trainer would keep only the high byte of a 16-bit file), labels, lists and
    data.yaml, in which the first list is for training, the second for validation, the third for
    testing; a single one is for training and validation.

    A frame whose image or label is broken is left out of the lists, and the job goes on.

    Args:
        folder: A data folder, as for `BoxFolder`.
        splits: Names or paths of lists.
        target: A name in `BOX_FORMATS`.
        out: Folder to write into, made if missing.
        source: A name in `BOX_SOURCES`, as for `BoxFolder`.
        overwrite: Replace files that are there.
        on_frame: Called after each frame of each list, to show progress.

    Raises:
        DataError: As `BoxFolder`; or a file is there and ``overwrite`` is off.
        OptionError: There is no such format, or it cannot be written into ``folder``.
    """
    if target not in BOX_FORMATS:
        raise OptionError(f"boxes to {target!r} are unknown; use {', '.join(BOX_FORMATS)}")
    folder = open_data(folder)
    beside = folder.resolve() == out.resolve()
    if beside and target == "yolo":
        raise OptionError(f"yolo brings images of its own, so {out} cannot be both; name another")
    lists = [BoxFolder(folder, split, source) for split in splits]
    kept = list_splits(folder) if beside else {}
    _check_room(lists, target, out, overwrite, kept)
    known: dict[str, int] = {}
    broken: dict[str, str] = {}
    titles = []
    for frames in lists:
        title, written = split_title(frames.split), []
        for index, name in enumerate(frames.names):
            try:
                frame, boxes = frames.frame(index), frames.boxes(index)
            except (FrameError, DataError) as error:
                broken[name] = str(error)
            else:
                image = frame_path(folder, name) or folder / "images" / name
                file_name = image.relative_to(folder / "images").as_posix()
                if target == "yolo":
                    if not known:  # first, so that an interrupted conversion is known as one
                        _write_yolo_file(out, [split_title(each.split) for each in lists])
                    write_whole(out / "images" / f"{name}.png", _png(frame))
                    write_yolo(out / "labels" / f"{name}.txt", boxes, frame.shape)
                elif target == "voc":
                    write_voc(out / "boxes" / f"{name}.xml", boxes, frame.shape, file_name)
                written.append((name, (file_name, frame.shape, boxes)))
                known[name] = len(boxes)
            on_frame()
        if not written:
            continue
        titles.append(title)
        if target == "coco":
            write_coco(out / "annotations" / f"{title}.json", [entry for _, entry in written])
        if title not in kept:
            line = "./images/{}.png\n" if target == "yolo" else "{}\n"
            lines = "".join(line.format(name) for name, _ in written)
            write_whole(out / f"{title}.txt", lines.encode())
    if target == "yolo" and titles:
        _write_yolo_file(out, titles)
    return Conversion(len(known), sum(known.values()), broken)


def _png(frame: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(gray_8_bits(frame)).save(content, "PNG")
    return content.getvalue()


def _write_yolo_file(out: Path, titles: list[str]) -> None:
    """What ultralytics wants to know of a data folder; a JSON string is a YAML string too."""
    used = titles if len(titles) > 1 else titles * 2
    lines = [f"path: {json.dumps(str(out.resolve()), ensure_ascii=False)}"]
    for key, title in zip(("train", "val", "test"), used, strict=False):
        lines.append(f"{key}: {json.dumps(f'{title}.txt', ensure_ascii=False)}")
    content = "\n".join([*lines, "names:", "  0: target", ""])
    write_whole(out / _YOLO_FILE, content.encode(errors="backslashreplace"))


def _check_room(
    lists: list[BoxFolder], target: str, out: Path, overwrite: bool, kept: dict[str, Path]
) -> None:
    """Refuse to lose anything, before anything is written."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder to write the boxes into")
    if target == "yolo" and (out / "images").exists() and not (out / _YOLO_FILE).exists():
        raise DataError(
            f"{out} has images but no {_YOLO_FILE}, so no conversion wrote them; "
            "name another folder"
        )
    titles = [split_title(frames.split) for frames in lists]
    if len(set(titles)) < len(titles):
        raise OptionError(f"two of the lists {', '.join(titles)} have one name; rename one")
    for frames, title in zip(lists, titles, strict=True):
        if overwrite:
            continue
        files = {
            "voc": [out / "boxes" / f"{name}.xml" for name in frames.names],
            "yolo": [
                out / place
                for name in frames.names
                for place in (f"images/{name}.png", f"labels/{name}.txt")
            ],
            "coco": [out / "annotations" / f"{title}.json"],
        }[target]
        listed = out / f"{title}.txt"
        if title not in kept and listed.exists() and read_split(out, str(listed)) != frames.names:
            files.append(listed)
        there = next((path for path in files if path.exists()), None)
        if there is not None:
            raise DataError(f"{there} is there already; name another folder or use --overwrite")
