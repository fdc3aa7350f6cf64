"""Bytes onto a socket as they are, and what comes back, without a library that would mend them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

PATIENCE = 20.0  # seconds for an answer to what is sent at once
GRACE = 0.2  # to see whether more comes than was asked for

Send = Callable[[], AsyncIterator[bytes]]
"""Gives what is sent, with pauses of its own."""


@dataclass(frozen=True)
class Reply:
    status: int
    head: str
    body: bytes

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.strip().lower() == name:
                return value.strip()
        return None


@dataclass
class Exchange:
    """What came back on one connection."""

    replies: list[Reply] = field(default_factory=list)
    rest: bytes = b""  # after an upgrade, or what was cut off
    closed: bool = False  # by the service, as far as the client was told
    held: bool = False  # the service still has it
    seconds: float = 0.0


async def exchange(
    port: int,
    send: Send,
    patience: float = PATIENCE,
    answers: int = 1,
    read_every: float = 0.0,
    held: Callable[[int], bool] | None = None,
) -> Exchange:
    """Send, and read until the service closes, has answered, or patience ends.

    Args:
        port: Of the loopback.
        send: What is sent.
        patience: Seconds.
        answers: After so many, only `GRACE` is waited for more; 0: until the service closes.
        read_every: Seconds between reads of one byte; 0: all that comes is read.
        held: Whether the service still has the connection from a port, asked at the end.
    """
    loop = asyncio.get_running_loop()
    found = Exchange()
    begin = time.monotonic()
    with socket.socket() as line:
        line.setblocking(False)
        if read_every:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(line, ("127.0.0.1", port))

        async def write() -> None:
            async for part in send():
                await loop.sock_sendall(line, part)

        writing = asyncio.create_task(write())
        try:
            while not found.closed and (left := begin + patience - time.monotonic()) > 0:
                enough = answers and len(found.replies) >= answers
                wait = min(left, GRACE) if enough else left
                try:
                    size = 1 if read_every else 2**18
                    part = await asyncio.wait_for(loop.sock_recv(line, size), max(wait, 0.01))
                except TimeoutError:
                    break
                except OSError:
                    part = b""
                found.closed = not part
                found.rest = _take(found.replies, found.rest + part)
                await asyncio.sleep(min(read_every, max(left, 0)))
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        found.held = held is not None and held(line.getsockname()[1])
    found.seconds = time.monotonic() - begin
    return found


def _take(replies: list[Reply], data: bytes) -> bytes:
    """Take whole answers out of what has come; the rest."""
    while True:
        if replies and replies[-1].status == 101:
            return data
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found or not head.startswith(b"HTTP/"):
            return data
        reply = Reply(int(head.split(b" ", 2)[1]), head.decode("latin-1"), b"")
        body = _body(reply, rest)
        if body is None:
            return data
        length, content = body
        replies.append(Reply(reply.status, reply.head, content))
        data = rest[length:]


def _body(reply: Reply, rest: bytes) -> tuple[int, bytes] | None:
    """How much of the rest is the body, and it; None: it is not there yet."""
    if reply.status in (100, 101, 204, 304):
        return 0, b""
    if reply.header("transfer-encoding") == "chunked":
        place, content = 0, b""
        while True:
            line, found, _ = rest[place:].partition(b"\r\n")
            if not found:
                return None
            size = int(line, 16)
            begin = place + len(line) + 2
            if len(rest) < begin + size + 2:
                return None
            content += rest[begin : begin + size]
            place = begin + size + 2
            if not size:
                return place, content
    length = int(reply.header("content-length") or 0)
    return None if len(rest) < length else (length, rest[:length])


def once(data: bytes) -> Send:
    """All at once."""

    async def send() -> AsyncIterator[bytes]:
        for place in range(0, len(data), 2**16):
            yield data[place : place + 2**16]

    return send


def dripping(data: bytes, every: float, size: int = 1, then: bytes | None = None) -> Send:
    """A few bytes now and then, and after that a part for ever, or silence."""

    async def send() -> AsyncIterator[bytes]:
        for place in range(0, len(data), size):
            yield data[place : place + size]
            await asyncio.sleep(every)
        while then:
            yield then
            await asyncio.sleep(every)
        await asyncio.sleep(3600)

    return send


def endless(head: bytes, part: bytes) -> Send:
    """A head, and then the same part again and again, as fast as it is taken."""

    async def send() -> AsyncIterator[bytes]:
        yield head
        while True:
            yield part

    return send


def request(
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    host: str = "127.0.0.1",
    version: str = "1.1",
) -> bytes:
    """The bytes of a request, with nothing checked."""
    given = {"Host": host, **(headers or {})}
    if body is not None and not {"Content-Length", "Transfer-Encoding"} & set(given):
        given["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode("utf-8", "surrogateescape") + (
        body or b""
    )
