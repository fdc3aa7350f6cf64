"""Several runs of a study at a time, a process each.

Small runs leave a card, and many cores, mostly idle. Each process makes the next run that no other
is making, as if the study had been started several times.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from pinglow.errors import PinglowError
from pinglow.files import explain
from pinglow.process import take_share
from pinglow.study.grid import PlannedRun
from pinglow.study.results import RunResult, write_table
from pinglow.study.run import match_results, run_study
from pinglow.training.run import TrainingInterruptedError

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run_jobs(
    plan: list[PlannedRun],
    folder: Path,
    work: Path,
    jobs: int,
    *,
    retry_failed: bool = False,
    device: str = "auto",
    on_start: Callable[[PlannedRun, int], None] = lambda run, number: None,
    on_end: Callable[[list[RunResult]], None] = lambda results: None,
) -> list[RunResult]:
    """Make every run of the plan that has no result yet, ``jobs`` of them at a time.

    Each process takes its share of the cores, unless OMP_NUM_THREADS says otherwise.

    Args:
        plan: See `run_study`, as for all that follows.
        folder: See there.
        work: See there.
        jobs: Processes, at least 1.
        retry_failed: See there.
        device: See there.
        on_start: See there.
        on_end: See there.

    Returns:
        All results, in the plan's order.

    Raises:
        TrainingInterruptedError: A signal asked to stop; everything is saved.
        PinglowError: What `run_study` raises, or a process ended without saying why.
    """
    left = len(plan) - len(match_results(plan, folder))
    jobs = max(1, min(jobs, len(plan) if retry_failed else left))
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    options = {"retry_failed": retry_failed, "device": device}
    _block_signals(True)  # also in the processes, until they can say what stopped them
    try:
        processes = [
            context.Process(target=_work, args=(told, jobs, plan, folder, work, options))
            for _ in range(jobs)
        ]
        with _passing_on_signals(processes) as passed:
            for process in processes:
                process.start()
            _block_signals(False)
            failures = _listen(told, processes, plan, on_start, on_end)
    finally:
        _block_signals(False)
    for process in processes:
        if process.exitcode and -process.exitcode in passed:  # it was not training yet, or no more
            failures.append(TrainingInterruptedError("stopped", -process.exitcode))
        elif process.exitcode:
            failures.append(
                PinglowError(
                    f"a job of the study ended with code {process.exitcode} (killed, or out of "
                    "memory?); the same command goes on, perhaps with fewer --jobs"
                )
            )
    # What stopped one of them may be why the others were stopped.
    failures.sort(key=lambda each: isinstance(each, TrainingInterruptedError))
    if failures:
        raise failures[0]
    matched = match_results(plan, folder)
    results = [matched[run.name] for run in plan if run.name in matched]
    if results:
        write_table(folder, results)  # the last of several that wrote it may not have seen all
    return results


def _listen(
    told: Any,
    processes: list[Any],
    plan: list[PlannedRun],
    on_start: Callable[[PlannedRun, int], None],
    on_end: Callable[[list[RunResult]], None],
) -> list[PinglowError]:
    """Hand on what the processes tell, until all have ended; why some could not go on."""
    failures: list[PinglowError] = []
    while any(process.is_alive() for process in processes) or not told.empty():
        try:
            kind, content = told.get(timeout=0.2)
        except queue.Empty:
            continue
        if kind == "start":
            on_start(plan[content], content + 1)
        elif kind == "end":
            on_end(content)
        elif kind == "stopped":
            failures.append(TrainingInterruptedError("stopped", content))
        else:
            failures.append(PinglowError(content))
    return failures


def _work(
    told: Any, jobs: int, plan: list[PlannedRun], folder: Path, work: Path, options: dict[str, Any]
) -> None:
    """Make runs in a process of its own, one of several, and tell of them."""
    take_share(jobs)
    if hasattr(os, "setpgrp"):  # Ctrl-C comes once, from the first process
        os.setpgrp()
    try:
        _block_signals(False)
        run_study(
            plan,
            folder,
            work,
            on_start=lambda run, number: told.put(("start", number - 1)),
            on_end=lambda results: told.put(("end", results)),
            progress=False,
            **options,
        )
    except TrainingInterruptedError as stop:
        told.put(("stopped", stop.signal_number))
    except KeyboardInterrupt:
        told.put(("stopped", signal.SIGINT))
    except OSError as error:
        told.put(("failed", explain(error)))
    except PinglowError as error:
        told.put(("failed", str(error)))


def _block_signals(block: bool) -> None:
    """Hold back the signals that stop a study, or let them come."""
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        how = signal.SIG_BLOCK if block else signal.SIG_UNBLOCK
        signal.pthread_sigmask(how, _STOP_SIGNALS)


@contextmanager
def _passing_on_signals(processes: list[Any]) -> Iterator[set[int]]:
    """While it lasts, SIGINT and SIGTERM reach the processes and do not end this one.

    Yields:
        The signals that came.
    """
    passed: set[int] = set()

    def pass_on(number: int, _: FrameType | None) -> None:
        passed.add(number)
        for process in processes:
            if process.pid and process.is_alive():
                os.kill(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in _STOP_SIGNALS}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
