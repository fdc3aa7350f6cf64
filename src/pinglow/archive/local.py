"""Runs an archive on one machine: in this process, or in several that are started afresh."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from pinglow.archive.frames import name_of
from pinglow.archive.place import Place
from pinglow.archive.plans import Keyed
from pinglow.archive.settings import Settings
from pinglow.archive.units import Unit
from pinglow.archive.work import UNITS, Outcome, work_on
from pinglow.errors import DataError, PinglowError
from pinglow.files import explain
from pinglow.io.places import PlaceError
from pinglow.process import take_share

_GIVEN: Final = 2 * UNITS  # units that a process has been given and has not answered
_STRIKES: Final = 3  # processes that may die over a unit
_STARTS: Final = 3  # processes in a row that may die before they have their model


def run_units(
    units: Iterator[Keyed],
    settings: Settings,
    place: Place,
    workers: int = 1,
    *,
    retry: bool = False,
) -> Iterator[Outcome]:
    """Do units in ``workers`` processes, each with a model; with one, in this process.

    The units of a process that dies are done again by others; one over which three have died is
    given up.

    Args:
        units: Keys and units; more of them are taken as others are done.
        settings: The model and its options, of which the keys are.
        place: The folder of the results of these settings.
        workers: Processes, at least 1.
        retry: See `work_on`.

    Yields:
        What came of each unit, as it is done.

    Raises:
        PinglowError: See `work_on`; or a process cannot start.
        OSError: See there.
    """
    if workers == 1:
        yield from work_on(units, settings.load_predictor(), place, retry=retry)
        return
    pool = _Pool(settings, place, workers, retry)
    try:
        yield from pool.run(units)
    finally:
        pool.stop()


@dataclass(eq=False)
class _Worker:
    """A process, and what it has to do.

    Attributes:
        process: It.
        connection: To it: units one way, outcomes the other.
        given: Units that it has not answered.
        started: Whether it has its model.
    """

    process: Any
    connection: Connection
    given: dict[str, Unit] = field(default_factory=dict)
    started: bool = False


class _Pool:
    def __init__(self, settings: Settings, place: Place, workers: int, retry: bool) -> None:
        self._settings, self._place, self._retry = settings, place, retry
        self._count = workers
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._suspects: deque[Keyed] = deque()  # a process has died over one of them
        self._back: deque[Keyed] = deque()  # a process has died before it began them
        self._strikes: dict[str, int] = {}
        self._failed = 0  # starts in a row

    def run(self, units: Iterator[Keyed]) -> Iterator[Outcome]:
        self._workers = [self._start() for _ in range(self._count)]
        left = True
        while True:
            for worker in self._workers:
                left = self._fill(worker, units, left)
            if not any(worker.given for worker in self._workers):
                return
            ready = wait([worker.connection for worker in self._workers])
            for worker in [each for each in self._workers if each.connection in ready]:
                yield from self._hear(worker)

    def stop(self) -> None:
        """End the processes; what they were writing is there whole or not at all."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()

    def _start(self) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(there, self._settings, self._place, self._retry, self._count),
            daemon=True,
        )
        with _holding_back(signal.SIGINT):
            process.start()
        there.close()
        return _Worker(process, here)

    def _fill(self, worker: _Worker, units: Iterator[Keyed], left: bool) -> bool:
        """Give a process units; whether there are more."""
        while len(worker.given) < _GIVEN:
            if self._suspects or any(key in self._strikes for key in worker.given):
                if worker.given or not self._suspects:
                    break  # a suspect is alone with its process
                key, unit = self._suspects.popleft()
            elif self._back:
                key, unit = self._back.popleft()
            else:
                following = next(units, None) if left else None
                if following is None:
                    return False
                key, unit = following
            worker.given[key] = unit
            try:
                worker.connection.send((key, unit))
            except OSError:  # it has died: what it said last is read first
                break
        return left

    def _hear(self, worker: _Worker) -> Iterator[Outcome]:
        try:
            told = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._replace(worker)
            return
        if isinstance(told, Outcome):
            self._strikes.pop(told.key, None)
            worker.given.pop(told.key, None)
            yield told
        elif isinstance(told, PinglowError):
            raise told
        else:
            worker.started = True
            self._failed = 0

    def _replace(self, worker: _Worker) -> Iterator[Outcome]:
        """Start a process in the place of one that has died, whose units are done again."""
        worker.process.join()
        worker.connection.close()
        code = worker.process.exitcode
        self._failed += not worker.started
        if self._failed == _STARTS:
            raise DataError(
                f"a worker process ended while it loaded the model (code {code}): free memory, or "
                "use fewer --workers"
            )
        for place, (key, unit) in enumerate(worker.given.items()):
            if place >= UNITS or not worker.started:  # it had not begun it
                self._back.append((key, unit))
                continue
            self._strikes[key] = self._strikes.get(key, 0) + 1
            if self._strikes[key] < _STRIKES:
                self._suspects.append((key, unit))
                continue
            del self._strikes[key]
            name = name_of(unit.uri)
            yield Outcome(
                key,
                name,
                failure=f"{name} was given up: {_STRIKES} worker processes ended over it (code "
                f"{code}; -9: killed, out of memory?); use fewer --workers, or look at the file",
            )
        self._workers[self._workers.index(worker)] = self._start()


@contextmanager
def _holding_back(number: signal.Signals) -> Iterator[None]:
    """Keep a signal from this process for a moment, and for good from those that start here."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    connection: Connection, settings: Settings, place: Place, retry: bool, processes: int
) -> None:
    """Do units in a process of its own, one of several, until the first process ends."""
    take_share(processes)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer(connection, settings, place, retry)
    connection.close()
    os._exit(0)  # a thread may still wait for units


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def answer(connection: Connection, settings: Settings, place: Place, retry: bool) -> None:
    """Do the units that come by a connection and send what came of each, or what ends it all."""
    try:
        predictor = settings.load_predictor()
        connection.send("started")
        for outcome in work_on(_receive(connection), predictor, place, retry=retry):
            connection.send(outcome)
    except BrokenPipeError:  # the first process has ended
        return
    except PinglowError as error:
        connection.send(type(error)(str(error)))
    except OSError as error:
        connection.send(PlaceError(explain(error)))


def _receive(connection: Connection) -> Iterator[Keyed]:
    try:
        while True:
            yield connection.recv()
    except (EOFError, OSError):  # the first process has ended
        return
