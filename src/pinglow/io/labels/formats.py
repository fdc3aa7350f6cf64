"""The formats that labels are imported from: one table, and how that of a folder is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pinglow.errors import DataError, OptionError
from pinglow.io.labels.coco import read_coco_marks
from pinglow.io.labels.cvat import read_cvat
from pinglow.io.labels.fiftyone import read_fiftyone
from pinglow.io.labels.label_studio import read_label_studio
from pinglow.io.labels.labelme import read_labelme
from pinglow.io.labels.marks import LabeledFrame
from pinglow.io.labels.text import decode_start
from pinglow.io.labels.voc import read_voc_marks
from pinglow.io.labels.yolo import read_yolo_marks
from pinglow.io.readers import frame_suffixes


@dataclass(frozen=True)
class LabelFormat:
    """One format of labels.

    Attributes:
        title: What it is called.
        suffix: Of its files.
        begins: What the first of a file's text has to match, by which it is told.
        read: From a file to its frames; raises DataError.
        whole: Whether one file holds many frames.
        absent_is_empty: Whether an image without a label is one without targets.
    """

    title: str
    suffix: str
    begins: re.Pattern[str]
    read: Callable[[Path], Iterator[LabeledFrame]]
    whole: bool = False
    absent_is_empty: bool = False


def _has(*keys: str) -> re.Pattern[str]:
    """Text of a JSON table that has all these keys, each the start of a pattern."""
    return re.compile(r"\s*\{" + "".join(rf"(?=.*{key})" for key in keys), re.DOTALL)


_NUMBER = r"-?[0-9.]+(?:[eE][-+]?[0-9]+)?"

FORMATS: Final = {
    "labelme": LabelFormat("labelme", ".json", _has(r'"shapes"\s*:\s*\['), read_labelme),
    "cvat": LabelFormat(
        "CVAT for images",
        ".xml",
        re.compile(r"\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)*<annotations[\s>]", re.DOTALL),
        read_cvat,
        whole=True,
    ),
    "coco": LabelFormat(
        "COCO",
        ".json",
        _has(r'"(images|annotations)"\s*:\s*\[', r'"(file_name|image_id)"\s*:'),
        read_coco_marks,
        whole=True,
    ),
    "labelstudio": LabelFormat(
        "Label Studio",
        ".json",
        re.compile(r'\s*\[\s*\{(?=.*"(annotations|data|predictions)"\s*:)', re.DOTALL),
        read_label_studio,
        whole=True,
    ),
    "fiftyone": LabelFormat(
        "FiftyOne", ".json", _has(r'"samples"\s*:\s*\['), read_fiftyone, whole=True
    ),
    "voc": LabelFormat(
        "Pascal VOC",
        ".xml",
        re.compile(r"\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)*<annotation[\s>]", re.DOTALL),
        read_voc_marks,
    ),
    "yolo": LabelFormat(
        "YOLO",
        ".txt",
        re.compile(rf"\s*[0-9]+([ \t]+{_NUMBER}){{4,}}[ \t]*(\r?\n|$)"),
        read_yolo_marks,
        absent_is_empty=True,
    ),
}
"""What is imported, by the name that ``--format`` takes."""

_START: Final = 2**20  # bytes that are looked at
_MOST_LOOKS: Final = 50  # files of a suffix that are looked at to tell a folder's format


def name_format(path: Path) -> str | None:
    """The format of a file by its first text, or None."""
    text = decode_start(path, _START)
    for name, each in FORMATS.items():
        if path.suffix.lower() == each.suffix and each.begins.match(text):
            return name
    return None


def find_format(source: Path) -> str | None:
    """The format of the labels in a folder and its subfolders, or of a file; None: there are none.

    Raises:
        DataError: There are labels of several formats.
    """
    if source.is_file():
        return name_format(source)
    found: dict[str, Path] = {}
    for suffix in sorted({each.suffix for each in FORMATS.values()}):
        for path in _list_files(source, suffix)[:_MOST_LOOKS]:
            name = name_format(path)
            if name is not None:
                found.setdefault(name, path)
    if len(found) > 1:
        which = ", ".join(f"{name} ({path.name})" for name, path in found.items())
        raise DataError(f"{source} holds labels of several formats: {which}; choose with --format")
    return next(iter(found), None)


def find_label_files(source: Path, name: str) -> list[Path]:
    """The files of labels of a format in a folder and its subfolders, sorted.

    Of a format with a file a frame, a file that cannot be told is taken if an image has its name
    or if it is empty: it may be cut short.

    Raises:
        OptionError: There is no such format.
        DataError: There is no such file.
    """
    if name not in FORMATS:
        raise OptionError(f"--format {name} is unknown: choose from {', '.join(FORMATS)}")
    form = FORMATS[name]
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source} does not exist: check the path")
    paths = _list_files(source, form.suffix)
    if form.absent_is_empty:  # a file without targets is empty
        folders = {path.parent for path in paths if name_format(path) == name}
        return [path for path in paths if path.parent in folders and path.stem != "classes"]
    files = [path for path in paths if name_format(path) == name or _may_be_cut(path, form)]
    if not files:
        raise DataError(f"{source} holds no labels of {form.title} ({form.suffix} files)")
    return files


def _may_be_cut(path: Path, form: LabelFormat) -> bool:
    if form.whole:
        return False
    if not path.stat().st_size:
        return True
    return any(path.with_suffix(suffix).is_file() for suffix in frame_suffixes())


def _list_files(folder: Path, suffix: str) -> list[Path]:
    found = folder.rglob(f"*{suffix}")
    return sorted(path for path in found if not path.name.startswith(".") and path.is_file())
