"""The one engine of every job: read, find, write; a broken frame is noted, and the job goes on.

Reading ahead, the network and writing overlap, each in a thread of its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.inference.batches import fill_batches
from pinglow.inference.ignored import Ignored
from pinglow.inference.inputs import (
    AHEAD,
    LARGE,
    End,
    Input,
    list_entries,
    read_ahead,
    read_all,
)
from pinglow.inference.predictor import Predictor
from pinglow.io.source import Selection, Source
from pinglow.output.job_log import JobLog
from pinglow.output.sink import FrameRecord, Sink
from pinglow.structures import Detections, Prediction

_Found = Prediction | Detections
_NOTHING: Final = Detections(np.empty((0, 4)), np.empty(0))


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

    def update(
        self, prediction: _Found, frame: NDArray[Any] | None = None
    ) -> tuple[int | None, ...]:
        """Number the track of each target of the next frame, from 1; None: of none yet.

        Args:
            prediction: What was found in it.
            frame: (H, W) counts; None: it could not be read.
        """


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
            ignores fits no frame.
    """
    begin = time.perf_counter()
    selection = selection or Selection()
    entries = list_entries(sources, selection)
    left = [entry for entry in entries if resume is None or entry.source.name not in resume.done]
    names = {entry.name.casefold() for entry in entries}
    tally = _Tally(sum(entry.frames for entry in left), on_progress)
    ignore: Ignored | None = getattr(predictor, "ignore", None)  # a plain function has none
    write = _Writer(sinks if resume is None else [resume, *sinks])
    linker = None if make_tracker is None else _Linker(make_tracker)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer, ExitStack() as stack:
        for source in sources:
            stack.callback(source.close)  # whatever happens, the reader waits for no camera
        waiting: deque[Future[None]] = deque()
        inputs = read_ahead(reader, read_all(left, selection, names, ignore))
        whole = True  # the source that is being read, so far
        for item in _predict_all(predictor, inputs):
            if isinstance(item, End):
                waiting.append(writer.submit(write, End(item.source, whole)))
                whole = True
                continue
            given, found = item
            # Where a frame is broken, time goes on all the same.
            tracks = linker.link(given, found) if linker else None
            whole &= not isinstance(found, FrameError)
            if not isinstance(found, FrameError):
                record = _record(given, found, tracks, ignore)
                written = writer.submit(write, record)
                written.add_done_callback(partial(_answer, given))
                waiting.append(written)
                most = 1 if given.source.frames is None else AHEAD
                most = most if record.frame.nbytes < LARGE else 0
                while waiting and (len(waiting) > most or waiting[0].done()):
                    waiting.popleft().result()
            tally.count(given, found)
        for future in waiting:
            future.result()
    return tally.sum_up(linker.tracks if linker else None, time.perf_counter() - begin)


def _answer(given: Input, written: Future[None]) -> None:
    given.source.answered(given.frame.index)


class _Tally:
    """Counts what a job has done."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None]) -> None:
        self._total, self._on_progress = total, on_progress
        self._predicted = self._targets = self._holed = 0
        self._broken: list[tuple[str, str]] = []

    def count(self, given: Input, found: _Found | FrameError) -> None:
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
    given: Input,
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
    predict: Callable[[NDArray[Any]], _Found], inputs: Iterable[Input | End]
) -> Iterator[End | tuple[Input, _Found | FrameError]]:
    """The same inputs, frames with what is found in them, or why nothing is."""
    together = predict if isinstance(predict, Predictor) else None

    def size_of(given: Input | End) -> int:
        if together is None or isinstance(given, End):
            return 0  # waits for nothing
        if given.source.frames is None:
            return together.batch_pixels  # neither does a camera's frame
        return together.input_pixels(given.frame.counts)

    for batch in fill_batches(inputs, size_of, together.batch_pixels if together else 0):
        contents = [given.frame.counts for given in batch if isinstance(given, Input)]
        found = find_each(predict, [each for each in contents if not isinstance(each, FrameError)])
        for given in batch:
            if isinstance(given, End):
                yield given
            else:
                content = given.frame.counts
                yield given, content if isinstance(content, FrameError) else next(found)


def find_each(
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

    def link(self, given: Input, found: _Found | FrameError) -> tuple[int | None, ...]:
        if given.source.sequence != self._sequence:
            self._sequence = given.source.sequence
            self._tracker = self._make(given.rate)
            self._before = self.tracks
        frame = given.frame.counts
        if isinstance(found, FrameError) or isinstance(frame, FrameError):
            tracks = self._tracker.update(_NOTHING)
        else:
            tracks = self._tracker.update(found, frame)
        numbers = [None if number is None else self._before + number for number in tracks]
        self.tracks = max([self.tracks, *(number for number in numbers if number is not None)])
        return tuple(numbers)


class _Writer:
    """Hands records to the sinks, in a thread of its own; after a failure it does nothing more.

    So that no source counts as done of which something could not be written.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._failed = False

    def __call__(self, item: FrameRecord | End) -> None:
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
