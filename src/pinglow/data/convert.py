"""Write the targets of a data folder, or of a prediction, in another format."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.data.boxes import BoxFolder, mask_regions, split_title
from pinglow.data.folder import frame_path, list_splits, read_split
from pinglow.data.pack.cache import open_data
from pinglow.data.predicted import Form, ResultFolder, is_results
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.files import remove_parts, write_whole
from pinglow.io.frames import strip_suffix
from pinglow.io.labels.boxes import BoxArray, Shape, stack_boxes
from pinglow.io.labels.coco import write_coco_masks
from pinglow.io.labels.cvat import write_cvat
from pinglow.io.labels.labelme import write_labelme
from pinglow.io.labels.marks import Box
from pinglow.io.labels.voc import write_voc
from pinglow.io.labels.yolo import write_yolo
from pinglow.preprocess import normalize_frame

LABEL_FORMATS: Final = ("labelme", "cvat", "coco", "voc", "yolo")
"""What `convert_labels` writes."""

_DARKEST, _BRIGHTEST = -4.0, 7.0  # normalized values at level 0 and 255 of an 8-bit frame
_YOLO_FILE: Final = "data.yaml"


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        frames: Frames whose targets were written, each counted once.
        targets: Targets in them.
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


def convert_labels(
    folder: Path,
    splits: Sequence[str],
    target: str,
    out: Path,
    *,
    source: str | None = None,
    overwrite: bool = False,
    on_frame: Callable[[], object] = lambda: None,
) -> Conversion:
    """Write the targets of a data folder's lists, or predicted ones, in another format.

    labelme, CVAT and COCO keep the pixels of masks. VOC and COCO lie beside the frames if ``out``
    is ``folder``, whose lists then stay as they are; elsewhere the lists are written, too. YOLO
    gives a folder that ultralytics' trainer takes: frames as 8-bit PNG (`gray_8_bits`; that trainer
    would keep only the high byte of a 16-bit file), labels, lists and data.yaml, in which the first
    list is for training, the second for validation, the third for testing; a single one is for
    training and validation.

    A frame whose image or label is broken is left out of the lists, and the job goes on.

    Args:
        folder: A data folder, as for `BoxFolder`, or results with targets.jsonl.
        splits: Names or paths of lists; none: ``folder`` holds results.
        target: A name in `LABEL_FORMATS`.
        out: Folder to write into, made if missing.
        source: A name in `BOX_SOURCES`, as for `BoxFolder`.
        overwrite: Replace files that are there.
        on_frame: Called after each frame of each list, to show progress.

    Raises:
        DataError: As `BoxFolder`; or a file is there and ``overwrite`` is off.
        OptionError: There is no such format, or it cannot be written into ``folder`` or of results.
    """
    if target not in LABEL_FORMATS:
        raise OptionError(f"labels to {target!r} are unknown; use {', '.join(LABEL_FORMATS)}")
    lists: list[_Lists]
    kept: dict[str, Path] = {}
    if not splits and is_results(folder):
        if target == "yolo":
            raise OptionError(
                "yolo brings 8-bit images to train with, predicted targets are labels to correct: "
                "choose labelme, cvat or coco"
            )
        lists = [_Predicted(folder)]
    else:
        folder = open_data(folder)
        beside = folder.resolve() == out.resolve()
        if beside and target == "yolo":
            raise OptionError(
                f"yolo brings images of its own, so {out} cannot be both; name another"
            )
        lists = [_Listed(folder, split, source) for split in splits]
        kept = list_splits(folder) if beside else {}
    _check_room(lists, target, out, overwrite, kept)
    remove_parts(out)
    writer = _Writer(target, out, [each.title for each in lists])
    known: dict[str, int] = {}
    broken: dict[str, str] = {}
    for each in lists:
        written = []
        for index, name in enumerate(each.names):
            try:
                frame = each.read(index)
            except (FrameError, DataError) as error:
                broken[name] = str(error)
            else:
                writer.add(frame)
                written.append(frame.entry())
                known[name] = len(frame.forms)
            on_frame()
        if written:
            listed = each.split in kept or each.title in kept or isinstance(each, _Predicted)
            writer.end_list(each.title, written, listed=listed)
    writer.close()
    return Conversion(len(known), sum(known.values()), broken)


class _Entry(NamedTuple):
    """What of a frame is kept until its list ends."""

    name: str
    file_name: str
    shape: Shape
    forms: list[Form]


@dataclass(frozen=True)
class _Frame:
    """What is written of a frame; a predicted one comes without its counts."""

    name: str
    file_name: str
    path: Path
    shape: Shape
    forms: list[Form]
    boxes: BoxArray
    counts: NDArray[Any] | None = None

    def entry(self) -> _Entry:
        return _Entry(self.name, self.file_name, self.shape, self.forms)


class _Listed:
    """A list of a data folder."""

    def __init__(self, folder: Path, split: str, source: str | None) -> None:
        self._frames = BoxFolder(folder, split, source)
        self.split, self.title, self.names = split, split_title(split), self._frames.names

    def read(self, index: int) -> _Frame:
        frames, name = self._frames, self._frames.names[index]
        counts, boxes = frames.frame(index), frames.boxes(index)
        forms: list[Form]
        if frames.source == "masks":
            forms = [(region, None) for region in mask_regions(frames.mask(index))]
        else:
            forms = [(Box(*box), None) for box in boxes.tolist()]
        path = frame_path(frames.folder, name) or frames.folder / "images" / name
        file_name = path.relative_to(frames.folder / "images").as_posix()
        return _Frame(name, file_name, path, counts.shape, forms, boxes, counts)


class _Predicted:
    """The frames of a prediction."""

    def __init__(self, folder: Path) -> None:
        self._results = ResultFolder(folder)
        self.split = self.title = "targets"
        self.names = self._results.names

    def read(self, index: int) -> _Frame:
        forms = self._results.forms(index)
        file_name, path = self._results.file_name(index), self._results.image(index)
        boxes = stack_boxes(map(_bounds, forms))
        name = strip_suffix(file_name)
        return _Frame(name, file_name, path, self._results.shape(index), forms, boxes)


_Lists = _Listed | _Predicted


def _bounds(form: Form) -> tuple[float, ...]:
    target = form[0]
    if isinstance(target, Box):
        return target.left, target.top, target.width, target.height
    height, width = target.pixels.shape
    return target.left, target.top, width, height


class _Writer:
    """Writes frames' targets in one format, list by list."""

    def __init__(self, target: str, out: Path, titles: list[str]) -> None:
        self._target, self._out = target, out
        self._titles = titles
        self._written: list[str] = []
        self._begun = False

    def add(self, frame: _Frame) -> None:
        """Write what a frame has of its own; COCO's and CVAT's is written with its list."""
        if self._target == "yolo":
            if not self._begun:  # first, so that an interrupted conversion is known as one
                _write_yolo_file(self._out, self._titles)
                self._begun = True
            assert frame.counts is not None
            write_whole(self._out / "images" / f"{frame.name}.png", _png(frame.counts))
            write_yolo(self._out / "labels" / f"{frame.name}.txt", frame.boxes, frame.shape)
        elif self._target == "voc":
            path = self._out / "boxes" / f"{frame.name}.xml"
            write_voc(path, frame.boxes, frame.shape, frame.file_name)
        elif self._target == "labelme":
            path = self._out / f"{frame.name}.json"
            image = Path(os.path.relpath(frame.path, path.parent)).as_posix()
            notes = ("" if score is None else f"score {score:.6g}" for _, score in frame.forms)
            targets = [form for form, _ in frame.forms]
            write_labelme(path, image, frame.shape, zip(targets, notes, strict=True))

    def end_list(self, title: str, written: list[_Entry], *, listed: bool) -> None:
        """Write a list, unless it is there, and what holds all its frames."""
        self._written.append(title)
        if self._target == "coco":
            annotations = self._out / "annotations" / f"{title}.json"
            write_coco_masks(annotations, [entry[1:] for entry in written])
        elif self._target == "cvat":
            frames = (
                (name, shape, [form for form, _ in forms]) for _, name, shape, forms in written
            )
            write_cvat(self._out / "annotations" / f"{title}.xml", frames)
        if not listed and self._target not in ("labelme", "cvat"):
            line = "./images/{}.png\n" if self._target == "yolo" else "{}\n"
            lines = "".join(line.format(entry.name) for entry in written)
            write_whole(self._out / f"{title}.txt", lines.encode())

    def close(self) -> None:
        """Name the lists that have frames."""
        if self._target == "yolo" and self._written:
            _write_yolo_file(self._out, self._written)


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
    lists: Sequence[_Lists], target: str, out: Path, overwrite: bool, kept: dict[str, Path]
) -> None:
    """Refuse to lose anything, before anything is written."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder to write the labels into")
    if target == "yolo" and (out / "images").exists() and not (out / _YOLO_FILE).exists():
        raise DataError(
            f"{out} has images but no {_YOLO_FILE}, so no conversion wrote them; "
            "name another folder"
        )
    titles = [each.title for each in lists]
    if len(set(titles)) < len(titles):
        raise OptionError(f"two of the lists {', '.join(titles)} have one name; rename one")
    for each in lists:
        if overwrite:
            continue
        places = {
            "labelme": ["{name}.json"],
            "voc": ["boxes/{name}.xml"],
            "yolo": ["images/{name}.png", "labels/{name}.txt"],
            "coco": [f"annotations/{each.title}.json"],
            "cvat": [f"annotations/{each.title}.xml"],
        }[target]
        files = [out / place.format(name=name) for name in each.names for place in places]
        listed = out / f"{each.title}.txt"
        writes_list = target in ("voc", "yolo", "coco") and isinstance(each, _Listed)
        if (
            writes_list
            and each.title not in kept
            and listed.exists()
            and read_split(out, str(listed)) != each.names
        ):
            files.append(listed)
        there = next((path for path in files if path.exists()), None)
        if there is not None:
            raise DataError(f"{there} is there already; name another folder or use --overwrite")
