"""Runs an archive on one machine: in this process, or in several that are started afresh."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from pinglow.archive.frames import name_of
from pinglow.archive.plans import Keyed
from pinglow.archive.settings import Settings
from pinglow.archive.units import Unit
from pinglow.archive.work import UNITS, Outcome, work_on
from pinglow.errors import DataError, PinglowError
from pinglow.files import explain
from pinglow.io.places import Place, PlaceError

_GIVEN: Final = 2 * UNITS  # units that a process has been given and has not answered
_STRIKES: Final = 3  # processes that may die over a unit


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
        self._again: deque[Keyed] = deque()  # of processes that have died, one at a time
        self._strikes: dict[str, int] = {}

    def run(self, units: Iterator[Keyed]) -> Iterator[Outcome]:
        with _fewer_threads(self._count):
            self._workers = [self._start() for _ in range(self._count)]
        left = True
        while left or self._again or any(worker.given for worker in self._workers):
            for worker in self._workers:
                left = self._fill(worker, units, left)
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
            args=(there, self._settings, self._place, self._retry),
            daemon=True,
        )
        process.start()
        there.close()
        return _Worker(process, here)

    def _fill(self, worker: _Worker, units: Iterator[Keyed], left: bool) -> bool:
        """Give a process units; whether there are more."""
        while len(worker.given) < _GIVEN:
            if any(key in self._strikes for key in worker.given):
                break  # it is alone with the unit that may be to blame
            if self._again:
                if worker.given:
                    break
                key, unit = self._again.popleft()
            elif left:
                following = next(units, None)
                if following is None:
                    left = False
                    break
                key, unit = following
            else:
                break
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

    def _replace(self, worker: _Worker) -> Iterator[Outcome]:
        """Start a process in the place of one that has died, whose units are done again."""
        worker.process.join()
        worker.connection.close()
        code = worker.process.exitcode
        if not worker.started:
            raise DataError(
                f"a worker process ended while it loaded the model (code {code}): free memory, or "
                "use fewer --workers"
            )
        for key, unit in worker.given.items():
            self._strikes[key] = self._strikes.get(key, 0) + 1
            if self._strikes[key] < _STRIKES:
                self._again.append((key, unit))
                continue
            del self._strikes[key]
            name = name_of(unit.uri)
            yield Outcome(
                key,
                name,
                failure=f"{name} was given up: {_STRIKES} worker processes ended over it (code "
                f"{code}; -9: killed, out of memory?); use fewer --workers, or look at the file",
            )
        with _fewer_threads(self._count):
            self._workers[self._workers.index(worker)] = self._start()


class _fewer_threads:  # noqa: N801 - a context manager that reads as a function
    """Let processes that start here take their share of the cores, unless the user says else."""

    def __init__(self, processes: int) -> None:
        self._threads = str(max(1, (os.cpu_count() or 1) // processes))

    def __enter__(self) -> None:
        self._given = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = self._given or self._threads

    def __exit__(self, *_: object) -> None:
        if self._given is None:
            del os.environ["OMP_NUM_THREADS"]


def _serve(connection: Connection, settings: Settings, place: Place, retry: bool) -> None:
    """Do units in a process of its own, until the first process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to the first process
    try:
        predictor = settings.load_predictor()
        connection.send("started")
        for outcome in work_on(_receive(connection), predictor, place, retry=retry):
            connection.send(outcome)
    except PinglowError as error:
        connection.send(_plain(error))
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            connection.send(PlaceError(explain(error)))
    finally:
        connection.close()
        os._exit(0)  # a thread may still wait for units


def _receive(connection: Connection) -> Iterator[Keyed]:
    try:
        while True:
            yield connection.recv()
    except (EOFError, OSError):
        os._exit(0)  # the first process has ended


def _plain(error: PinglowError) -> PinglowError:
    """An error that can be sent: its class and its sentence."""
    return type(error)(str(error))
