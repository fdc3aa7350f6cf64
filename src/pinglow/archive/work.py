"""The one function of every runner: units in, parts written, outcomes out.

Fetching, reading, the network and writing overlap. In a process there are never more than a few
units and frames at a time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pinglow.archive.frames import UnitFrame, is_still, load, name_of, read_frames
from pinglow.archive.parts import Rows, remove_broken, write_part
from pinglow.archive.place import Place
from pinglow.archive.plans import Keyed
from pinglow.archive.units import Unit
from pinglow.errors import FrameError, MissingExtraError
from pinglow.inference.inputs import LARGE
from pinglow.inference.pipeline import find_each
from pinglow.inference.predictor import Predictor
from pinglow.io.places import PlaceError
from pinglow.process import trim_memory

if TYPE_CHECKING:
    from pinglow.inference.boxes import BoxPredictor

READERS: Final = 8
"""Threads that fetch and read units."""

UNITS: Final = 16
"""Units that are fetched, predicted or written at a time."""

_WRITERS: Final = 4  # threads; each waits until the disk has its part
_WAITING: Final = 2**26  # bytes of frames that wait for the network, a larger one alone
_LEAST: Final = 2**21  # bytes that a frame counts as at least, so that there are 32 at most
_TRIMMED: Final = 10_000  # frames after which memory is given back
_TOLD: Final = 20  # broken frames of a unit that its outcome tells of


@dataclass(frozen=True)
class Outcome:
    """What came of a unit.

    Attributes:
        key: Of its results.
        source: Its file, as tables name it.
        frames: Frames predicted.
        targets: Targets found in them.
        broken: Frames that could not be read or predicted; the part tells why.
        reasons: Why, for the first of them.
        failure: Why there is no part, in a sentence: a later run tries again. None: there is one.
        unreachable: Whether it failed by the network or the store, as others may.
    """

    key: str
    source: str
    frames: int = 0
    targets: int = 0
    broken: int = 0
    reasons: tuple[str, ...] = ()
    failure: str | None = None
    unreachable: bool = False


@dataclass(eq=False)
class _Job:
    """A unit that is being worked on."""

    key: str
    unit: Unit
    rows: Rows

    def outcome(self) -> Outcome:
        rows = self.rows
        reasons = tuple(
            reason if source in reason else f"{source}: {reason}"
            for source, reason in rows.broken[:_TOLD]
        )
        name = name_of(self.unit.uri)
        return Outcome(self.key, name, rows.frames, rows.targets, len(rows.broken), reasons)

    def fail(self, reason: str, unreachable: bool = False) -> Outcome:
        name = name_of(self.unit.uri)
        return Outcome(self.key, name, failure=reason, unreachable=unreachable)


_Event = tuple[_Job, UnitFrame] | _Job | Outcome | int | BaseException
"""A frame, the end of a unit, what came of one, how many were given in all, or what went wrong."""


def work_on(
    units: Iterable[Keyed],
    predictor: Predictor | BoxPredictor,
    place: Place,
    *,
    retry: bool = False,
) -> Iterator[Outcome]:
    """Predict the frames of units and write the part of each.

    To do a unit twice, at once or one after the other, does no harm: its parts are equal.

    Args:
        units: Keys and units; more of them are taken as others are done.
        predictor: The model of the settings that the keys are of.
        place: The folder of the results of these settings.
        retry: There may be parts of units whose frames could not all be read: they are replaced.

    Yields:
        What came of each unit, once its part is written, in the order in which they were done.

    Raises:
        PlaceError: The destination does not take a part.
        OSError: The same, of a local disk.
    """
    line = _Line(predictor, place, retry)
    try:
        yield from line.run(units)
    finally:
        line.stop()


class _Room:
    """Room for so many bytes of frames; what is larger than all of it waits until it is empty."""

    def __init__(self) -> None:
        self._used = 0
        self._open = False
        self._changed = threading.Condition()

    def take(self, frame: UnitFrame) -> None:
        """Wait until there is room for a frame."""
        size = self._size(frame)
        with self._changed:
            while self._used and self._used + size > _WAITING and not self._open:
                self._changed.wait()
            self._used += size

    def give_back(self, frame: UnitFrame) -> None:
        """Say that a frame is done with."""
        with self._changed:
            self._used -= self._size(frame)
            self._changed.notify_all()

    def let_all_go(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def _size(self, frame: UnitFrame) -> int:
        counts = frame.counts
        return _LEAST if isinstance(counts, FrameError) else max(_LEAST, counts.nbytes)


class _Line:
    """The threads of `work_on`, and the one queue by which they tell the main one."""

    def __init__(self, predictor: Predictor | BoxPredictor, place: Place, retry: bool) -> None:
        self._predictor, self._place, self._retry = predictor, place, retry
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._room = _Room()
        self._alone = threading.Lock()  # for large files
        self._slots = threading.Semaphore(UNITS)
        self._stopped = False
        self._readers = ThreadPoolExecutor(READERS)
        self._writers = ThreadPoolExecutor(_WRITERS)

    def run(self, units: Iterable[Keyed]) -> Iterator[Outcome]:
        threading.Thread(target=self._take, args=(units,), daemon=True).start()
        given: int | None = None
        ended = frames = 0
        while given is None or ended < given:
            event: _Event | None = self._events.get()
            if isinstance(event, tuple):
                event = self._predict(event)
            if isinstance(event, _Job):
                self._writers.submit(self._write, event)
            elif isinstance(event, Outcome):
                ended += 1
                frames += event.frames
                if frames >= _TRIMMED:
                    frames = 0
                    trim_memory()
                self._slots.release()
                yield event
            elif isinstance(event, int):
                given = event
            elif isinstance(event, BaseException):
                raise event

    def stop(self) -> None:
        """End the threads, whatever they wait for; what is being written is written."""
        self._stopped = True
        self._room.let_all_go()
        self._slots.release(UNITS)
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown(cancel_futures=True)

    def _take(self, units: Iterable[Keyed]) -> None:
        """Give units to the readers as others are done."""
        count = 0
        try:
            for key, unit in units:
                self._slots.acquire()
                if self._stopped:
                    return
                self._readers.submit(self._read, _Job(key, unit, Rows()))
                count += 1
        except BaseException as error:
            self._events.put(error)
        self._events.put(count)

    def _read(self, job: _Job) -> None:
        try:
            large = (job.unit.size or 0) >= LARGE and is_still(job.unit)
            turn: AbstractContextManager[object] = self._alone if large else nullcontext()
            with turn:
                for frame in read_frames(job.unit, load(job.unit)):
                    self._room.take(frame)
                    if self._stopped:
                        return
                    self._events.put((job, frame))
        except (PlaceError, MissingExtraError) as error:
            self._events.put(job.fail(str(error), isinstance(error, PlaceError) and error.again))
            return
        except MemoryError:
            name = name_of(job.unit.uri)
            self._events.put(job.fail(f"{name} does not fit into memory: use fewer --workers"))
            return
        except FrameError as error:
            job.rows.add_broken(name_of(job.unit.uri), 0, None, str(error))
        except BaseException as error:
            self._events.put(error)
            return
        self._events.put(job)

    def _predict(self, event: tuple[_Job, UnitFrame]) -> _Event | None:
        """Predict a frame, on a card with those that are ready; the event that came after them."""
        predictor = self._predictor
        batch, pixels = [event], 0
        after: _Event | None = None
        if isinstance(predictor, Predictor):  # a detector takes one at a time
            pixels = predictor.input_pixels(event[1].counts)
            while pixels < predictor.batch_pixels:
                try:
                    after = self._events.get_nowait()
                except queue.Empty:
                    break
                if not isinstance(after, tuple):
                    break
                batch.append(after)
                pixels += predictor.input_pixels(after[1].counts)
                after = None
        found = find_each(
            predictor, [f.counts for _, f in batch if not isinstance(f.counts, FrameError)]
        )
        for job, frame in batch:
            self._room.give_back(frame)
            counts = frame.counts
            answer = counts if isinstance(counts, FrameError) else next(found)
            if isinstance(answer, FrameError) or isinstance(counts, FrameError):
                job.rows.add_broken(frame.source, frame.index, frame.time, str(answer))
            else:
                job.rows.add(frame.source, frame.index, frame.time, counts.shape, answer)
        return after

    def _write(self, job: _Job) -> None:
        try:
            write_part(self._place, job.key, job.rows)
            if self._retry and not job.rows.broken:
                remove_broken(self._place, job.key)
            self._events.put(job.outcome())
        except BaseException as error:
            self._events.put(error)
