"""Sources that do not wait: cameras, network streams, pipes.

A thread takes frames as they come. Between it and the network is a short queue that drops the
oldest, so that results stay close to the present; what was dropped is counted. A camera that goes
away is opened again, a bounded number of times.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.io.source import Selection, Source, SourceFrame

_logger = logging.getLogger("pinglow")

WAITS: Final[tuple[float, ...]] = (1, 2, 4, 8, 15, 30, 30, 30)
"""Seconds before each attempt to open a source again: a camera takes a minute to start anew."""

_WAITING: Final = 4  # frames between the camera and the network
_REMEMBERED: Final = 10_000  # frames whose latency is kept
_RATE: Final = 25.0  # frames a second where the source does not say
_ALL: Final = Selection()


@dataclass(frozen=True, eq=False)
class Feed:
    """An open camera, stream or pipe.

    Attributes:
        frames: (H, W) counts as they come; it raises FrameError where they stop coming.
        rate: Frames a second; None: it does not say.
        patient: It waits until a frame is taken: none is dropped.
        lasting: It has no end of its own: where it ends, it went away, and is opened again.
    """

    frames: Iterator[NDArray[Any]]
    rate: float | None = None
    patient: bool = False
    lasting: bool = True


Opener = Callable[[], AbstractContextManager[Feed]]
"""Opens a feed; raises FrameError where that cannot be."""


@dataclass(frozen=True)
class LiveState:
    """How a live source does.

    Attributes:
        received: Frames that came, of those that are selected.
        dropped: Frames of these that were not looked at, because the network was busy.
        reconnects: How often it was opened again.
        latency: Seconds from a frame's arrival to its results, in the median and of 95 %; None:
            there are no results yet. Of the last 10,000 frames.
    """

    received: int
    dropped: int
    reconnects: int
    latency: tuple[float, float] | None


class LiveSource(Source):
    """Frames that come whether they are taken or not; it can be selected from once.

    The time of a frame is that of its arrival after the first, its number how many came before.

    Args:
        name: As messages and tables name it.
        open_feed: Opens it, at first and whenever it goes away.
        stem: What its output files are called.
        waits: Seconds before each attempt to open it again; None: `WAITS`.
        clock: Seconds, monotonic.
        wait: Waits so many seconds, or until the source is closed; None: so.
    """

    def __init__(
        self,
        name: str,
        open_feed: Opener,
        stem: str,
        *,
        waits: Sequence[float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        super().__init__(name, None, _RATE, stem)
        self._open_feed, self._clock = open_feed, clock
        self._waits = WAITS if waits is None else tuple(waits)
        self._closed = threading.Event()
        self._wait = self._closed.wait if wait is None else wait
        self._changed = threading.Condition()
        self._queue: deque[SourceFrame] = deque()
        self._arrivals: dict[int, float] = {}
        self._latencies: deque[float] = deque(maxlen=_REMEMBERED)
        self._ended = False
        self._failure: BaseException | None = None
        self._first: float | None = None
        self._came = self._received = self._dropped = self._reconnects = 0

    @property
    def home(self) -> str:
        """See `Source`; it lies in no folder."""
        return ""

    @property
    def state(self) -> LiveState:
        """How it does by now."""
        with self._changed:
            kept = sorted(self._latencies)
            counts = self._received, self._dropped, self._reconnects
        if not kept:
            return LiveState(*counts, None)
        late = kept[math.ceil(0.95 * len(kept)) - 1]
        return LiveState(*counts, (float(np.median(kept)), late))

    def select(self, selection: Selection = _ALL) -> Iterator[SourceFrame]:
        """See `Source`.

        Raises:
            FrameError: It does not open. Where it goes away later, and for good, that is given out
                in the place of a frame.
        """
        threading.Thread(target=self._capture, args=(selection,), daemon=True).start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._queue or self._ended, self._left(selection)
                    )
                    if not self._queue:
                        break
                    found = self._queue.popleft()
                    self._changed.notify_all()
                yield found
            if self._failure is not None:
                raise self._failure
        finally:
            self.close()

    def answered(self, index: int) -> None:
        """See `Source`."""
        with self._changed:
            arrival = self._arrivals.pop(index, None)
            if arrival is not None:
                self._latencies.append(self._clock() - arrival)

    def close(self) -> None:
        """See `Source`; what is being waited for is given up."""
        self._closed.set()
        with self._changed:
            self._ended = True
            self._queue.clear()
            self._changed.notify_all()

    def _left(self, selection: Selection) -> float | None:
        """Seconds to the end of what is selected, should no frame come any more."""
        if selection.end is None or self._first is None:
            return None
        return max(0.0, self._first + selection.end - self._clock())

    # --- in the thread of the camera ----------------------------------------------------------

    def _capture(self, selection: Selection) -> None:
        try:
            self._follow(selection)
        except BaseException as error:  # it goes to who takes the frames
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _follow(self, selection: Selection) -> None:
        """Take frames to the end, and open the source again where it goes away."""
        attempt = 0
        while not self._closed.is_set():
            before, lasting, reason = self._came, True, "it ended"
            try:
                with self._open_feed() as feed:
                    lasting = feed.lasting
                    if not self._came:
                        self.rate = feed.rate or _RATE
                    if self._take(feed, selection, again=attempt > 0) or not lasting:
                        return
            except FrameError as error:
                reason = str(error)
                if not self._came:
                    raise
            if not self._came:
                raise FrameError(f"{self.name} gave no frame: check that the camera is on")
            attempt = 0 if self._came > before else attempt
            if not lasting or attempt >= len(self._waits):
                self._give_up(self._describe_loss(reason) if lasting else reason)
                return
            if attempt == 0:
                _logger.warning(
                    f"{self.name} went away after {self._came} frames ({reason}): it is opened "
                    f"again, {len(self._waits)} times at most in {sum(self._waits):.0f} s"
                )
            self._wait(self._waits[attempt])
            attempt += 1

    def _take(self, feed: Feed, selection: Selection, again: bool) -> bool:
        """Queue the frames of a feed; whether all that are selected have come."""
        for counts in feed.frames:
            now = self._clock()
            if again:
                again = False
                self._reconnects += 1
                _logger.warning(f"{self.name} is back")
            self._first = now if self._first is None else self._first
            since, index = now - self._first, self._came
            self._came += 1
            if self._closed.is_set() or (selection.end is not None and since >= selection.end):
                return True
            if since >= selection.start and index % selection.every == 0:
                self._put(SourceFrame(index, counts, f"_f{index:06}", since), now, feed.patient)
        return self._closed.is_set()

    def _put(self, frame: SourceFrame, arrival: float, patient: bool) -> None:
        with self._changed:
            if not patient and len(self._queue) >= _WAITING:
                self._arrivals.pop(self._queue.popleft().index, None)
                self._dropped += 1
            self._changed.wait_for(lambda: len(self._queue) < _WAITING or self._ended)
            if self._ended:
                return
            self._received += 1
            self._arrivals[frame.index] = arrival
            self._queue.append(frame)
            self._changed.notify_all()

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._queue.append(SourceFrame(self._came, FrameError(reason)))

    def _describe_loss(self, reason: str) -> str:
        seconds = sum(self._waits)
        return (
            f"{self.name} went away after {self._came} frames ({reason}) and did not come back "
            f"within {len(self._waits)} attempts in {seconds:.0f} s: start again when it is there"
        )
