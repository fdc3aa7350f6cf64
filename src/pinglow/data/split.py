"""Write lists for training, validation and test, with frames that are alike in one of them."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.data.audit import find_image_files
from pinglow.data.duplicates import group_near_duplicates, join_groups
from pinglow.data.folder import find_mask, frame_path, import_hint, read_image
from pinglow.data.windows import find_overlaps
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.files import write_whole
from pinglow.io.frames import strip_suffix

_ALIKE: Final = 0.2  # of the neighbors in a row of numbers, that make it a clip
_LAST_NUMBER: Final = re.compile(r"(\d+)(?=\D*$)")


@dataclass
class Split:
    """The lists that were written.

    Attributes:
        lists: Names of each list: train, and val and test where they were asked for.
        groups: Number of groups of alike frames in each list.
        largest: Frames in the largest group.
        found: Groups of two or more, by what found them: near-duplicates, windows.
        clips: Rows of numbered frames that were kept together.
        numbered: Rows of numbered frames, ten or more in each.
        unlabeled: Frames without a mask or label, which are in no list.
        broken: Frame to why it cannot be read.
    """

    lists: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    largest: int = 0
    found: dict[str, int] = field(default_factory=dict)
    clips: int = 0
    numbered: int = 0
    unlabeled: int = 0
    broken: dict[str, str] = field(default_factory=dict)


def split_folder(
    folder: Path,
    *,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    clips: bool = True,
    overwrite: bool = False,
    on_frame: Callable[[], object] = lambda: None,
) -> Split:
    """Write train.txt, val.txt and test.txt of a data folder; no group of alike frames is in two.

    Groups are drawn in an order that the seed gives; one that would make a list larger than its
    share is trained on. Other lists of the folder stay.

    Args:
        folder: A data folder.
        val: Share of the frames for validation; 0: no such list.
        test: Share of the frames for the test; 0: no such list.
        seed: Same seed and frames, same lists.
        clips: Keep a row of numbered frames together if a fifth of its neighbors are alike.
        overwrite: Replace lists that are there.
        on_frame: Called for each frame each time that it is read or compared.

    Raises:
        DataError: The folder is a pack, has no frames or one of these lists, or its frames are too
            much alike to be split so.
        OptionError: The shares leave nothing to train on.
    """
    shares = {name: share for name, share in (("test", test), ("val", val)) if share}
    if sum(shares.values()) >= 1:
        raise OptionError(f"--val {val:g} and --test {test:g} leave no frame to train on")
    if folder.is_file():
        raise DataError(f"{folder} is a pack, whose lists stay as they are: unpack it first")
    taken = [name for name in ("train", *shares) if (folder / f"{name}.txt").exists()]
    if taken and not overwrite:
        raise DataError(
            f"{folder / taken[0]}.txt is there already: use --overwrite to replace it, or move it"
        )
    done = Split()
    frames = _Frames(folder, done, on_frame)
    if not frames.names:
        raise DataError(
            f"{folder} has no frame with a mask or label that can be read"
            + (import_hint(folder) or ": add masks/")
        )
    groups = _group(frames, done, clips, on_frame)
    _draw(frames.names, groups, shares, seed, done)
    for title, names in done.lists.items():
        write_whole(folder / f"{title}.txt", "".join(f"{name}\n" for name in names).encode())
    return done


class _Frames:
    """The labeled frames of a folder, in the order of their names."""

    def __init__(self, folder: Path, done: Split, on_frame: Callable[[], object]) -> None:
        names: dict[str, Path] = {}
        for path in find_image_files(folder):
            name = strip_suffix(path.relative_to(folder / "images").as_posix())
            names.setdefault(name, frame_path(folder, name) or path)
        labeled = {name: path for name, path in names.items() if _has_label(folder, name)}
        done.unlabeled = len(names) - len(labeled)
        self._paths, self._done, self._on_frame = labeled, done, on_frame
        self.sides: list[int] = []
        self.names = sorted(labeled, key=_natural)

    def read(self) -> Iterator[NDArray[Any]]:
        """Each frame that can be read; the others leave the names."""
        self.sides = []
        for name in list(self.names):
            self._on_frame()
            try:
                frame = read_image(self._paths[name])
            except FrameError as error:
                self._done.broken[name] = str(error)
                self.names.remove(name)
                continue
            self.sides.append(max(frame.shape))
            yield frame


def _has_label(folder: Path, name: str) -> bool:
    if (folder / "masks").is_dir():
        return find_mask(folder, name) is not None
    if (folder / "boxes").is_dir():
        return (folder / "boxes" / f"{name}.xml").exists()
    # YOLO's and COCO's may be absent of a frame without targets, but not of all.
    return any((folder / name).exists() for name in ("labels", "annotations", "annotations.json"))


def _group(
    frames: _Frames, done: Split, clips: bool, on_frame: Callable[[], object]
) -> NDArray[np.int64]:
    """Number of the group of each frame."""
    groups = group_near_duplicates(frames.read())
    done.found["near-duplicates"] = _count_several(groups)
    pairs = list(find_overlaps(frames.read(), float(np.median(frames.sides)), on_frame))
    windows = _join(np.arange(len(groups)), pairs)
    done.found["windows"] = _count_several(windows)
    groups = _join(groups, pairs)
    for row in _numbered_rows(frames.names):
        done.numbered += 1
        alike = np.mean([groups[a] == groups[b] for a, b in itertools.pairwise(row)])
        if clips and alike >= _ALIKE:
            done.clips += 1
            groups = _join(groups, list(itertools.pairwise(row)))
    return groups


def _join(groups: NDArray[np.int64], pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
    if not pairs:
        return groups
    first, second = np.array(pairs, dtype=np.int64).T
    return join_groups(groups, first, second)


def _numbered_rows(names: list[str]) -> list[list[int]]:
    """Places of names that differ in their last number alone, in its order, ten or more."""
    rows: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for place, name in enumerate(names):
        match = _LAST_NUMBER.search(name)
        if match:
            key = name[: match.start()], name[match.end() :]
            rows[key].append((int(match[1]), place))
    return [[place for _, place in sorted(row)] for row in rows.values() if len(row) >= 10]


def _draw(
    names: list[str],
    groups: NDArray[np.int64],
    shares: dict[str, float],
    seed: int,
    done: Split,
) -> None:
    """Give each group to a list."""
    members: dict[int, list[str]] = defaultdict(list)
    for name, group in zip(names, groups.tolist(), strict=True):
        members[group].append(name)
    order = list(members.values())
    np.random.default_rng(seed).shuffle(order)
    room = {title: max(round(share * len(names)), 1) for title, share in shares.items()}
    lists: dict[str, list[list[str]]] = {title: [] for title in ("train", "val", "test")}
    for group in order:
        title = next((name for name, left in room.items() if len(group) <= left), "train")
        if title != "train":
            room[title] -= len(group)
        lists[title].append(group)
    done.largest = max(len(group) for group in order)
    for title in ("train", *shares):
        if not lists[title]:
            raise DataError(
                f"the {len(names)} frames fall into {len(order)} groups of alike frames, the "
                f"largest of {done.largest}, which leaves none for {title}.txt: add frames of "
                "other scenes, or change --val, --test, or --seed"
                + (", or try --no-clips" if done.clips else "")
            )
    for title in ("train", *reversed(shares)):
        done.lists[title] = sorted((n for group in lists[title] for n in group), key=_natural)
        done.groups[title] = len(lists[title])


def _count_several(groups: NDArray[np.int64]) -> int:
    return int((np.unique(groups, return_counts=True)[1] > 1).sum())


def _natural(name: str) -> list[str | int]:
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]
