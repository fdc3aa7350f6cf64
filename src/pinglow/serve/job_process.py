"""One job in a process of its own: what was sent is unpacked, predicted and written.

Run as ``python -P -m pinglow.serve.job_process`` in the folder of the job, in which lie
``order.json`` and what was sent, ``upload``. It works in ``frames``, so that a source is called as
it was sent, and writes to ``results``. Each line of its standard output is JSON: what has changed
of the job. It ends itself when its standard input ends: the service is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pinglow.errors import DataError, FrameError, PinglowError
from pinglow.files import NO_ROOM
from pinglow.output.counts import CountsSink
from pinglow.output.sink import FrameRecord, Sink
from pinglow.serve.logs import log_to_stderr
from pinglow.serve.unpacking import is_archive, unpack

if TYPE_CHECKING:
    from pinglow.io.source import Source

ORDER, UPLOAD, FRAMES, RESULTS = "order.json", "upload", "frames", "results"
"""What is in the folder of a job."""

_OFTEN: Final = 0.1  # seconds between two words on progress
_NICE: Final = 5  # requests that wait for an answer go before jobs


@dataclass(frozen=True)
class Order:
    """What a job is asked for.

    Attributes:
        name: What the file that was sent is called.
        save: Of `pinglow.output.sinks.SINKS`, what is written.
        model: What `Predictor.load` takes.
        track: Number targets that belong together over time.
        selection: Which frames are taken: every, start, end.
        ignore: Rectangles and polygons, as of the command's ``--ignore``.
        crop: As of the command's ``--crop``.
        most_bytes: Of an archive's members together.
        counts_bytes: Of counts that are written, those of all jobs that are kept together.
        max_pixels: Of a frame.
    """

    name: str
    save: list[str]
    model: dict[str, Any]
    track: bool = False
    selection: tuple[int, float, float | None] = (1, 0.0, None)
    ignore: list[str] = field(default_factory=list)
    crop: str | None = None
    most_bytes: int = 2**33
    counts_bytes: int = 2**31
    max_pixels: int = 2**24


def main() -> int:
    """Carry out the order in the working folder."""
    said = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no word on the job
    log_to_stderr()
    threading.Thread(target=_end_with_service, daemon=True).start()
    for each in (signal.SIGINT, signal.SIGTERM):  # the service hears of it, and drains
        signal.signal(each, signal.SIG_IGN)
    with suppress(AttributeError, OSError):
        os.nice(_NICE)

    def tell(**change: Any) -> None:
        said.write(json.dumps(change) + "\n")

    order = Order(**json.loads(Path(ORDER).read_bytes()))
    try:
        tell(**_carry_out(order, tell), state="done")
    except (PinglowError, OSError, MemoryError) as error:
        tell(state="failed", detail=_explain(error))
    return 0


def _explain(error: Exception) -> str:
    """One sentence for the client; what only the operator can mend is raised, for the log."""
    if isinstance(error, MemoryError):
        return "the service has not enough memory for this job: send it in parts"
    cause = error.__cause__ if isinstance(error, DataError) else error
    if isinstance(cause, OSError):  # of writing results
        if cause.errno in NO_ROOM:
            return "the service has no room for the results: try again later"
        raise error
    return str(error)


def _end_with_service() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _carry_out(order: Order, tell: Callable[..., None]) -> dict[str, Any]:
    """Predict all frames, and say how it went."""
    from pinglow.inference.ignored import Ignored
    from pinglow.inference.pipeline import run
    from pinglow.inference.predictor import Predictor
    from pinglow.inference.tracking import Tracker
    from pinglow.io.source import Selection
    from pinglow.output.sinks import check_sinks, open_sinks

    ignored = Ignored.parse(order.ignore, order.crop, files=False)
    results = Path(RESULTS).absolute()
    os.chdir(FRAMES)
    sources = _open_sources(order)
    tell(total=len(sources))
    predictor = Predictor.load(**order.model, ignore=ignored)
    check_sinks(order.save, predictor.kind)
    progress = _Progress(tell)
    with open_sinks(order.save, results) as sinks:
        for sink in sinks:
            if isinstance(sink, CountsSink):
                sink.bytes_left = room_for_counts(results, order.counts_bytes)
        summary = run(
            sources,
            predictor,
            [*sinks, progress],
            selection=Selection(*order.selection),
            make_tracker=Tracker if order.track else None,
            on_progress=progress.count,
        )
    for source, detail in summary.broken:
        tell(broken={"source": source, "detail": detail})
    if not summary.frames:
        raise FrameError(
            "no frame could be read: see what is broken"
            if summary.broken
            else "no frame was taken: widen start, end and every"
        )
    done = summary.frames + len(summary.broken)
    return {"done": done, "total": done, "targets": summary.targets, "tracks": summary.tracks}


def room_for_counts(results: Path, most_bytes: int) -> int:
    """How many bytes of counts a job may write: a compressed clip has far more than was sent.

    It takes half of what is left, so that the next one has some, too.

    Args:
        results: The job's folder of results; those of the other jobs lie beside it.
        most_bytes: Of the counts of all jobs together.
    """
    taken = 0
    for job in results.parent.parent.iterdir():
        with suppress(OSError):  # it has none, or is being removed
            files = (job / RESULTS / CountsSink.place).iterdir()
            taken += sum(file.stat().st_size for file in files)
    return min(most_bytes - taken, shutil.disk_usage(results).free // 2) // 2


def _open_sources(order: Order) -> list[Source]:
    """What was sent, as sources in the working folder."""
    from pinglow.io.frames import find_frames
    from pinglow.io.readers import frame_suffixes
    from pinglow.io.source import open_source
    from pinglow.io.video import VIDEO_SUFFIXES

    upload = Path("..", UPLOAD)
    if not is_archive(upload, order.name):
        return [open_source(upload.replace(order.name), max_pixels=order.max_pixels)]
    unpack(upload, order.name, Path(), order.most_bytes)
    upload.unlink()
    try:
        files = find_frames(["**/*"], frame_suffixes() | VIDEO_SUFFIXES)
    except DataError:
        raise FrameError(
            f"{order.name} holds no frames: give them names of their kind, as 0001.png"
        ) from None
    return [open_source(file, max_pixels=order.max_pixels) for file in files]


class _Progress(Sink):
    """Tells how far a job is, not too often."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._targets = 0
        self._next = 0.0

    def write(self, record: FrameRecord) -> None:
        """Count the targets of a frame."""
        self._targets += len(record.prediction.targets)

    def count(self, done: int, total: int) -> None:
        """Tell how many frames are done, and about how many there are."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _OFTEN
            self._tell(done=done, total=total, targets=self._targets)


if __name__ == "__main__":
    sys.exit(main())
