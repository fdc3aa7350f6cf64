"""Write the boxes of a data folder in another format."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.data.boxes import BoxFolder, split_title
from pinglow.data.folder import frame_path, list_splits, read_split
from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.files import remove_parts, write_whole
from pinglow.io.labels.boxes import BoxArray, Shape
from pinglow.io.labels.coco import write_coco
from pinglow.io.labels.voc import write_voc
from pinglow.io.labels.yolo import write_yolo
from pinglow.preprocess import normalize_frame

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
    remove_parts(out)
    writer = _Writer(target, out, [split_title(frames.split) for frames in lists])
    known: dict[str, int] = {}
    broken: dict[str, str] = {}
    for frames in lists:
        written = []
        for index, name in enumerate(frames.names):
            try:
                frame, boxes = frames.frame(index), frames.boxes(index)
            except (FrameError, DataError) as error:
                broken[name] = str(error)
            else:
                written.append((name, writer.add(_file_name(folder, name), name, frame, boxes)))
                known[name] = len(boxes)
            on_frame()
        if written:
            title = split_title(frames.split)
            writer.end_list(title, written, listed=title in kept or frames.split in kept)
    writer.close()
    return Conversion(len(known), sum(known.values()), broken)


_Entry = tuple[str, Shape, BoxArray]


class _Writer:
    """Writes frames' boxes in one format, list by list."""

    def __init__(self, target: str, out: Path, titles: list[str]) -> None:
        self._target, self._out = target, out
        self._titles = titles
        self._written: list[str] = []
        self._begun = False

    def add(self, file_name: str, name: str, frame: NDArray[Any], boxes: BoxArray) -> _Entry:
        """Write what a frame has of its own; COCO's is written with its list."""
        if self._target == "yolo":
            if not self._begun:  # first, so that an interrupted conversion is known as one
                _write_yolo_file(self._out, self._titles)
                self._begun = True
            write_whole(self._out / "images" / f"{name}.png", _png(frame))
            write_yolo(self._out / "labels" / f"{name}.txt", boxes, frame.shape)
        elif self._target == "voc":
            write_voc(self._out / "boxes" / f"{name}.xml", boxes, frame.shape, file_name)
        return file_name, frame.shape, boxes

    def end_list(self, title: str, written: list[tuple[str, _Entry]], *, listed: bool) -> None:
        """Write a list, unless it is there, and what holds all its frames."""
        self._written.append(title)
        if self._target == "coco":
            annotations = self._out / "annotations" / f"{title}.json"
            write_coco(annotations, [entry for _, entry in written])
        if not listed:
            line = "./images/{}.png\n" if self._target == "yolo" else "{}\n"
            lines = "".join(line.format(name) for name, _ in written)
            write_whole(self._out / f"{title}.txt", lines.encode())

    def close(self) -> None:
        """Name the lists that have frames."""
        if self._target == "yolo" and self._written:
            _write_yolo_file(self._out, self._written)


def _file_name(folder: Path, name: str) -> str:
    image = frame_path(folder, name) or folder / "images" / name
    return image.relative_to(folder / "images").as_posix()


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
