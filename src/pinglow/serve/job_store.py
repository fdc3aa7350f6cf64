"""The jobs of a service: some run, each in a process of its own, some wait, some have ended.

Their files lie in a folder that only the service's user can look into. It is removed when the
service ends; one that was killed leaves its folder to the next one, which removes it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pinglow.errors import FrameError
from pinglow.files import NO_ROOM, claim
from pinglow.output.sinks import SINKS
from pinglow.serve.job_process import FRAMES, ORDER, RESULTS, UPLOAD, Order
from pinglow.serve.tasks import BusyError, ServiceError, UnreadyError

_logger = logging.getLogger("pinglow.serve")

_PREFIX: Final = "pinglow-serve-"
_LOCK: Final = "lock"
_MOST_BROKEN: Final = 1000  # frames that are listed
_LONGEST_LINE: Final = 2**16  # bytes that a job's process says at once
_ALIVE: Final = 15.0  # seconds after which who follows a job hears of it though nothing has changed


class JobsFullError(BusyError):
    """As many jobs wait as may."""

    retry_after = 30


class DiskFullError(ServiceError):
    """There is no room for what is sent."""

    status = 507
    retry_after: ClassVar[int] = 60


@dataclass(frozen=True)
class Broken:
    """A frame that could not be read or predicted, and why."""

    source: str
    detail: str


@dataclass
class JobState:
    """How a job does.

    Attributes:
        id: By which it is asked for.
        name: What the file that was sent is called.
        state: The last three are for good.
        created: When it was sent, in UTC.
        done: Frames that are done, broken ones too.
        total: Frames in all, an estimate for some videos; null until it is known.
        targets: How many were found so far.
        tracks: To how many they were linked; null without tracks, and until the job is done.
        broken: Frames that could not be read or predicted, the first 1,000 of them.
        broken_frames: How many there are.
        detail: Why it failed.
        results: Names of what can be fetched, when it is done.
    """

    id: str
    name: str
    state: Literal["queued", "running", "done", "failed", "canceled"] = "queued"
    created: str = ""
    done: int = 0
    total: int | None = None
    targets: int = 0
    tracks: int | None = None
    broken: list[Broken] = field(default_factory=list)
    broken_frames: int = 0
    detail: str | None = None
    results: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing about it changes any more."""
        return self.state not in ("queued", "running")


class Job:
    """A job, its folder and the task that sees to it."""

    def __init__(self, state: JobState, folder: Path) -> None:
        self.state = state
        self.folder = folder
        self.task: asyncio.Task[None] | None = None
        self.fate: dict[str, Any] = {"state": "canceled"}
        """What becomes of it if its task is canceled."""
        self._changed = asyncio.Event()

    def change(self, **changes: Any) -> None:
        """Note what is new, and tell those who follow."""
        broken = changes.pop("broken", None)
        if broken is not None:
            self.state.broken_frames += 1
            if len(self.state.broken) < _MOST_BROKEN:
                self.state.broken.append(Broken(**broken))
        for name, value in changes.items():
            setattr(self.state, name, value)
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[JobState]:
        """Its state now, whenever it has changed, and at least every 15 seconds, to the end."""
        while True:
            # It may change while the one who follows is at work with the state.
            changed, ended = self._changed, self.state.ended
            yield self.state
            if ended:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _ALIVE)


class JobStore:
    """Jobs by their ids.

    Args:
        running: How many run at a time.
        waiting: How many wait, those with them that are being sent.
        kept: How many that have ended are kept, with their results.
        age: Seconds that they are kept.
    """

    def __init__(
        self, running: int = 1, waiting: int = 8, kept: int = 32, age: float = 3600.0
    ) -> None:
        self._jobs: dict[str, Job] = {}
        self._slots = asyncio.Semaphore(running)
        self._waiting, self._kept, self._age = waiting, kept, age
        self._uploads = 0
        self._stopped = False
        self._folder: Path | None = None
        self._stack = ExitStack()

    def open(self) -> None:
        """Make the folder for files, and remove those of services that were killed.

        Where there is no place for it, that is logged: a service does without jobs then.
        """
        try:
            place = Path(tempfile.gettempdir())
            _remove_abandoned(place)
            made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))  # mode 0700
            folder = place / made.name.removeprefix(".")
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._stack.enter_context(claim(made / _LOCK))
            made.rename(folder)  # only now, so that nobody takes it for abandoned
            self._folder = folder
        except OSError as error:
            _logger.error(
                "no jobs are taken, as there is no folder for their files (%s): name one that can "
                "be written to in the environment variable TMPDIR",
                error.strerror or error,
            )

    def __iter__(self) -> Iterator[Job]:
        """In the order in which they were sent."""
        return iter(self._jobs.values())

    def get(self, number: str) -> Job | None:
        """The job of an id; None: it is unknown, or forgotten."""
        return self._jobs.get(number)

    def count(self, *states: str) -> int:
        """How many jobs are in one of these states."""
        return sum(job.state.state in states for job in self)

    async def add(self, order: Order, content: AsyncIterable[bytes]) -> Job:
        """Take a job.

        Args:
            order: What is to be done.
            content: The file, chunk by chunk; it raises where that is refused.

        Raises:
            JobsFullError: Too many wait.
            DiskFullError: There is no room for it.
            UnreadyError: The service ends.
            FrameError: The file is empty.
        """
        self._refuse_if_stopped()
        if self.count("queued") + self._uploads >= self._waiting:
            raise JobsFullError(f"{self._waiting} jobs wait already: try again later")
        if self._folder is None:
            raise DiskFullError("the service has no folder for the files of jobs: see its log")
        number = secrets.token_hex(8)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        state = JobState(number, order.name, created=created)
        job = Job(state, self._folder / number)
        self._uploads += 1
        try:
            await _write(job.folder, order, content)
            self._refuse_if_stopped()
            job.task = asyncio.create_task(self._see_to(job))
        except BaseException as error:
            shutil.rmtree(job.folder, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise DiskFullError("the service's disk is full: try again later") from error
            raise
        finally:
            self._uploads -= 1
        self._jobs[number] = job
        return job

    async def cancel(self, job: Job) -> None:
        """End a job that waits or runs; forget one that has ended, with its files."""
        if job.state.ended:
            await self._forget(job)
            return
        await self._stop([job])

    async def drain(self, seconds: float) -> None:
        """Take no more jobs, let those that run end if they do in time, and fail the others."""
        self._stopped = True
        stopped = {"state": "failed", "detail": "the service was stopped: send the job again"}
        left = [job for job in self if not job.state.ended]
        for job in left:
            job.fate = stopped
        await self._stop([job for job in left if job.state.state == "queued"])
        if running := [job.task for job in left if job.task is not None]:
            await asyncio.wait(running, timeout=seconds)
        await self._stop(left)

    async def close(self) -> None:
        """End all jobs and remove their files."""
        await self.drain(0)
        await asyncio.to_thread(self._stack.close)

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise UnreadyError("the service is being stopped: send the job to another one")

    async def _stop(self, jobs: Sequence[Job]) -> None:
        """Cancel what has not ended, and wait until it has."""
        tasks = [job.task for job in jobs if job.task is not None and not job.state.ended]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for job in jobs:
            if not job.state.ended:  # its task had not begun
                self._end(job, job.fate)

    async def _see_to(self, job: Job) -> None:
        """Wait until the job may run, run it, and keep what is to be kept."""
        try:
            async with self._slots:
                job.change(state="running")
                last = await _run(job)
        except asyncio.CancelledError:
            last = job.fate
        except Exception:
            _logger.exception("job %s failed", job.state.id)
            last = {"state": "failed", "detail": "the service could not run the job"}
        self._end(job, last)
        await asyncio.to_thread(_clear, job.folder, job.state.state == "done")
        ended = [each for each in self if each.state.ended]
        for each in ended[: -self._kept]:
            await self._forget(each)

    def _end(self, job: Job, last: dict[str, Any]) -> None:
        """Note what became of a job, for as long as it is kept."""
        if last["state"] == "done":
            last["results"] = list_results(job.folder / RESULTS)
        job.change(**last)
        asyncio.get_running_loop().call_later(self._age, self._forget_later, job)

    def _forget_later(self, job: Job) -> None:
        if not self._stopped:
            job.task = asyncio.create_task(self._forget(job))

    async def _forget(self, job: Job) -> None:
        self._jobs.pop(job.state.id, None)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)


async def _write(folder: Path, order: Order, content: AsyncIterable[bytes]) -> None:
    for name in ("", FRAMES, RESULTS):
        (folder / name).mkdir()
    (folder / ORDER).write_text(json.dumps(asdict(order)))
    size = 0
    with (folder / UPLOAD).open("xb") as file:
        async for chunk in content:
            size += await asyncio.to_thread(file.write, chunk)
    if not size:
        raise FrameError(f"{order.name} is empty: send the file as the body of the request")


async def _run(job: Job) -> dict[str, Any]:
    """Run a job's process, and give its last word."""
    last: dict[str, Any] | None = None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "pinglow.serve.job_process"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=job.folder,
        limit=_LONGEST_LINE,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            change = json.loads(line)
            if "state" in change:
                last = change
            else:
                job.change(**change)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code == 0 and last is not None:
        return last
    _logger.error("the process of job %s ended with exit code %d", job.state.id, code)
    how = f"was killed (signal {-code})" if code < 0 else f"ended with exit code {code}"
    return {"state": "failed", "detail": f"the job's process {how}: send the job again"}


def list_results(folder: Path) -> list[str]:
    """What can be fetched of a job: files, folders as .zip, and the overlay of a single video."""
    names = [
        f"{place.name}.zip" if place.is_dir() else place.name
        for place in sorted(folder.iterdir())
        if not place.name.startswith(".") and (place.is_file() or any(place.iterdir()))
    ]
    return names + ["overlay.mp4"] * (find_result(folder, "overlay.mp4") is not None)


def find_result(folder: Path, name: str) -> Path | None:
    """The file, or the folder to be zipped, that a name stands for; None: there is none.

    Args:
        folder: Of a job's results.
        name: Of `list_results`, or of a file in a folder, as masks/0001_mask.png; or a word of
            "save".
    """
    if name in SINKS:
        name = SINKS[name].place
    if name in ("overlays", "overlay.mp4"):
        videos = list((folder / "overlays").glob("*"))
        if len(videos) == 1 and videos[0].suffix == ".mp4":
            return videos[0]
    path = folder / name.removesuffix(".zip")
    try:
        inside = path.resolve(strict=True).relative_to(folder.resolve())
    except (OSError, ValueError):  # it is not there, or elsewhere, or impossible
        return None
    hidden = not inside.parts or any(part.startswith(".") for part in inside.parts)
    return None if hidden else path


def _clear(folder: Path, keep_results: bool) -> None:
    """Remove what a job does not need any more."""
    if not keep_results:
        shutil.rmtree(folder, ignore_errors=True)
        return
    shutil.rmtree(folder / FRAMES, ignore_errors=True)
    for hidden in (folder / RESULTS).glob(".*"):
        hidden.unlink(missing_ok=True)  # what a job would be resumed by


def _remove_abandoned(place: Path) -> None:
    """Remove the folders of services that were killed."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            ours = not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
            if ours and folder.is_dir() and not folder.is_symlink():
                with claim(folder / _LOCK) as free:
                    if free:
                        shutil.rmtree(folder, ignore_errors=True)
