"""What goes between the HTTP process and its workers, and why a request is not answered now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pinglow.errors import PinglowError


class ServiceError(PinglowError):
    """Why the service does not answer a request now; it may be sent again."""

    status: ClassVar[int] = 503
    retry_after: ClassVar[int] = 1
    """Seconds after which it may be."""


class BusyError(ServiceError):
    """As many frames wait as may."""

    status = 429


class UnreadyError(ServiceError):
    """No worker has its model yet, or the service ends."""

    retry_after = 5


class LostError(ServiceError):
    """The worker that had the frame died, or did not come back."""


@dataclass(frozen=True)
class Task:
    """A frame and what is wanted of it; it is sent to a worker.

    Attributes:
        content: A file as sent, or raw counts if `shape` and `dtype` are set.
        name: What answers call the source.
        want: "targets" (a JSON line), "outlines" (the same with each target's pixels), "mask",
            "overlay" or "probability" (PNG), "counts" (the frame, NPY), or "tensors": float64 rows
            of targets (x, y, left, top, width, height, area, score) and, unless the model finds
            boxes, float32 probabilities (H, W) behind them; C order.
        min_score: A detection is a target if its score is above this; None: as was set.
        ignore: As of ``--ignore``, but for files.
        crop: As of ``--crop``.
        shape: (height, width) of raw counts.
        dtype: Of raw counts, as numpy names it.
    """

    content: bytes = field(repr=False)
    name: str = "frame"
    want: str = "targets"
    min_score: float | None = None
    ignore: tuple[str, ...] = ()
    crop: str | None = None
    shape: tuple[int, int] | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Statistics:
    """What a frame is like, before anything is done to it.

    Attributes:
        median: Of its counts.
        spread: Of the middle 90 % of them, as a standard deviation.
        width: Pixels.
        height: Pixels.
    """

    median: float
    spread: float
    width: int
    height: int


@dataclass(frozen=True)
class Answer:
    """What a worker says to a task.

    Attributes:
        status: 200; or 422, and the body has the sentence that the command says, as "detail"; or
            500, the same after a fault of ours.
        media_type: Of the body.
        body: Ready to be sent.
        targets: How many were found.
        alarms: Those that score above the service's own smallest score; None: a higher one was
            asked for, or it cannot be read.
        statistics: Of the frame; None: it cannot be read.
        queued: Seconds that it waited.
        batch: Frames that the worker was given with it, and it.
    """

    status: int
    media_type: str
    body: bytes
    targets: int = 0
    alarms: int | None = None
    statistics: Statistics | None = None
    queued: float = 0.0
    batch: int = 1


@dataclass(frozen=True)
class Loaded:
    """What a worker says of its model when it is ready.

    Attributes:
        card: The model's, as JSON has it.
        kind: "pixels" or "boxes".
        min_score: Above which a detection is a target.
        device: Where it computes.
        backend: What computes.
        most: Frames that are worth being computed together.
    """

    card: dict[str, Any]
    kind: str
    min_score: float
    device: str
    backend: str
    most: int
