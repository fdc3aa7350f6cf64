"""Look through a data folder for what spoils training or a score: what is missing, what leaks."""

from __future__ import annotations

import glob
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.data.derived import read_derived
from pinglow.data.duplicates import group_near_duplicates
from pinglow.data.folder import (
    find_mask,
    fit_mask,
    frame_path,
    import_hint,
    list_splits,
    read_image,
    read_mask,
    read_split,
)
from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError, FrameError
from pinglow.io.frames import find_frames, strip_suffix
from pinglow.masks import READINGS
from pinglow.structures import TARGET_SIZES, BoolArray, find_targets

# Words of lists' names.
_TESTS: Final = frozenset({"test", "holdout"})
_VALIDATES: Final = frozenset({"val", "valid", "validation", "eval", "dev"})


@dataclass
class Audit:
    """What is in a data folder. Names are frame names as in lists, without a suffix, sorted.

    Attributes:
        folder: The folder.
        images: Number of frames in images/ and its subfolders.
        targets: Number of targets in all masks.
        target_sizes: Number of targets per class of ``TARGET_SIZES``.
        frame_sizes: Number of frames per size, "WIDTHxHEIGHT", most frequent first.
        pixel_types: Number of frames per type: uint8, uint16, float32.
        counts: Smallest and largest finite pixel of all frames, or None without frames.
        broken: Image, mask or list that cannot be used, or never is, to the reason.
        missing_masks: Frames without a mask file.
        mismatched_masks: Frame to "image 10x20, mask 5x10"; what does not fit even when it is
            brought to the frame's size is broken, too.
        non_binary_masks: Frames whose mask has soft edges.
        special_masks: What is meant by a mask's values, where it is not plain, to its frames.
        unclear_masks: Frame to why its mask cannot be read: it covers most of the frame, or some
            of its values may mean pixels to leave out.
        derived_masks: What was derived, "boxes" or "points", to the frames whose masks were.
        target_free: Frames whose mask is empty.
        splits: Number of names per list.
        missing_images: List to its names that have no image, where there are any.
        unlisted: Frames in no list; empty without lists.
        shared_names: "a & b" to the number of names in both lists; legal for train and trainval.
        leaks: "a & b" to the names in a and in the list b that is to check it, by their names: a
            test list, or for a training list the validation list of its number.
        duplicates: Groups of frames with equal pixels.
        near_duplicates: Groups of near-duplicates, equal ones included.
        duplicates_across: "a & b" to the frames only in b that equal a frame only in a.
        near_duplicates_across: The same for near-duplicates.
    """

    folder: str
    images: int = 0
    targets: int = 0
    target_sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TARGET_SIZES, 0))
    frame_sizes: dict[str, int] = field(default_factory=dict)
    pixel_types: dict[str, int] = field(default_factory=dict)
    counts: tuple[float, float] | None = None
    broken: dict[str, str] = field(default_factory=dict)
    missing_masks: list[str] = field(default_factory=list)
    mismatched_masks: dict[str, str] = field(default_factory=dict)
    non_binary_masks: list[str] = field(default_factory=list)
    special_masks: dict[str, list[str]] = field(default_factory=dict)
    unclear_masks: dict[str, str] = field(default_factory=dict)
    derived_masks: dict[str, list[str]] = field(default_factory=dict)
    target_free: list[str] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    missing_images: dict[str, list[str]] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)
    shared_names: dict[str, int] = field(default_factory=dict)
    leaks: dict[str, list[str]] = field(default_factory=dict)
    duplicates: list[list[str]] = field(default_factory=list)
    near_duplicates: list[list[str]] = field(default_factory=list)
    duplicates_across: dict[str, list[str]] = field(default_factory=dict)
    near_duplicates_across: dict[str, list[str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)


def audit_folder(folder: Path, on_frame: Callable[[], object] = lambda: None) -> Audit:
    """Read every image, mask and list of a data folder once.

    A broken file is listed and does not stop the audit.

    Args:
        folder: Holds images/ and usually masks/ and lists, as ``pinglow.data.folder`` knows.
        on_frame: Called once for each image file, to show progress.

    Raises:
        DataError: The folder, or its images/, is missing or has no image.
    """
    audit = Audit(str(folder))
    folder = open_data(folder)
    paths: dict[str, Path] = {}
    for path in find_image_files(folder):
        name = strip_suffix(path.relative_to(folder / "images").as_posix())
        paths[name] = frame_path(folder, name) or path
        if paths[name] != path:
            audit.broken[str(path)] = f"{path} is never read: {paths[name]} has its name; rename it"
            on_frame()
    audit.images = len(paths)
    for name, source in sorted(read_derived(folder).items()):
        if name in paths:
            audit.derived_masks.setdefault(source, []).append(name)
    hashes: dict[str, str] = {}
    groups = group_near_duplicates(_inspect_frames(audit, folder, paths, hashes, on_frame))
    audit.frame_sizes = dict(Counter(audit.frame_sizes).most_common())

    equal = _gather(hashes)
    near = _gather(dict(zip(hashes, groups.tolist(), strict=True)))
    # Featureless frames have no detail to compare, yet they may be equal.
    audit.duplicates, audit.near_duplicates = equal, _merge(equal + near)
    _compare_lists(audit, folder, set(paths))
    return audit


def find_image_files(folder: Path) -> list[Path]:
    """Every frame in the folder's images/ and its subfolders.

    Raises:
        DataError: There is no such folder, or no frame in it.
    """
    folder = open_data(folder)
    list_splits(folder)  # says so if there is no such folder
    if not (folder / "images").is_dir():
        raise DataError(
            f"{folder} has no folder images/"
            + (import_hint(folder) or ": name a folder that holds images/, masks/")
        )
    try:
        return find_frames([f"{glob.escape(str(folder / 'images'))}/**/*"])
    except DataError:
        raise DataError(f"{folder}/images holds no frames, nor do its subfolders") from None


def _inspect_frames(
    audit: Audit,
    folder: Path,
    paths: dict[str, Path],
    hashes: dict[str, str],
    on_frame: Callable[[], object],
) -> Iterator[NDArray[Any]]:
    """Read each frame and its mask, note what is seen, and pass the frame on."""
    for name, path in sorted(paths.items()):
        on_frame()
        mask = _inspect_mask(audit, folder, name)
        try:
            frame = read_image(path)
        except FrameError as error:
            audit.broken[str(path)] = str(error)
            continue
        size, pixel_type = _size(frame), str(frame.dtype)
        audit.frame_sizes[size] = audit.frame_sizes.get(size, 0) + 1
        audit.pixel_types[pixel_type] = audit.pixel_types.get(pixel_type, 0) + 1
        finite = frame[np.isfinite(frame)]
        low, high = audit.counts or (np.inf, -np.inf)
        audit.counts = (min(low, float(finite.min())), max(high, float(finite.max())))
        if mask is not None and mask[1].shape != frame.shape:
            audit.mismatched_masks[name] = f"image {size}, mask {_size(mask[1])}"
            try:
                fit_mask(*mask, frame.shape)
            except DataError as error:
                audit.broken[str(mask[0])] = str(error)
        content = f"{frame.shape}{frame.dtype}".encode() + frame.tobytes()
        hashes[name] = hashlib.sha256(content).hexdigest()
        yield frame


def _inspect_mask(audit: Audit, folder: Path, name: str) -> tuple[Path, BoolArray] | None:
    """Read a frame's mask, if there is one, and note what is seen."""
    path = find_mask(folder, name)
    if path is None:
        audit.missing_masks.append(name)
        return None
    try:
        target_pixels, kind, _ = read_mask(path)
    except FrameError as error:
        audit.broken[str(path)] = str(error)
        return None
    except DataError as error:
        audit.unclear_masks[name] = str(error)
        return None
    if kind == "soft":
        audit.non_binary_masks.append(name)
    elif kind in READINGS:
        audit.special_masks.setdefault(READINGS[kind], []).append(name)
    targets = find_targets(target_pixels)
    if not targets:
        audit.target_free.append(name)
    audit.targets += len(targets)
    for target in targets:
        audit.target_sizes[_size_bin(target.area)] += 1
    return path, target_pixels


def _is_leak(first: str, second: str) -> bool:
    """Whether the second list, by its name, is there to check what is made with the first.

    A test list checks all but test lists, a validation list the training list of its number.
    """
    if _words(first) == {"all"}:  # of which the others are parts
        return False
    if _checks(second) == 2:
        return _checks(first) < 2
    same_fold = re.findall(r"\d+", first) == re.findall(r"\d+", second)
    trains = "train" in _words(first) and not _words(first) & _VALIDATES  # not train_val
    return _checks(second) == 1 and trains and same_fold


def _checks(split: str) -> int:
    """What a list is for, by the words of its name: 2 tests, 1 validates, 0 anything else."""
    words = _words(split)
    if words & _TESTS:
        return 2
    return int("train" not in words and bool(words & _VALIDATES))


def _words(split: str) -> set[str]:
    return set(re.findall("[a-z]+", split.lower()))


def _compare_lists(audit: Audit, folder: Path, images: set[str]) -> None:
    """Hold the lists against the images, against each other, and against the duplicates."""
    lists: dict[str, set[str]] = {}
    for split, path in list_splits(folder).items():
        try:
            lists[split] = set(read_split(folder, split))
        except DataError as error:
            audit.broken[str(path)] = str(error)
    audit.splits = {split: len(names) for split, names in lists.items()}
    absent = {split: sorted(names - images) for split, names in lists.items()}
    audit.missing_images = {split: names for split, names in absent.items() if names}
    if lists:
        audit.unlisted = sorted(images.difference(*lists.values()))
    for first, second in combinations(lists, 2):
        first, second = sorted((first, second), key=_checks)
        pair = f"{first} & {second}"
        shared = lists[first] & lists[second]
        if shared:
            audit.shared_names[pair] = len(shared)
            if _is_leak(first, second):
                audit.leaks[pair] = sorted(shared)
        left, right = lists[first] - shared, lists[second] - shared
        for groups, across in (
            (audit.duplicates, audit.duplicates_across),
            (audit.near_duplicates, audit.near_duplicates_across),
        ):
            mixed = [set(group) for group in groups if left.intersection(group)]
            found = sorted(set().union(*mixed) & right)
            if found:
                across[pair] = found


def _gather(labels: dict[str, Any]) -> list[list[str]]:
    """Names that share a label, two or more, each group sorted."""
    groups = defaultdict(list)
    for name, label in labels.items():
        groups[label].append(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _merge(groups: list[list[str]]) -> list[list[str]]:
    """Join groups that share a name."""
    joined: list[set[str]] = []
    for group in groups:
        touching = [other for other in joined if other.intersection(group)]
        joined = [other for other in joined if not other.intersection(group)]
        joined.append(set(group).union(*touching))
    return sorted(sorted(group) for group in joined)


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _size_bin(area: int) -> str:
    """Label of the class that an area falls into."""
    return max((least, label) for label, least in TARGET_SIZES.items() if least <= area)[1]
