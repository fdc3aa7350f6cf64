"""Training and validation frames, cut from the same lists."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.data.digests import digest_frame
from pinglow.data.duplicates import group_near_duplicates
from pinglow.data.folder import FrameFolder, name_folders
from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError, FrameError
from pinglow.training.recipe import DataSet, Recipe

_logger = logging.getLogger("pinglow")


@dataclass(frozen=True)
class Cut:
    """One data set's frames for training and for validation.

    Attributes:
        name: The folder's, told apart where two are equal.
        dataset: Its entry in the recipe.
        frames: Those of its list.
        training: Which of ``frames`` are trained on.
        validation_frames: ``frames`` again, or those of the data set's own list for validation.
        validation: Which of ``validation_frames`` validate.
        training_digests: Of the frames to train on, see `digest_frame`.
        validation_digests: Of those that validate.
    """

    name: str
    dataset: DataSet
    frames: FrameFolder
    training: list[int]
    validation_frames: FrameFolder
    validation: list[int]
    training_digests: tuple[str, ...] = ()
    validation_digests: tuple[str, ...] = ()


def open_frames(folder: Path, dataset: DataSet) -> FrameFolder:
    """The frames and masks of one list."""
    return FrameFolder(folder, dataset.split)


def cut_validation(
    recipe: Recipe, open_list: Callable[[Path, Any], FrameFolder] = open_frames
) -> list[Cut]:
    """Cut validation frames from every training list, whole near-duplicate groups at a time.

    Groups are drawn by ``data.validation_seed``, else the recipe's seed, until the share is
    reached, so the cut depends only on the frames and the recipe, and no near-copy of a validation
    frame that `group_near_duplicates` finds in its list is trained on. A data set with a list for
    validation is not cut.

    Args:
        recipe: The lists, the share and the seed.
        open_list: Opens a list, given its folder and its entry in the recipe.

    Raises:
        DataError: A folder, list, image or mask is missing, a frame is in two of the lists, or
            all frames of a list are near-duplicates of each other; or images, masks or labels
            are broken, each of which is named.
    """
    lists: list[tuple[FrameFolder, FrameFolder | None]] = []
    for dataset in recipe.data.sets:
        folder, other = open_data(recipe.data.place(dataset)), dataset.validation_split
        if not folder.is_dir():
            raise DataError(
                f"{folder} is not a folder: name what to train on with --data, or where the "
                "recipe's folders are with --set data.root=DIR"
            )
        validating = dataset.model_copy(update={"split": other})
        lists.append((open_list(folder, dataset), open_list(folder, validating) if other else None))
    _refuse_shared_frames([frames for pair in lists for frames in pair if frames is not None])
    seed = recipe.data.validation_seed
    seed = recipe.seed if seed is None else seed
    all_groups, all_digests = _group_frames(lists)
    names = name_folders(frames.folder for frames, _ in lists)
    cuts: list[Cut] = []
    for name, dataset, (frames, own), groups, digests in zip(
        names, recipe.data.sets, lists, all_groups, all_digests, strict=True
    ):
        share = dataset.validation or recipe.data.validation
        training, validation = (
            _cut(frames, groups, share, seed)
            if own is None
            else (list(range(len(frames))), list(range(len(own))))
        )
        cuts.append(
            Cut(
                name,
                dataset,
                frames,
                training,
                own or frames,
                validation,
                tuple(digests[index] for index in training),
                # Those of the list for validation lie behind the others.
                tuple(digests[index + (len(frames) if own else 0)] for index in validation),
            )
        )
    return cuts


def _group_frames(
    lists: list[tuple[FrameFolder, FrameFolder | None]],
) -> tuple[list[NDArray[np.int64]], list[list[str]]]:
    """Near-duplicate groups of each list that is to be cut, and digests of all frames.

    Every file is read on the way.

    Raises:
        DataError: Files are broken: said now, not in the middle of training.
    """
    broken: list[str] = []
    digests: list[list[str]] = []
    with_target = 0

    def read(frames: FrameFolder) -> Iterator[NDArray[Any]]:
        nonlocal with_target
        for index in range(len(frames)):
            try:
                frame, mask = frames.pair(index)
            except (DataError, FrameError) as error:
                broken.append(str(error))
            else:
                with_target += bool(mask.any())
                digests[-1].append(digest_frame(frame))
                yield frame

    groups = []
    for frames, own in lists:
        digests.append([])
        if own is None:
            groups.append(group_near_duplicates(read(frames)))
        else:
            deque(itertools.chain(read(frames), read(own)), maxlen=0)  # to see whether it can be
            groups.append(np.zeros(0, dtype=np.int64))
    if broken:
        raise DataError("\n".join(broken))
    if not with_target:
        places = ", ".join(sorted({str(frames.folder) for frames, _ in lists}))
        _logger.warning(
            f"no frame of {places} has a target: look at the masks, where targets are bright"
        )
    return groups, digests


def _cut(
    frames: FrameFolder, groups: NDArray[np.int64], share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Frames to train on and frames to validate with."""
    validation = _draw_groups(groups, share, seed)
    if not validation:
        raise DataError(
            f"list {frames.split!r} of {frames.folder} has only near-duplicates of one frame, so "
            "no validation frames can be cut from it; add frames of another scene, or name a list "
            "for validation"
        )
    return sorted(set(range(len(frames))) - set(validation)), validation


def _draw_groups(groups: NDArray[np.int64], share: float, seed: int) -> list[int]:
    """Whole groups at random up to a share of the frames; empty if there is one group only."""
    members = [
        [int(index) for index in np.flatnonzero(groups == group)]
        for group in range(groups.max() + 1)
    ]
    if len(members) == 1:
        return []
    wanted = min(max(1, round(share * len(groups))), len(groups) - 1)
    drawn: list[int] = []
    for group in np.random.default_rng(seed).permutation(len(members)):
        if len(drawn) + len(members[group]) <= wanted:
            drawn += members[group]
    smallest = min(members, key=len)
    return sorted(drawn or smallest)


def _refuse_shared_frames(parts: list[FrameFolder]) -> None:
    seen: dict[tuple[Path, str], str] = {}
    for number, frames in enumerate(parts, start=1):
        here = f"{number} ({frames.split!r})"
        for name in frames.names:
            there = seen.setdefault((frames.folder.resolve(), name), here)
            if there != here:
                raise DataError(
                    f"frame {name!r} of {frames.folder} is in data sets {there} and {here}, so it "
                    "could be trained on and validated with; take it out of one list"
                )
