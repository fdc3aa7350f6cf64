"""Requests at a constant rate, whatever the answers do.

A request is due at a fixed time. Its latency counts from then, not from when a connection was free,
so that a service that stands still is seen to stand still for all who would have come meanwhile
(Gil Tene, "coordinated omission").
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONNECTIONS = 512
PATIENCE = 60.0  # seconds to wait for an answer

LOST = 0  # the status of a request without an answer
REFUSED = -1  # of one whose connection was refused


@dataclass(frozen=True)
class Sample:
    """A request, in seconds of the monotonic clock."""

    due: float
    sent: float  # wholly
    done: float
    status: int

    @property
    def latency(self) -> float:
        return self.done - self.due


class Client:
    """Connections that are kept and used again."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port = port
        self.token = token
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._room = asyncio.Semaphore(CONNECTIONS)

    def request(self, body: bytes, path: str = "/v1/predict", kind: str = "image/png") -> bytes:
        """The bytes of a POST."""
        secret = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{secret}"
        return f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    async def send(self, request: bytes, due: float | None = None) -> Sample:
        """Send a request and read its answer to the end."""
        sent = 0.0
        due = time.monotonic() if due is None else due
        async with self._room:
            status = LOST
            try:
                reader, writer = await self._connect()
            except OSError:
                return Sample(due, sent, time.monotonic(), REFUSED)
            try:
                async with asyncio.timeout(PATIENCE):
                    writer.write(request)
                    await writer.drain()
                    sent = time.monotonic()
                    status, keep = await _read_answer(reader)
                if keep:
                    self._idle.append((reader, writer))
                else:
                    writer.close()
            except (OSError, EOFError, ValueError, TimeoutError):
                writer.close()
            return Sample(due, sent, time.monotonic(), status)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status, and whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if "content-length" in fields:
        await reader.readexactly(int(fields["content-length"]))
    elif status not in (204, 304):
        raise ValueError("an answer of unknown length")
    return status, fields.get("connection") != "close"


async def at_rate(
    client: Client, requests: Sequence[bytes], rate: float, seconds: float
) -> list[Sample]:
    """Send requests in turn, `rate` a second, and wait for all answers."""
    begin = time.monotonic()
    tasks = []
    for number, request in zip(
        range(round(rate * seconds)), itertools.cycle(requests), strict=False
    ):
        due = begin + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(client.send(request, due)))
    return await asyncio.gather(*tasks)


async def at_once(
    client: Client, requests: Sequence[bytes], together: int, seconds: float
) -> list[Sample]:
    """Send requests in turn for so long, so many together at any time, and wait for all answers."""
    end = time.monotonic() + seconds
    turns = itertools.cycle(requests)

    async def go() -> list[Sample]:
        samples = []
        while time.monotonic() < end:
            samples.append(await client.send(next(turns)))
        return samples

    return list(itertools.chain(*await asyncio.gather(*(go() for _ in range(together)))))


def rate_of(samples: Sequence[Sample]) -> float:
    """Answers of 200 a second, from the first request to the last answer."""
    good = sum(sample.status == 200 for sample in samples)
    return good / (max(s.done for s in samples) - min(s.due for s in samples))


def describe(samples: Sequence[Sample]) -> str:
    """Count the statuses and give the latencies of what was answered with 200."""
    counts = Counter(sample.status for sample in samples)
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(counts.items()))
    p50, p95, p99 = percentiles(samples)
    return f"{statuses}; p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms"


def percentiles(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """The latencies of 50, 95 and 99 % of what was answered with 200, in milliseconds."""
    good = [1e3 * sample.latency for sample in samples if sample.status == 200]
    if not good:
        return (float("nan"),) * 3
    p50, p95, p99 = np.percentile(good, [50, 95, 99])
    return float(p50), float(p95), float(p99)
