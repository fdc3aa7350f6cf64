"""WebSocket /v1/streams: frames in as they come, targets with their tracks out."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from fastapi.exceptions import WebSocketRequestValidationError
from numpy.typing import NDArray

from pinglow.errors import PinglowError
from pinglow.inference.ignored import Ignored
from pinglow.io.raw import RawFormat
from pinglow.serve.predict import Crop, Ignore, MinScore, Name
from pinglow.serve.security import SUBPROTOCOL
from pinglow.serve.service import Service, service_of
from pinglow.serve.tasks import Answer, BusyError, LostError, Task, UnreadyError
from pinglow.structures import Detections

if TYPE_CHECKING:
    from pinglow.inference.tracking import Tracker

router = APIRouter()

PROTOCOL: Final = "pinglow"
"""The subprotocol of streams, for clients that must be told one: those that send a token as one."""

_WAITING: Final = 4  # frames of a stream; for one more the oldest is dropped
_AHEAD: Final = 2  # frames of a stream that the pool has: a worker need not wait for us
_SHARE: Final = 4  # frames of the largest size that all streams hold together
_TRACKED: Final = 200  # of a frame's targets, the best: linking takes the square of their number
_LONGEST: Final = 120  # bytes of a reason for closing; the protocol has room for 123

_RATE: Final = 25.0  # frames a second, where the client does not say

# Codes of RFC 6455 and IANA's list.
_GONE, _NO_FRAME, _REFUSED, _TOO_BIG, _RESTART, _BUSY = 1001, 1003, 1008, 1009, 1012, 1013


@dataclass(eq=False)
class _Frame:
    number: int
    content: bytes
    arrival: float
    answer: asyncio.Task[Answer] | None = None


class Stream:
    """The frames of one client in their order, and the tracks of their targets.

    Args:
        service: That predicts them.
        task: What is asked of each frame, without its content.
        tracker: Numbers the targets; None: they have no tracks.
        form: How raw frames lie in their bytes, by which the tracker tells the camera's motion;
            None: frames are files, which are decoded in a worker only.

    Attributes:
        received: Frames that came.
        dropped: Those of them that were not looked at, because others came meanwhile.
    """

    def __init__(
        self, service: Service, task: Task, tracker: Tracker | None, form: RawFormat | None = None
    ) -> None:
        self._service, self._task, self._tracker, self._form = service, task, tracker, form
        self._waiting: deque[_Frame] = deque()
        self._ahead: deque[_Frame] = deque()
        self._changed = asyncio.Event()
        self._first: float | None = None
        self._ended = False
        self.received = 0
        self.dropped = 0

    def put(self, content: bytes) -> None:
        """Take a frame; where too many wait, the oldest of them is dropped."""
        now = time.perf_counter()
        self._first = now if self._first is None else self._first
        self._waiting.append(_Frame(self.received, content, now))
        self._service.held += len(content)
        self.received += 1
        self._submit()
        most = _SHARE * self._service.settings.max_bytes
        while len(self._waiting) > _WAITING or (self._waiting and self._service.held > most):
            self._release(self._waiting.popleft())
            self.dropped += 1
            self._service.metrics.dropped.inc()

    def end(self) -> None:
        """Take no more frames."""
        self._ended = True
        self._changed.set()

    def close(self) -> None:
        """Forget all frames."""
        for frame in (*self._ahead, *self._waiting):
            self._release(frame)

    async def answer(self) -> dict[str, Any] | None:
        """What is said of the next frame; None: there is none any more.

        Raises:
            UnreadyError: The service ends.
        """
        while not self._ahead:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        frame = self._ahead[0]
        assert frame.answer is not None
        assert self._first is not None
        try:
            answer = await frame.answer
            self._service.metrics.count(answer)
            said = json.loads(answer.body)
        except (BusyError, LostError) as error:
            said = {"detail": str(error)}
        self._release(self._ahead.popleft())
        self._submit()
        if self._tracker is not None:  # of a broken frame, too: time goes on
            counts = self._form.decode(frame.content) if self._form and "targets" in said else None
            targets = said.get("targets", [])
            await asyncio.to_thread(number_targets, self._tracker, targets, counts)
        return {
            **{"source": self._task.name, "frame": frame.number},
            **{key: value for key, value in said.items() if key not in ("source", "frame")},
            "time": round(frame.arrival - self._first, 3),
            "dropped": self.dropped,
            "latency_ms": round(1e3 * (time.perf_counter() - frame.arrival), 1),
        }

    def _submit(self) -> None:
        while self._waiting and len(self._ahead) < _AHEAD:
            frame = self._waiting.popleft()
            task = replace(self._task, content=frame.content)
            frame.answer = asyncio.create_task(self._service.pool.submit(task))
            self._ahead.append(frame)
            self._changed.set()

    def _release(self, frame: _Frame) -> None:
        self._service.held -= len(frame.content)
        answer = frame.answer
        if answer is not None and not answer.cancel() and not answer.cancelled():
            answer.exception()  # heard, though nobody asks for it any more


def number_targets(
    tracker: Tracker, targets: Sequence[dict[str, Any]], frame: NDArray[Any] | None = None
) -> None:
    """Give each target of the next frame, (H, W) counts, its "track": a number or null."""
    best = targets[:_TRACKED]
    boxes = np.array([target["bbox"] for target in best], np.float64).reshape(-1, 4)
    scores = np.array([target["score"] for target in best], np.float64)
    tracks = [
        *tracker.update(Detections(boxes, scores), frame),
        *[None] * (len(targets) - len(best)),
    ]
    for target, track in zip(targets, tracks, strict=True):
        target["track"] = track


@router.websocket("/v1/streams")
async def stream(
    socket: WebSocket,
    rate: Annotated[float | None, Query(gt=0, le=1000)] = None,
    min_score: MinScore = None,
    ignore: Ignore = None,
    crop: Crop = None,
    raw: str | None = None,
    name: Name = "stream",
    track: bool = True,
    outlines: bool = False,
) -> None:
    """Answer each frame with a line: its targets with tracks, what was dropped, how late it is."""
    service = service_of(socket)
    await socket.accept(_choose_protocol(socket))
    if service.streams >= service.settings.streams:
        await socket.close(_BUSY, f"{service.streams} streams are open already: try again later")
        return
    service.streams += 1
    service.active += 1  # the end of the service waits for what was accepted
    try:
        form = None if raw is None else RawFormat.parse(raw)
        Ignored.parse(ignore or (), crop, files=False)
        want = "outlines" if outlines else "targets"
        task = Task(b"", name, want, min_score, tuple(ignore or ()), crop)
        if form is not None:
            task = replace(task, shape=(form.height, form.width), dtype=form.dtype)
        rate = rate or (form and form.rate) or _RATE
        tracker = await asyncio.to_thread(_make_tracker, rate) if track else None
    except PinglowError as error:
        await _close(socket, _REFUSED, str(error))
    else:
        await _serve(socket, service, Stream(service, task, tracker, form))
    finally:
        service.streams -= 1
        service.active -= 1


async def refuse_values(socket: WebSocket, error: Exception) -> None:
    """Say which parameter is impossible: a browser tells only why an open stream was closed."""
    assert isinstance(error, WebSocketRequestValidationError)
    first = error.errors()[0]
    await socket.accept(_choose_protocol(socket))
    await _close(socket, _REFUSED, f"{first['loc'][-1]}: {first['msg']}")


def _choose_protocol(socket: WebSocket) -> str | None:
    """Of the subprotocols that the client offers."""
    offered: list[str] = socket.scope["subprotocols"]
    chosen = [each for each in offered if each == PROTOCOL or each.startswith(SUBPROTOCOL)]
    return PROTOCOL if PROTOCOL in chosen else next(iter(chosen), None)


def _make_tracker(rate: float) -> Tracker:
    from pinglow.inference.tracking import Tracker

    return Tracker(rate)


async def _serve(socket: WebSocket, service: Service, frames: Stream) -> None:
    """Take frames and send answers, to the end of the client or of the service."""
    receiving = asyncio.create_task(_receive(socket, frames, service))
    sending = asyncio.create_task(_send(socket, frames))
    ending = asyncio.create_task(service.draining.wait())
    tasks = {receiving, sending, ending}
    why = _GONE, "the connection ended"
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            receiving.cancel()
            frames.end()
            await asyncio.wait([sending])
        why = receiving.result() if receiving.done() and not ending.done() else sending.result()
    except (WebSocketDisconnect, TimeoutError):
        pass
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        frames.close()
        socket.state.frames, socket.state.dropped = frames.received, frames.dropped
    await _close(socket, *why)


async def _receive(socket: WebSocket, frames: Stream, service: Service) -> tuple[int, str]:
    """Take frames; why the stream is to be closed."""
    limit, idle = service.settings.max_bytes, service.settings.stream_idle
    while True:
        try:
            message = await asyncio.wait_for(socket.receive(), idle)
        except TimeoutError:
            return _GONE, f"no frame came for {idle:g} seconds: open another stream"
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        content = message.get("bytes")
        if content is None:
            return _NO_FRAME, "send each frame as a binary message"
        if len(content) > limit:
            return _TOO_BIG, f"a frame is larger than {limit / 2**20:g} MB, the limit"
        frames.put(content)


async def _send(socket: WebSocket, frames: Stream) -> tuple[int, str]:
    """Send answers; why the stream is to be closed."""
    try:
        while (line := await frames.answer()) is not None:
            await socket.send_text(json.dumps(line))
    except UnreadyError as error:
        return _BUSY, str(error)
    return _RESTART, "the service is being stopped: open a stream at another one"


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):  # the client may have gone
        await socket.close(code, reason.encode()[:_LONGEST].decode(errors="ignore"))
