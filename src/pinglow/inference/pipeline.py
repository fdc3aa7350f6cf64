"""Predict a list of files: read, find, write; a broken frame is noted and the job goes on.

Reading ahead, the network and writing overlap, each in a thread of its own.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError, OptionError
from pinglow.inference.batches import fill_batches
from pinglow.inference.predictor import Predictor
from pinglow.io.frames import count_pages, open_frames
from pinglow.io.video import is_video, probe_video, read_video
from pinglow.output.sinks import FrameRecord, Sink, printable
from pinglow.structures import Clip, Detections, Prediction, Target

_LONGEST_VIDEO: Final = 1e8  # seconds, three years
_LONGEST: Final = 200  # bytes of an output name; file systems take 255, and sinks add to it
_AHEAD: Final = 4  # frames read ahead, and results waiting to be written
_LARGE: Final = 2**24  # bytes; of frames beyond that, one at a time
_STILLS: Final = 25.0  # frames a second that are assumed where there are no times
_Found = Prediction | Detections


@dataclass(frozen=True)
class Selection:
    """Which frames of a video, a multi-page file or a folder are taken.

    Attributes:
        every: Each ``every``-th, from the first; of single images, of those in one folder.
        start: Seconds from the start of a video.
        end: The same; None: to its end.

    Raises:
        OptionError: A value is impossible.
    """

    every: int = 1
    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.every < 1:
            raise OptionError(f"every is {self.every}; use 1 or more")
        if not 0 <= self.start < _LONGEST_VIDEO:
            raise OptionError(f"start is {self.start}; use 0 seconds or more")
        if self.end is not None and not self.end > self.start:
            raise OptionError(f"end is {self.end}; use more than start, which is {self.start}")


@dataclass(frozen=True)
class JobSummary:
    """What a job did.

    Attributes:
        frames: Frames predicted; every page of a multi-page file counts.
        targets: Targets found in them.
        tracks: Tracks that they were linked to; None without a tracker.
        broken: File and reason of each frame that could not be read or predicted.
        holed: Frames with NaN or infinite pixels, which were taken as the median.
        seconds: Wall time, reading and writing included.
    """

    frames: int
    targets: int
    tracks: int | None
    broken: tuple[tuple[Path, str], ...]
    holed: int
    seconds: float


class Tracker(Protocol):
    """Links the targets of one sequence over time."""

    def update(self, targets: Sequence[Target]) -> tuple[int | None, ...]:
        """Number the track of each target of the next frame, from 1; None: of none yet."""


@dataclass(frozen=True, eq=False)
class _Input:
    """A frame as read, or why it could not be."""

    source: Path
    page: int
    name: str
    sequence: Path
    rate: float
    content: NDArray[Any] | FrameError
    time: float | None = None
    clip: Clip | None = None


def predict_frames(
    predict: Callable[[NDArray[Any]], _Found],
    sources: Sequence[Path],
    sinks: Sequence[Sink],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    selection: Selection | None = None,
    make_tracker: Callable[[float], Tracker] | None = None,
    done: frozenset[str] = frozenset(),
    on_file: Callable[[Path], None] = lambda source: None,
) -> JobSummary:
    """Predict every frame of every file and hand the results to the sinks, in order.

    Args:
        predict: Maps (H, W) counts to what is found in them; a `Predictor` maps several at once.
        sources: Images, multi-page files and videos, in the order in which they are predicted.
        sinks: Where results go; the caller opens and closes them. They are written to in a
            thread of their own.
        on_progress: Called after each frame with the number done, broken ones too, and the total,
            which is an estimate where a video does not say how long it is.
        selection: Which frames of videos and multi-page files; None: all.
        make_tracker: Makes a tracker for frames at a rate, in frames a second. Each video, each
            multi-page file and the frames of one folder are a sequence; None: no tracks.
        done: Files to pass over, as `printable` names them; names of output files are what they
            would be without.
        on_file: Called with each file all of whose frames have been written, in the sinks' thread.

    Raises:
        OptionError: The selection is by time and a source has no times.
        MissingExtraError: There is a video, and no library to read it.
    """
    begin = time.perf_counter()
    selection = selection or Selection()
    sequences = _list_sequences(sources, selection)
    left = [sequence for sequence in sequences if printable(sequence.source) not in done]
    total = sum(sequence.frames for sequence in left)
    predicted = targets = holed = count = 0
    whole = True  # the file that is being read, so far
    write = _Writer(sinks, on_file)
    broken: list[tuple[Path, str]] = []
    linker = None if make_tracker is None else _Linker(make_tracker)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        waiting: deque[Future[None]] = deque()
        names = {sequence.name.casefold() for sequence in sequences}
        inputs = _read_ahead(reader, _read_all(left, selection, names))
        for item in _predict_all(predict, inputs):
            if isinstance(item, _Sequence):  # its end
                if whole:
                    waiting.append(writer.submit(write, item.source))
                whole = True
                continue
            given, found = item
            count += 1
            frame = given.content
            if isinstance(frame, FrameError) or isinstance(found, FrameError):
                whole = False
                reason = str(found)
                known = str(given.source) in reason
                if linker:
                    linker.link(given, ())  # time goes on
                broken.append((given.source, reason if known else f"{given.source}: {reason}"))
            else:
                record = FrameRecord(
                    source=given.source,
                    page=given.page,
                    name=given.name,
                    frame=frame,
                    prediction=found,
                    time=given.time,
                    clip=given.clip,
                    tracks=linker.link(given, found.targets) if linker else None,
                )
                waiting.append(writer.submit(write, record))
                while len(waiting) > (_AHEAD if frame.nbytes < _LARGE else 0):
                    waiting.popleft().result()
                predicted += 1
                targets += len(found.targets)
                holed += not np.isfinite(frame).all()
            on_progress(count, max(count, total))
        for future in waiting:
            future.result()
    tracks = linker.tracks if linker else None
    seconds = time.perf_counter() - begin
    return JobSummary(predicted, targets, tracks, tuple(broken), holed, seconds)


def _predict_all(
    predict: Callable[[NDArray[Any]], _Found], inputs: Iterable[_Input | _Sequence]
) -> Iterator[_Sequence | tuple[_Input, _Found | FrameError]]:
    """The same inputs, frames with what is found in them, or why nothing is."""
    together = predict if isinstance(predict, Predictor) else None

    def size_of(given: _Input | _Sequence) -> int:
        if together is None or isinstance(given, _Sequence):
            return 0  # waits for nothing
        return together.input_pixels(given.content)

    for batch in fill_batches(inputs, size_of, together.batch_pixels if together else 0):
        contents = [given.content for given in batch if isinstance(given, _Input)]
        found = _find(predict, [each for each in contents if not isinstance(each, FrameError)])
        for given in batch:
            if isinstance(given, _Sequence):
                yield given
            else:
                content = given.content
                yield given, content if isinstance(content, FrameError) else next(found)


def _find(
    predict: Callable[[NDArray[Any]], _Found], frames: Sequence[NDArray[Any]]
) -> Iterator[_Found | FrameError]:
    """What is found in each frame, or why nothing is."""
    if isinstance(predict, Predictor):
        for each in predict.probabilities(frames):
            yield each if isinstance(each, FrameError) else Prediction(each, predict.threshold)
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
        self._sequence: Path | None = None

    def link(self, given: _Input, targets: Sequence[Target]) -> tuple[int | None, ...]:
        if given.sequence != self._sequence:
            self._sequence = given.sequence
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

    So that no file counts as done of which something could not be written.
    """

    def __init__(self, sinks: Sequence[Sink], on_file: Callable[[Path], None]) -> None:
        self._sinks, self._on_file = sinks, on_file
        self._failed = False

    def __call__(self, item: FrameRecord | Path) -> None:
        """Write a frame, or end a file."""
        if self._failed:
            return
        try:
            if isinstance(item, Path):
                self._on_file(item)
            else:
                for sink in self._sinks:
                    sink.write(item)
        except BaseException:
            self._failed = True
            raise


def _read_ahead(
    reader: ThreadPoolExecutor, inputs: Iterator[_Input | _Sequence]
) -> Iterator[_Input | _Sequence]:
    """The same inputs, some of them read before they are asked for."""
    waiting = deque([reader.submit(next, inputs, None)])
    while waiting:
        given = waiting.popleft().result()
        if given is None:
            return
        content = None if isinstance(given, _Sequence) else given.content
        large = isinstance(content, np.ndarray) and content.nbytes >= _LARGE
        while len(waiting) < (1 if large else _AHEAD):
            waiting.append(reader.submit(next, inputs, None))
        yield given


# --- what there is to read -------------------------------------------------------------------


@dataclass(frozen=True)
class _Sequence:
    """A file with one or more frames; ``frames`` of them are expected to be taken."""

    source: Path
    name: str
    pages: int
    frames: int
    rate: float | None
    """Frames a second of a video; None: not a video."""


def _list_sequences(sources: Sequence[Path], selection: Selection) -> list[_Sequence]:
    """Look at every file's header; a name is the file's stem, where stems collide folder_stem.

    Should it still be taken, -2, -3, ... is added. Names are compared without case, because a
    file system may not tell case apart.
    """
    stems = Counter(source.stem.casefold() for source in sources)
    timed = selection.start > 0 or selection.end is not None
    taken: set[str] = set()
    singles: Counter[Path] = Counter()
    sequences = []
    for source in sources:
        stem = source.stem
        if stems[stem.casefold()] > 1:
            stem = f"{source.resolve().parent.name}_{stem}".lstrip("_")
        stem = stem.encode("utf-8", "backslashreplace")[:_LONGEST].decode(errors="ignore")
        name = _free_name(stem, taken)
        taken.add(name.casefold())
        pages, rate, frames = 1, None, 1
        try:
            if is_video(source):
                info = probe_video(source)
                rate, pages = info.rate, info.frames or 1
                seconds = pages / rate
                span = min(seconds, selection.end or seconds) - min(seconds, selection.start)
                frames = round(span * rate / selection.every)
            elif timed:
                raise OptionError(
                    f"start and end are seconds of a video, and {source} has no times: leave "
                    "them out, or name videos only"
                )
            else:
                pages = count_pages(source)
                frames = -(-pages // selection.every) if pages > 1 else 1
        except FrameError:
            rate = 1.0 if is_video(source) else None  # reading it will say why
        if rate is None and pages == 1:
            singles[source.parent] += 1
            if (singles[source.parent] - 1) % selection.every:
                continue
        sequences.append(_Sequence(source, name, pages, frames, rate))
    return sequences


def _free_name(wanted: str, taken: set[str]) -> str:
    numbered = (f"{wanted}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([wanted], numbered) if n.casefold() not in taken)


def _read_all(
    sequences: Sequence[_Sequence], selection: Selection, taken: set[str]
) -> Iterator[_Input | _Sequence]:
    """The frames of each sequence, then the sequence, which says that it is at its end."""
    for sequence in sequences:
        if sequence.rate is None:
            yield from _read_pages(sequence, selection, taken)
        else:
            yield from _read_clip(sequence, sequence.rate, selection, taken)
        yield sequence


def _read_pages(sequence: _Sequence, selection: Selection, taken: set[str]) -> Iterator[_Input]:
    source, single = sequence.source, sequence.pages == 1
    digits = len(str(sequence.pages - 1))
    home, rate = source.parent if single else source, _STILLS / selection.every
    content: NDArray[Any] | FrameError
    try:
        with open_frames(source) as read:
            for page in range(0, sequence.pages, selection.every):
                name = sequence.name
                if not single:
                    name = _free_name(f"{name}_p{page:0{digits}}", taken)
                try:
                    content = read(page)
                except FrameError as error:
                    content = error
                yield _Input(source, page, name, home, rate, content)
    except FrameError as error:
        yield _Input(source, 0, sequence.name, home, rate, error)


def _read_clip(
    sequence: _Sequence, rate: float, selection: Selection, taken: set[str]
) -> Iterator[_Input]:
    source, page = sequence.source, 0
    clip = Clip(sequence.name, rate / selection.every)
    digits = max(4, len(str(sequence.pages - 1)))
    given = selection.every, selection.start, selection.end
    try:
        for frame in read_video(source, *given):
            page = frame.index
            name = _free_name(f"{sequence.name}_f{page:0{digits}}", taken)
            yield _Input(source, page, name, source, clip.rate, frame.counts, frame.time, clip)
    except FrameError as error:
        yield _Input(source, page, sequence.name, source, clip.rate, error)
