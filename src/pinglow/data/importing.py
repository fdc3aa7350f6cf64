"""Make a data folder from labels of another tool."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.data.contact import write_contact_sheet
from pinglow.data.cores import POLARITIES, grow_core
from pinglow.data.derived import write_derived
from pinglow.data.folder import read_image
from pinglow.data.images import ImageIndex, common_folder
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.files import write_whole
from pinglow.io.frames import strip_suffix
from pinglow.io.labels.boxes import fit_box, stack_boxes
from pinglow.io.labels.formats import FORMATS, find_format, find_label_files
from pinglow.io.labels.marks import Box, LabeledFrame, Mark, Point, Region
from pinglow.io.labels.voc import write_voc
from pinglow.structures import BoolArray, find_targets

_LISTS: Final = ("train", "trainval", "val", "valid", "validation", "test")
_ALL: Final = "all"


@dataclass
class Import:
    """What an import did.

    Attributes:
        format: A name in `pinglow.io.labels.formats.FORMATS`.
        frames: Frames in the new folder.
        targets: Targets in them.
        names: Number of labels taken of each name.
        left: Number of labels of other names, where only some were asked for.
        derived: What each derived mask was derived from, by its frame's name.
        empty: Frames without a target.
        unlabeled: Images that no label is of.
        lists: Frames in each list.
        pages: Contact sheets.
        broken: Reason for each frame or label file that was left out.
    """

    format: str
    frames: int = 0
    targets: int = 0
    names: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    derived: dict[str, str] = field(default_factory=dict)
    empty: int = 0
    unlabeled: int = 0
    lists: dict[str, int] = field(default_factory=dict)
    pages: list[Path] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def import_labels(
    source: Path,
    out: Path,
    *,
    form: str | None = None,
    images: Path | None = None,
    only: Collection[str] = (),
    polarity: str = "auto",
    keep_boxes: bool = False,
    keep_unlabeled: bool = False,
    on_frame: Callable[[int], object] = lambda total: None,
) -> Import:
    """Write a data folder: images/ as they are, masks/ or boxes/, lists, and a contact sheet.

    Polygons and masks become the pixels they hold (`pinglow.io.labels.marks`), boxes and points the
    core that is grown inside (`pinglow.data.cores`), which derived.json notes. A frame with a label
    that is wrong is left out, and the job goes on.

    Args:
        source: A folder or a file of labels.
        out: Folder to write, new or empty.
        form: A name in `FORMATS`; None: what the files say.
        images: Folder with the images; None: the source, or the folder of the file.
        only: Take labels of these names; none: of all.
        polarity: One of `pinglow.data.cores.POLARITIES`.
        keep_boxes: Write boxes/ in place of masks/: nothing is derived.
        keep_unlabeled: Take images without a label as free of targets.
        on_frame: Called with the number of frames before each.

    Raises:
        DataError: There are no labels or images, or no frame can be used, or ``out`` is in use.
        OptionError: There is no such format, polarity or name of labels.
    """
    if polarity not in POLARITIES:
        raise OptionError(f"--polarity {polarity} is unknown: choose from {', '.join(POLARITIES)}")
    form = _check_places(source, out, form)
    done = Import(form)
    index = ImageIndex(images or (source if source.is_dir() else source.parent))
    found, spoiled = _match(find_label_files(source, form), form, index, done)
    if not found:
        raise DataError(
            done.broken[0] if done.broken else f"{source} has no label of an image: check --images"
        )
    base = common_folder(found)
    bare = [
        path
        for path in index.paths
        if path.is_relative_to(base) and path not in found and path not in spoiled
    ]
    if FORMATS[form].absent_is_empty or keep_unlabeled:
        blank = LabeledFrame("", source, lambda shape: [])
        found.update(dict.fromkeys(bare, (blank, _ALL)))
    else:
        done.unlabeled = len(bare)
    with _whole_folder(out) as work:
        writer = _Writer(work, base, done, set(only), polarity, keep_boxes)
        for path, (labeled, title) in found.items():
            on_frame(len(found))
            try:
                writer.add(path, labeled, title)
            except (FrameError, DataError) as error:
                done.broken.append(str(error))
        if not done.frames:
            raise DataError(f"no frame could be imported; the first: {done.broken[0]}")
        unknown = sorted(set(only) - set(done.names))
        if unknown:
            known = ", ".join(sorted({*done.names, *done.left})) or "none"
            raise OptionError(f"--only {unknown[0]}: no label is called so; there are {known}")
        writer.close()
    done.pages = [out / page.relative_to(work) for page in done.pages]
    return done


def _check_places(source: Path, out: Path, form: str | None) -> str:
    """The format of the labels, after a look at where they are and go."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is in use: name a new folder for --out")
    if not source.exists():
        raise DataError(f"{source} does not exist: check the path")
    form = form or find_format(source)
    if form is None:
        titles = ", ".join(each.title for each in FORMATS.values())
        raise DataError(f"{source} holds no labels of {titles}: name their folder or file")
    return form


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside the one that is to be written, which takes its place at the end."""
    work = out.absolute().with_name(f".{out.name}.part")
    shutil.rmtree(work, ignore_errors=True)  # of a job that was killed
    try:
        work.mkdir(parents=True)
        yield work
        if out.exists():
            out.rmdir()
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


_Found = dict[Path, tuple[LabeledFrame, str]]


def _match(
    files: list[Path], form: str, index: ImageIndex, done: Import
) -> tuple[_Found, set[Path]]:
    """Each image with a label, that label and the name of the list that it belongs to.

    And the images whose label may be in a file that is broken: they are not free of targets.
    """
    found: _Found = {}
    spoiled: set[Path] = set()
    for file in files:
        title = file.stem.removeprefix("instances_") if len(files) > 1 else _ALL
        title = title if FORMATS[form].whole else _ALL
        try:
            for labeled in FORMATS[form].read(file):
                try:
                    _take(labeled, title, index, found)
                except DataError as error:
                    done.broken.append(str(error))
                    spoiled.update(_image_beside(file, form, index))
        except DataError as error:
            done.broken.append(str(error))
            whole = FORMATS[form].whole
            spoiled.update(index.paths if whole else _image_beside(file, form, index))
    return found, spoiled


def _image_beside(file: Path, form: str, index: ImageIndex) -> list[Path]:
    """The image that a file of one frame's labels is called as."""
    if FORMATS[form].whole:
        return []
    with suppress(DataError):
        return [index.find(file.stem, file)]
    return []


def _take(labeled: LabeledFrame, title: str, index: ImageIndex, found: _Found) -> None:
    path = index.find(labeled.file_name, labeled.source)
    if labeled.marks is None:
        return
    if path in found:
        other = found[path][0].source
        raise DataError(f"{labeled.source}: {path} has a label in {other}, too: take one out")
    found[path] = labeled, title


class _Writer:
    """Writes frames into a data folder."""

    def __init__(
        self, out: Path, base: Path, done: Import, only: set[str], polarity: str, keep_boxes: bool
    ) -> None:
        self._out, self._base, self._done = out, base, done
        self._only, self._polarity, self._keep_boxes = only, polarity, keep_boxes
        self._lists: dict[str, list[str]] = {}
        self._cells: list[tuple[str, Path, tuple[int, int, int, int]]] = []
        self._taken: set[str] = set()

    def add(self, path: Path, labeled: LabeledFrame, title: str) -> None:
        """Write the image, mask or boxes of a frame.

        Raises:
            DataError, FrameError: The frame or a label is wrong; nothing was written.
        """
        place = path.relative_to(self._base)
        name = strip_suffix(place.as_posix())
        if name in self._taken:
            raise DataError(f"{path} has the name of another image without its suffix: rename one")
        if path.suffix.lower() == ".hdr":
            raise DataError(f"{path} is one of two files of ENVI: save the frame as TIFF or PNG")
        frame = read_image(path)
        assert labeled.marks is not None
        marks = labeled.marks(frame.shape)
        kept = [mark for mark in marks if not self._only or mark.name in self._only]
        if self._keep_boxes:
            boxes = stack_boxes(_outer_box(mark, frame.shape) for mark in kept)
            write_voc(self._out / "boxes" / f"{name}.xml", boxes, frame.shape, place.name)
            targets = len(boxes)
        else:
            mask, sources = self._draw(kept, frame)
            drawn = find_targets(mask)
            targets = len(drawn)
            _write_png(self._out / "masks" / f"{name}.png", mask)
            if sources:
                self._done.derived[name] = " and ".join(sorted(sources))
            self._cells += [(name, path, target.bbox) for target in drawn]
        write_whole(self._out / "images" / place, path.read_bytes(), durable=False)
        self._taken.add(name)
        self._done.names.update(mark.name for mark in kept)
        self._done.left.update(mark.name for mark in marks if mark not in kept)
        self._done.frames += 1
        self._done.targets += targets
        self._done.empty += not targets
        first = place.parts[0].lower() if len(place.parts) > 1 else ""
        if title == _ALL and first in _LISTS:
            title = place.parts[0]
        self._lists.setdefault(title, []).append(name)

    def close(self) -> None:
        """Write the lists, derived.json and the contact sheets."""
        for title, names in self._lists.items():
            write_whole(self._out / f"{title}.txt", "".join(f"{name}\n" for name in names).encode())
        self._done.lists = {title: len(names) for title, names in self._lists.items()}
        if self._done.derived:
            write_derived(self._out, self._done.derived)
        if self._cells:
            self._done.pages = write_contact_sheet(self._out, self._cells, self._done.derived)

    def _draw(self, marks: list[Mark], frame: NDArray[Any]) -> tuple[BoolArray, set[str]]:
        """(H, W) bool of all marks, and what those that were derived were."""
        mask = np.zeros(frame.shape, dtype=np.bool_)
        sources = set()
        for mark in marks:
            form = mark.form
            if isinstance(form, Box):
                box = fit_box(
                    (form.left, form.top, form.width, form.height), mask.shape, mark.place
                )
                form = Box(*box)
            if not isinstance(form, Region):
                sources.add("boxes" if isinstance(form, Box) else "points")
                form = grow_core(frame, form, self._polarity, mark.place)
            height, width = form.pixels.shape
            mask[form.top : form.top + height, form.left : form.left + width] |= form.pixels
        return mask, sources


def _outer_box(mark: Mark, shape: tuple[int, ...]) -> tuple[float, ...]:
    form = mark.form
    if isinstance(form, Point):
        raise DataError(f"{mark.place} is a point, which has no box: import without --keep-boxes")
    if isinstance(form, Region):
        height, width = form.pixels.shape
        return form.left, form.top, width, height
    return fit_box((form.left, form.top, form.width, form.height), shape, mark.place)


def _write_png(path: Path, mask: BoolArray) -> None:
    content = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(content, "PNG")
    write_whole(path, content.getvalue(), durable=False)
