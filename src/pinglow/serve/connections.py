"""Connections that are cut: those whose client sends or reads too slowly, and too many of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pinglow.serve.answers import refusal_body
from pinglow.serve.security import HEADERS

_HEAD: Final = 10.0  # seconds for the head of a request, however it trickles in
_READ: Final = 30.0  # seconds in which a client reads nothing of its answer
_MOST: Final = 512  # connections


class Connection(H11Protocol):
    """uvicorn's, which by itself waits for a request's head, and for a reader, without an end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self.since = time.monotonic()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waits_for_client(self) -> bool:
        """Whether the next byte is the client's to send."""
        return not self._is_answering or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; of too many connections, the one goes that has waited longest for its client."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # wait whenever the client has not read what was sent
        self._expect_head()
        if len(self.connections) > _MOST:
            idle = [
                each
                for each in self.connections
                if isinstance(each, Connection) and each.waits_for_client
            ]
            min(idle, key=lambda each: each.since).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        if not self._is_answering:
            self._expect_head()
        super().data_received(data)

    def handle_events(self) -> None:
        """Go on with what is there."""
        super().handle_events()
        if self._is_answering:
            self._expect_no_head()

    def send_400_response(self, msg: str) -> None:
        """Say that what came is no HTTP; a request that is being answered has lost its client."""
        if self._is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        request_id = secrets.token_hex(8)
        reason = "this is no request of HTTP/1.1, or its head is longer than 64 KB"
        body = refusal_body(reason, request_id)
        headers = {
            **HEADERS,
            "content-type": "application/json",
            "content-length": str(len(body)),
            "x-request-id": request_id,
            "connection": "close",
        }
        for event in (
            h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over."""
        self._expect_no_head()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.since = time.monotonic()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._expect_no_head()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(_READ, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD, self.transport.abort)

    def _expect_no_head(self) -> None:
        self.since = time.monotonic()
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
