"""Worker processes with a model each, and the bounded queue before them.

Whatever a client sends is decoded in a worker. One that dies takes only what it holds with it, and
is started again.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import multiprocessing.connection
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

from pinglow.errors import ModelError, PinglowError
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import Answer, BusyError, Loaded, LostError, Task, UnreadyError

_logger = logging.getLogger("pinglow.serve")

_STARTS: Final = 3  # failed ones in a row, after which the service ends
_LONGEST: Final = 120.0  # seconds that a worker may take for what it is given


Work = Callable[[Connection, ServeSettings], None]
"""Sends what it has loaded, or a `PinglowError`; then receives tasks and sends their answers."""


@dataclass(eq=False)
class _Waiting:
    task: Task
    since: float
    answer: asyncio.Future[Answer]


class _Worker:
    """A process, the connection to it, and the threads that wait for it."""

    def __init__(self, work: Work, settings: ServeSettings) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, self._theirs = context.Pipe()
        self._process = context.Process(target=work, args=(self._theirs, settings), daemon=True)
        self._threads = ThreadPoolExecutor(2, "pinglow-worker")
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def start(self) -> Loaded:
        """Start the process and wait until its model is warm.

        Raises:
            PinglowError: The model cannot be used.
            EOFError, OSError: The process died.
        """

        def begin() -> Any:
            if sys.platform != "win32":  # what a Ctrl-C says is for us, while it starts as well
                signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
            self._process.start()
            self._theirs.close()  # so that its death ends the connection
            return self._connection.recv()

        said = await self._run(begin)
        if isinstance(said, PinglowError):
            raise said
        assert isinstance(said, Loaded)
        self.ended = self._run(partial(multiprocessing.connection.wait, [self._process.sentinel]))
        return said

    async def answer(self, tasks: Sequence[Task]) -> list[Answer]:
        """What it says to some tasks.

        Raises:
            EOFError, OSError: It died, or does not come back.
        """

        def exchange() -> Any:
            self._connection.send(tasks)
            return self._connection.recv()

        answers: list[Answer] = await asyncio.wait_for(self._run(exchange), _LONGEST)
        return answers

    def _run(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function)

    def stop(self) -> None:
        """End the process, now."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self._threads.shutdown(wait=False)
        self._connection.close()

    @property
    def exit_code(self) -> int | None:
        """Minus the signal that ended it, or what it ended with."""
        return self._process.exitcode


class Pool:
    """Workers and the queue before them.

    Args:
        settings: Of the service.
        work: What a worker does; see `pinglow.serve.worker.work`, which is the default.

    Attributes:
        loaded: What the first worker said of its model; None: it is not ready.
        failed: Set when the workers cannot go on.
        reason: Why they cannot.
        holding: Frames that workers have.
        alive: Workers that are ready.
        restarts: How often a worker was started again.
    """

    def __init__(self, settings: ServeSettings, work: Work | None = None) -> None:
        if work is None:
            from pinglow.serve.worker import work as load_and_answer

            work = load_and_answer
        self._work: Work = work
        self._settings = settings
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Condition()
        self._keepers: list[asyncio.Task[None]] = []
        self._draining = False
        self.loaded: Loaded | None = None
        self.failed = asyncio.Event()
        self.reason: PinglowError | None = None
        self.holding = 0
        self.alive = 0
        self.restarts = 0

    @property
    def queued(self) -> int:
        """Frames that wait for a worker."""
        return len(self._waiting)

    def ready(self) -> bool:
        """Whether frames are taken."""
        return self.alive > 0 and not self._draining

    async def start(self) -> None:
        """Start the workers; they are ready later."""
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._settings.workers)]

    def check(self, count: int = 1) -> None:
        """See whether so many frames would be taken now.

        Raises:
            BusyError: The queue has no room for them.
            UnreadyError: No model is loaded yet, or the pool drains.
        """
        if self._draining:
            raise UnreadyError("the service is being stopped: send the request to another one")
        if self.loaded is None:
            raise UnreadyError("the model is being loaded: try again in a few seconds")
        # What is more than the whole queue is taken where nothing else waits.
        if self._waiting and self.queued + count > self._settings.queue:
            raise BusyError(f"{self.queued} frames wait already: try again in a second")

    async def submit(self, task: Task) -> Answer:
        """Wait for a worker's answer; see `submit_all`."""
        return (await self.submit_all([task]))[0]

    async def submit_all(self, tasks: Sequence[Task]) -> list[Answer]:
        """Wait for the answers to tasks that come together.

        Who stops waiting takes those that no worker has from the queue.

        Raises:
            BusyError: The queue has no room for them.
            UnreadyError: No model is loaded yet, or the pool drains.
            LostError: The worker died.
        """
        self.check(len(tasks))
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        mine = [_Waiting(task, now, loop.create_future()) for task in tasks]
        self._waiting += mine
        try:
            async with self._arrived:
                self._arrived.notify_all()
            return list(await asyncio.gather(*(each.answer for each in mine)))
        finally:
            for each in mine:
                each.answer.cancel()
                if each in self._waiting:  # nobody waits for it any more
                    self._waiting.remove(each)

    async def drain(self, seconds: float) -> None:
        """Take no more frames, and wait until all are answered, or for so long."""
        self._draining = True
        end = time.monotonic() + seconds
        while (self._waiting or self.holding) and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End the workers; what still waits is lost."""
        self._draining = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for waiting in self._waiting:
            _fail(waiting, "the service was stopped")

    async def _keep(self) -> None:
        """Have one worker, and another one when it dies."""
        failures = 0
        while failures < _STARTS:
            worker = _Worker(self._work, self._settings)
            failures += 1
            try:
                loaded = await worker.start()
                failures = 0
                self.loaded = self.loaded or loaded
                self.alive += 1
                try:
                    await self._feed(worker, loaded.most)
                finally:
                    self.alive -= 1
                    self.restarts += 1
            except PinglowError as error:
                self._give_up(error)
                return
            except (EOFError, OSError):
                pass  # it is said below
            finally:
                worker.stop()
            _logger.warning("a worker ended (exit code %s) and is started again", worker.exit_code)
        self._give_up(
            ModelError(
                f"a worker died {_STARTS} times while it loaded {self._settings.model} (exit code "
                f"{worker.exit_code}): see whether there is memory enough"
            )
        )

    def _give_up(self, reason: PinglowError) -> None:
        self.reason = self.reason or reason
        self.failed.set()

    async def _feed(self, worker: _Worker, most: int) -> None:
        """Give a worker what waits, until it dies.

        Raises:
            EOFError, OSError: It did.
        """
        while True:
            batch = await self._take(worker, most)
            began = time.perf_counter()
            self.holding += len(batch)
            try:
                answers = await worker.answer([each.task for each in batch])
                for each, answer in zip(batch, answers, strict=True):
                    if not each.answer.done():
                        queued = began - each.since
                        each.answer.set_result(replace(answer, queued=queued, batch=len(batch)))
            finally:
                self.holding -= len(batch)
                for each in batch:
                    _fail(each, "the worker that had the frame died: send it again")

    async def _take(self, worker: _Worker, most: int) -> list[_Waiting]:
        """What a worker is given next, in the order in which it came."""
        while True:
            arrival = asyncio.create_task(self._wait_for(1))
            await asyncio.wait({arrival, worker.ended}, return_when=asyncio.FIRST_COMPLETED)
            if worker.ended.done():
                arrival.cancel()
                raise EOFError
            if 0 < len(self._waiting) < most:
                left = self._waiting[0].since + self._settings.wait_ms / 1e3 - time.perf_counter()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wait_for(most), max(0.0, left))
            if self._waiting:  # another worker may have been first
                return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    async def _wait_for(self, count: int) -> None:
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self._waiting) >= count)


def _fail(waiting: _Waiting, reason: str) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(LostError(reason))
