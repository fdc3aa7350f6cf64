"""What there is to read in a job: which frames, in which order, and what their files are called."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

import numpy as np

from pinglow.errors import FrameError, OptionError
from pinglow.inference.ignored import Ignored
from pinglow.io.source import Selection, Source, SourceFrame
from pinglow.structures import Clip

AHEAD: Final = 4
"""Frames read ahead, and results waiting to be written."""

LARGE: Final = 2**24
"""Bytes; of frames beyond that, one at a time."""

_LONGEST: Final = 200  # bytes of an output name; file systems take 255, and sinks add to it
STILLS: Final = 25.0
"""Frames a second that a tracker is told where there are no times."""


@dataclass(frozen=True)
class Entry:
    """A source of a job.

    Attributes:
        source: Where frames are read.
        name: What its output files are called, unique within the job.
        frames: How many are expected to be taken.
    """

    source: Source
    name: str
    frames: int


@dataclass(frozen=True, eq=False)
class Input:
    """A frame as read, and what its output files are called."""

    source: Source
    name: str
    frame: SourceFrame
    rate: float
    clip: Clip | None = None


@dataclass(frozen=True)
class End:
    """After the last frame of a source; whole: all of them were read and predicted."""

    source: str
    whole: bool = True


def read_ahead(reader: ThreadPoolExecutor, inputs: Iterator[Input | End]) -> Iterator[Input | End]:
    """The same inputs, some of them read before they are asked for."""
    waiting = deque([reader.submit(next, inputs, None)])
    while waiting:
        given = waiting.popleft().result()
        if given is None:
            return
        content = None if isinstance(given, End) else given.frame.counts
        large = isinstance(content, np.ndarray) and content.nbytes >= LARGE
        live = isinstance(given, Input) and given.source.frames is None
        while not live and len(waiting) < (1 if large else AHEAD):
            waiting.append(reader.submit(next, inputs, None))
        yield given
        if not waiting:  # of a camera, what is new when it is asked for
            waiting.append(reader.submit(next, inputs, None))


def list_entries(sources: Sequence[Source], selection: Selection) -> list[Entry]:
    """The sources of which a frame is taken, and what their output files are called.

    Their stem, where stems collide folder_stem. Should it still be taken, -2, -3, ... is added.
    Names are compared without case, because a file system may not tell case apart.
    """
    stems = Counter(source.stem.casefold() for source in sources)
    taken: set[str] = set()
    singles: Counter[str] = Counter()
    entries = []
    for source in sources:
        if selection.by_time and source.rate is None:
            raise OptionError(
                f"start and end are seconds of a video, and {source.name} has no times: leave "
                "them out, or name videos only"
            )
        stem = source.stem
        if stems[stem.casefold()] > 1:
            stem = f"{source.home}_{stem}".lstrip("_")
        name = _free_name(_shorten(stem), taken)
        taken.add(name.casefold())
        if source.sequence != source.name:  # a single image
            singles[source.sequence] += 1
            if (singles[source.sequence] - 1) % selection.every:
                continue
        entries.append(Entry(source, name, source.expect(selection) or 0))
    return entries


def output_name(source: str) -> str:
    """What the output files of a frame are called that is alone in its job."""
    return _shorten(PurePath(source).stem)


def _shorten(stem: str) -> str:
    return stem.encode("utf-8", "backslashreplace")[:_LONGEST].decode(errors="ignore")


def _free_name(wanted: str, taken: set[str]) -> str:
    numbered = (f"{wanted}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([wanted], numbered) if n.casefold() not in taken)


def read_all(
    entries: Sequence[Entry], selection: Selection, taken: set[str], ignore: Ignored | None
) -> Iterator[Input | End]:
    """The frames of each source, then its end.

    Where what is ignored does not fit a source's frame, that ends the source.

    Raises:
        OptionError: It fits no frame of any source.
    """
    fits = ignore is None
    refused: str | None = None  # why the first one is
    for entry in entries:
        source = entry.source
        for frame in source.select(selection):
            rate = (source.rate or STILLS) / selection.every  # a camera tells it when it is open
            clip = None if source.rate is None else Clip(entry.name, rate)
            label = frame.label
            name = _free_name(f"{entry.name}{label}", taken) if label else entry.name
            wrong = _misfit(frame, ignore)
            if wrong is None:
                fits |= not isinstance(frame.counts, FrameError)
                yield Input(source, name, frame, rate, clip)
                continue
            refused = refused or f"{source.name}: {wrong}"
            yield Input(source, name, SourceFrame(frame.index, wrong), rate, clip)
            break  # and so are its others
        yield End(source.name)
    if refused and not fits:
        raise OptionError(refused)


def _misfit(frame: SourceFrame, ignore: Ignored | None) -> FrameError | None:
    """Why what is ignored does not fit a frame."""
    if ignore is None or isinstance(frame.counts, FrameError):
        return None
    try:
        ignore.area(frame.counts.shape)
    except FrameError as error:
        return error
    return None
