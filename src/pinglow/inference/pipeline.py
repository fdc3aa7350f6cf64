"""The one engine of every job: read, find, write; a broken frame is noted, and the job goes on.

Reading ahead, the network and writing overlap, each in a thread of its own.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError, OptionError
from pinglow.inference.batches import fill_batches
from pinglow.inference.ignored import Ignored
from pinglow.inference.predictor import Predictor
from pinglow.io.source import Selection, Source, SourceFrame
from pinglow.output.job_log import JobLog
from pinglow.output.sink import FrameRecord, Sink
from pinglow.structures import Clip, Detections, Prediction, Target

_LONGEST: Final = 200  # bytes of an output name; file systems take 255, and sinks add to it
_AHEAD: Final = 4  # frames read ahead, and results waiting to be written
_LARGE: Final = 2**24  # bytes; of frames beyond that, one at a time
STILLS: Final = 25.0
"""Frames a second that a tracker is told where there are no times."""

_Found = Prediction | Detections


@dataclass(frozen=True)
class JobSummary:
    """What a job did.

    Attributes:
        frames: Frames predicted; every page of a multi-page file counts.
        targets: Targets found in them.
        tracks: Tracks that they were linked to; None without a tracker.
        broken: Source and reason of each frame that could not be read or predicted.
        holed: Frames with NaN or infinite pixels, which were taken as the median.
        seconds: Wall time, reading and writing included.
    """

    frames: int
    targets: int
    tracks: int | None
    broken: tuple[tuple[str, str], ...]
    holed: int
    seconds: float


class Tracker(Protocol):
    """Links the targets of one sequence over time."""

    def update(self, targets: Sequence[Target]) -> tuple[int | None, ...]:
        """Number the track of each target of the next frame, from 1; None: of none yet."""


@dataclass(frozen=True)
class _Entry:
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
class _Input:
    """A frame as read, and what its output files are called."""

    source: Source
    name: str
    frame: SourceFrame
    rate: float
    clip: Clip | None = None


@dataclass(frozen=True)
class _End:
    """After the last frame of a source; whole: all of them were read and predicted."""

    source: str
    whole: bool = True


def run(
    sources: Sequence[Source],
    predictor: Callable[[NDArray[Any]], _Found],
    sinks: Sequence[Sink],
    *,
    resume: JobLog | None = None,
    selection: Selection | None = None,
    make_tracker: Callable[[float], Tracker] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> JobSummary:
    """Predict every frame of every source and hand the results to the sinks, in order.

    Args:
        sources: Images, multi-page files and videos, in the order in which they are predicted.
        predictor: Maps (H, W) counts to what is found in them; a `Predictor` maps several at once.
        sinks: Where results go; the caller opens and closes them. They are written to in a
            thread of their own.
        resume: The log of the job: sources that it is done with are passed over, and those that
            become so are noted. Names of output files are what they would be without; None:
            nothing is passed over or noted.
        selection: Which frames are taken; None: all.
        make_tracker: Makes a tracker for frames at a rate, in frames a second. Each video, each
            multi-page file and the frames of one folder are a sequence; None: no tracks.
        on_progress: Called after each frame with the number done, broken ones too, and the total,
            which is an estimate where a video does not say how long it is.

    Raises:
        OptionError: The selection is by time and a source has no times; or what the predictor
            ignores does not fit the first frame.
    """
    begin = time.perf_counter()
    selection = selection or Selection()
    entries = _list_entries(sources, selection)
    left = [entry for entry in entries if resume is None or entry.source.name not in resume.done]
    names = {entry.name.casefold() for entry in entries}
    tally = _Tally(sum(entry.frames for entry in left), on_progress)
    ignore: Ignored | None = getattr(predictor, "ignore", None)  # a plain function has none
    write = _Writer(sinks if resume is None else [resume, *sinks])
    linker = None if make_tracker is None else _Linker(make_tracker)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        waiting: deque[Future[None]] = deque()
        inputs = _read_ahead(reader, _read_all(left, selection, names, ignore))
        whole = True  # the source that is being read, so far
        for item in _predict_all(predictor, inputs):
            if isinstance(item, _End):
                waiting.append(writer.submit(write, _End(item.source, whole)))
                whole = True
                continue
            given, found = item
            # Where a frame is broken, time goes on all the same.
            targets = () if isinstance(found, FrameError) else found.targets
            tracks = linker.link(given, targets) if linker else None
            whole &= not isinstance(found, FrameError)
            if not isinstance(found, FrameError):
                record = _record(given, found, tracks, ignore)
                waiting.append(writer.submit(write, record))
                while len(waiting) > (_AHEAD if record.frame.nbytes < _LARGE else 0):
                    waiting.popleft().result()
            tally.count(given, found)
        for future in waiting:
            future.result()
    return tally.sum_up(linker.tracks if linker else None, time.perf_counter() - begin)


class _Tally:
    """Counts what a job has done."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None]) -> None:
        self._total, self._on_progress = total, on_progress
        self._predicted = self._targets = self._holed = 0
        self._broken: list[tuple[str, str]] = []

    def count(self, given: _Input, found: _Found | FrameError) -> None:
        """One frame more."""
        frame = given.frame.counts
        if isinstance(found, FrameError) or isinstance(frame, FrameError):
            name, reason = given.source.name, str(found)
            self._broken.append((name, reason if name in reason else f"{name}: {reason}"))
        else:
            self._predicted += 1
            self._targets += len(found.targets)
            self._holed += not np.isfinite(frame).all()
        done = self._predicted + len(self._broken)
        self._on_progress(done, max(done, self._total))

    def sum_up(self, tracks: int | None, seconds: float) -> JobSummary:
        """At the end."""
        counts = self._predicted, self._targets, tracks
        return JobSummary(*counts, tuple(self._broken), self._holed, seconds)


def _record(
    given: _Input,
    found: _Found,
    tracks: tuple[int | None, ...] | None,
    ignore: Ignored | None,
) -> FrameRecord:
    assert not isinstance(given.frame.counts, FrameError)
    return FrameRecord(
        source=given.source.name,
        page=given.frame.index,
        name=given.name,
        frame=given.frame.counts,
        prediction=found,
        time=given.frame.time,
        clip=given.clip,
        tracks=tracks,
        ignored=None if ignore is None else ignore.area(given.frame.counts.shape),
    )


def _predict_all(
    predict: Callable[[NDArray[Any]], _Found], inputs: Iterable[_Input | _End]
) -> Iterator[_End | tuple[_Input, _Found | FrameError]]:
    """The same inputs, frames with what is found in them, or why nothing is."""
    together = predict if isinstance(predict, Predictor) else None

    def size_of(given: _Input | _End) -> int:
        if together is None or isinstance(given, _End):
            return 0  # waits for nothing
        return together.input_pixels(given.frame.counts)

    for batch in fill_batches(inputs, size_of, together.batch_pixels if together else 0):
        contents = [given.frame.counts for given in batch if isinstance(given, _Input)]
        found = _find(predict, [each for each in contents if not isinstance(each, FrameError)])
        for given in batch:
            if isinstance(given, _End):
                yield given
            else:
                content = given.frame.counts
                yield given, content if isinstance(content, FrameError) else next(found)


def _find(
    predict: Callable[[NDArray[Any]], _Found], frames: Sequence[NDArray[Any]]
) -> Iterator[_Found | FrameError]:
    """What is found in each frame, or why nothing is."""
    if isinstance(predict, Predictor):
        for each in predict.probabilities(frames):
            yield each if isinstance(each, FrameError) else predict.decide(each)
        return
    for frame in frames:
        try:
            found: _Found | FrameError = predict(frame)
        except FrameError as error:  # without what led to it, which may hold a card's memory
            found = FrameError(str(error))
        yield found


class _Linker:
    """A tracker per sequence; the numbers of tracks go on through all of them."""

    def __init__(self, make_tracker: Callable[[float], Tracker]) -> None:
        self.tracks = 0
        self._make = make_tracker
        self._sequence: str | None = None

    def link(self, given: _Input, targets: Sequence[Target]) -> tuple[int | None, ...]:
        if given.source.sequence != self._sequence:
            self._sequence = given.source.sequence
            self._tracker = self._make(given.rate)
            self._before = self.tracks
        numbers = [
            None if number is None else self._before + number
            for number in self._tracker.update(targets)
        ]
        self.tracks = max([self.tracks, *(number for number in numbers if number is not None)])
        return tuple(numbers)


class _Writer:
    """Hands records to the sinks, in a thread of its own; after a failure it does nothing more.

    So that no source counts as done of which something could not be written.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._failed = False

    def __call__(self, item: FrameRecord | _End) -> None:
        """Write a frame, or end a source."""
        if self._failed:
            return
        try:
            if isinstance(item, FrameRecord):
                for sink in self._sinks:
                    sink.write(item)
            else:
                for sink in reversed(self._sinks):  # the log last: then all else is whole
                    sink.end_source(item.source, item.whole)
        except BaseException:
            self._failed = True
            raise


def _read_ahead(
    reader: ThreadPoolExecutor, inputs: Iterator[_Input | _End]
) -> Iterator[_Input | _End]:
    """The same inputs, some of them read before they are asked for."""
    waiting = deque([reader.submit(next, inputs, None)])
    while waiting:
        given = waiting.popleft().result()
        if given is None:
            return
        content = None if isinstance(given, _End) else given.frame.counts
        large = isinstance(content, np.ndarray) and content.nbytes >= _LARGE
        while len(waiting) < (1 if large else _AHEAD):
            waiting.append(reader.submit(next, inputs, None))
        yield given


# --- what there is to read -------------------------------------------------------------------


def _list_entries(sources: Sequence[Source], selection: Selection) -> list[_Entry]:
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
        stem = stem.encode("utf-8", "backslashreplace")[:_LONGEST].decode(errors="ignore")
        name = _free_name(stem, taken)
        taken.add(name.casefold())
        if source.sequence != source.name:  # a single image
            singles[source.sequence] += 1
            if (singles[source.sequence] - 1) % selection.every:
                continue
        entries.append(_Entry(source, name, source.expect(selection) or 0))
    return entries


def _free_name(wanted: str, taken: set[str]) -> str:
    numbered = (f"{wanted}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([wanted], numbered) if n.casefold() not in taken)


def _read_all(
    entries: Sequence[_Entry], selection: Selection, taken: set[str], ignore: Ignored | None
) -> Iterator[_Input | _End]:
    """The frames of each source, then its end.

    Where what is ignored does not fit a source's frames, that ends the source, or with the first
    frame the job.
    """
    fits = ignore is None
    for entry in entries:
        source = entry.source
        rate = (source.rate or STILLS) / selection.every
        clip = None if source.rate is None else Clip(entry.name, rate)
        for frame in source.select(selection):
            label = frame.label
            name = _free_name(f"{entry.name}{label}", taken) if label else entry.name
            wrong = _misfit(frame, ignore)
            if wrong is None:
                fits |= not isinstance(frame.counts, FrameError)
                yield _Input(source, name, frame, rate, clip)
                continue
            if not fits:
                raise OptionError(f"{source.name}: {wrong}")
            yield _Input(source, name, SourceFrame(frame.index, wrong), rate, clip)
            break  # and so are its others
        yield _End(source.name)


def _misfit(frame: SourceFrame, ignore: Ignored | None) -> FrameError | None:
    """Why what is ignored does not fit a frame."""
    if ignore is None or isinstance(frame.counts, FrameError):
        return None
    try:
        ignore.area(frame.counts.shape)
    except FrameError as error:
        return error
    return None
