"""Units of work and their keys: an image, a clip, a slice of a long clip, or a tar of frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath
from typing import Final

from pinglow.archive.frames import ClipFile
from pinglow.archive.listing import Found
from pinglow.data.pack.reader import work_through
from pinglow.errors import FrameError, MissingExtraError
from pinglow.io.places import PlaceError
from pinglow.io.video import probe_video

SLICE: Final = 2000
"""Frames of a slice of a long clip."""

_LONG: Final = 2**23  # bytes; smaller clips are not opened to be sliced
_SLICED: Final = (".mp4", ".m4v", ".mov", ".mkv", ".webm")  # FFmpeg finds a time in these at once
_PROBED: Final = 8  # clips at a time


@dataclass(frozen=True, slots=True)
class Unit:
    """What is done at a time, and done again if it is not finished.

    Attributes:
        uri: The file's absolute path, or its address.
        mark: Its etag, or its size and time of change.
        first: Its first frame that belongs to the unit.
        last: The frame after the last one; None: to the end.
        size: Bytes of the file; None: it is not known.
    """

    uri: str
    mark: str
    first: int = 0
    last: int | None = None
    size: int | None = None


def key_of(unit: Unit, model_digest: str, options: str) -> str:
    """The key of a unit's results: SHA-256 in hex of all that they depend on.

    Args:
        unit: Its address, mark and frames count.
        model_digest: SHA-256 of the model's file.
        options: All else that changes results, as `Settings.options` has it.
    """
    words = [unit.uri, unit.mark, unit.first, unit.last, model_digest, options]
    text = json.dumps(words, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def make_units(files: Iterable[Found]) -> Iterator[Unit]:
    """The units of files, in their order; long clips are opened to learn how long they are."""
    for is_long, alike in groupby(files, _is_long):
        if is_long:
            for slices in work_through(_slice, alike, _PROBED):
                yield from slices
        else:
            yield from map(_whole, alike)


def _is_long(file: Found) -> bool:
    """Whether a file may be a long clip that can be sliced."""
    return (file.size or 0) >= _LONG and PurePath(file.uri).suffix.lower() in _SLICED


def _whole(file: Found) -> Unit:
    return Unit(file.uri, file.mark, size=file.size)


def _slice(file: Found) -> list[Unit]:
    try:
        frames = probe_video(ClipFile(file.uri, file.mark)).frames
    except (FrameError, MissingExtraError, PlaceError):  # reading it says why
        return [_whole(file)]
    # The number of frames may be an estimate: the last slice has the rest, whatever it is.
    starts = range(0, max(1, (frames or 1) - SLICE // 2), SLICE)
    return [
        Unit(file.uri, file.mark, start, end, file.size)
        for start, end in zip(starts, [*starts[1:], None], strict=True)
    ]
