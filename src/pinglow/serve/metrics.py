"""What Prometheus reads at /metrics.

What an operator can alert on:

- ``pinglow_workers_ready`` below the number of workers, and ``pinglow_worker_restarts`` that grow;
- the share of 429 and 503 in ``pinglow_requests_total``, and the 95th percentile of
  ``pinglow_request_seconds``;
- ``pinglow_alarm_evidence`` of 100 or more, where the model has an operating point by frames: one
  service in a hundred gets there although the bound holds (`pinglow.inference.monitor`);
- ``pinglow_input_drift`` above 0.3. Of independent frames of one source, 512 against 512, one pair
  in a thousand is 0.12 apart (Kolmogorov-Smirnov). The start is that of the process.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from pinglow.inference.monitor import AlarmMonitor
from pinglow.models.card import OperatingPoint
from pinglow.serve.pool import Pool
from pinglow.serve.tasks import Answer, Loaded

_logger = logging.getLogger("pinglow.serve")

disable_created_metrics()  # a series more for each, which hardly anybody reads

_HOUR: Final = 3600.0
_SECONDS: Final = (*(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5), *(1.0, 2.5, 5.0, 10.0, 30.0))
_FRAMES: Final = 512  # whose statistics are compared with those of as many at the start


class Metrics:
    """Counts requests, frames and targets, and sees whether frames change.

    Args:
        pool: Whose workers and queue are shown.
    """

    def __init__(self, pool: Pool) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": "pinglow", "registry": self.registry}
        self.requests = Counter(
            "requests", "Requests answered", ["route", "method", "status"], **own
        )
        self.seconds = Histogram(
            "request_seconds",
            "From a request's head to its answer",
            ["route"],
            buckets=_SECONDS,
            **own,
        )
        self.queue_seconds = Histogram(
            "queue_seconds", "That a frame waited for a worker", buckets=_SECONDS, **own
        )
        self.batch = Histogram(
            "batch_size", "Frames that a worker was given at once", buckets=(1, 2, 4, 8, 16), **own
        )
        self.frames = Counter("frames", "Frames predicted, or broken", ["result"], **own)
        self.targets = Counter("targets", "Targets found", **own)
        self._pool = pool
        self._alarms = _LastHour()
        self._monitor: AlarmMonitor | None = None
        self._drift = {"median": Drift(), "spread": Drift()}
        for name, text, read in (
            ("queue_length", "Frames that wait", lambda: pool.queued),
            ("workers_ready", "Workers whose model is warm", lambda: pool.alive),
            ("worker_restarts", "Workers started again", lambda: pool.restarts),
            (
                "alarms_last_hour",
                "Targets of the last 60 minutes, by the service's own smallest score",
                self._alarms.total,
            ),
            (
                "alarm_evidence",
                "How many times likelier the alarms are under a higher rate than "
                "the bound of the model's operating point; from 100 on it does not hold",
                self._evidence,
            ),
        ):
            self.show(name, text, read)
        self.dropped = Counter(
            "stream_frames_dropped", "Frames of streams not looked at, as others came", **own
        )
        drift = Gauge(
            "input_drift",
            f"Kolmogorov-Smirnov distance, 0 to 1, of the last {_FRAMES} frames' statistic from "
            "that of as many at the start",
            ["statistic"],
            **own,
        )
        middle = Gauge(
            "input_statistic", f"Median over the last {_FRAMES} frames", ["statistic"], **own
        )
        for name, each in self._drift.items():
            drift.labels(name).set_function(each.distance)
            middle.labels(name).set_function(each.middle)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def show(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Have a number read whenever it is asked for."""
        Gauge(name, text, namespace="pinglow", registry=self.registry).set_function(read)

    def count(self, answer: Answer) -> None:
        """One frame more."""
        self.queue_seconds.observe(answer.queued)
        self.batch.observe(answer.batch)
        self.frames.labels("predicted" if answer.status == 200 else "broken").inc()
        self.targets.inc(answer.targets)
        if answer.alarms is not None:
            self._alarms.add(answer.alarms)
            if self._monitor is None and self._pool.loaded is not None:
                self._monitor = _make_monitor(self._pool.loaded)
            if self._monitor is not None:
                self._monitor.update(1.0, answer.alarms)
        if answer.statistics is not None:
            self._drift["median"].add(answer.statistics.median)
            self._drift["spread"].add(answer.statistics.spread)

    def _evidence(self) -> float:
        return 0.0 if self._monitor is None else self._monitor.evidence

    def text(self) -> bytes:
        """In Prometheus's own format."""
        return generate_latest(self.registry)


def _make_monitor(loaded: Loaded) -> AlarmMonitor | None:
    """What watches the rate of alarms; None: the model says nothing about it, or not by frames."""
    point = loaded.card["operating_point"]
    if point is None or point["unit"] != "frame" or loaded.min_score < point["min_score"]:
        return None
    return AlarmMonitor(OperatingPoint.model_validate(point), _logger.warning)


class _LastHour:
    """A sum over the last hour, by seconds."""

    def __init__(self) -> None:
        self._parts: deque[list[float]] = deque()  # second, sum

    def add(self, count: int) -> None:
        now = time.monotonic() // 1
        if not self._parts or self._parts[-1][0] != now:
            self._parts.append([now, 0])
        self._parts[-1][1] += count
        self._forget()

    def total(self) -> float:
        self._forget()
        return sum(count for _, count in self._parts)

    def _forget(self) -> None:
        while self._parts and self._parts[0][0] <= time.monotonic() - _HOUR:
            self._parts.popleft()


class Drift:
    """How far a number's distribution has moved from what it was at the start."""

    def __init__(self, frames: int = _FRAMES) -> None:
        self._frames = frames
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=frames)

    def add(self, value: float) -> None:
        """One frame more."""
        if len(self._first) < self._frames:
            self._first.append(value)
        self._last.append(value)

    def middle(self) -> float:
        """The median of the last ones; NaN: there are none."""
        return float(np.median(self._last)) if self._last else float("nan")

    def distance(self) -> float:
        """The largest distance of the two distribution functions; 0 until both are known."""
        if len(self._first) < self._frames:
            return 0.0
        first, last = np.sort(self._first), np.sort(self._last)
        places = np.concatenate((first, last))
        shares = [np.searchsorted(each, places, "right") / len(each) for each in (first, last)]
        return float(np.abs(shares[0] - shares[1]).max())
