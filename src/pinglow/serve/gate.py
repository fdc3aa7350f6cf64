"""What happens to every request: an id, who may, whether the service ends, a line in the log."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pinglow.serve.answers import refusal_body
from pinglow.serve.logs import log_request
from pinglow.serve.security import HEADERS, why_not
from pinglow.serve.service import Service

_logger = logging.getLogger("pinglow.serve")

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Also while the service ends.
_ALWAYS: Final = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
_CUT: Final = 1006  # code in the log of a stream that was not closed, but lost
GONE: Final = 499
"""Status in the log of a request whose client did not wait for the answer."""


class Gate:
    """The outermost layer of the application.

    Args:
        app: What is behind it.
        service: Whose requests pass.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers = Headers(scope=scope)
        state, request_id = _identify(scope, headers)
        code = _CUT

        async def send_with_id(message: Message) -> None:
            nonlocal code
            if message["type"] == "websocket.accept":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            elif message["type"] == "websocket.close":
                code = message["code"]
            await send(message)

        try:
            refused = why_not(self._service.settings, scope["path"], headers)
            if refused or self._service.draining.is_set():
                await send_with_id({"type": "websocket.close", "code": 1008 if refused else 1012})
            else:
                await self._app(scope, receive, send_with_id)
        finally:
            log_request(
                {
                    "id": request_id,
                    "route": getattr(scope.get("route"), "path", "other"),
                    "code": code,
                    "frames": state.get("frames"),
                    "dropped": state.get("dropped"),
                    "ms": round(1e3 * (time.perf_counter() - began)),
                }
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers = Headers(scope=scope)
        state, request_id = _identify(scope, headers)
        status = GONE
        milliseconds: float | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status, milliseconds
            if message["type"] == "http.response.start":
                status = message["status"]
                milliseconds = 1e3 * (time.perf_counter() - began)
                answered = MutableHeaders(scope=message)
                answered["x-request-id"] = request_id
                for name, value in HEADERS.items():
                    answered.setdefault(name, value)
            await send(message)

        service = self._service
        service.active += 1
        try:
            refused = why_not(service.settings, scope["path"], headers)
            if refused is not None:
                await _refuse(scope, *refused, send_with_headers)
            elif not scope["http_version"].startswith("1."):
                await _refuse(scope, 505, "send the request as HTTP/1.1", send_with_headers)
            elif service.draining.is_set() and not _is_always_open(scope):
                reason = "the service is being stopped: send the request to another one"
                await _refuse(scope, 503, reason, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception:
            _logger.exception("request %s failed", request_id)
            if milliseconds is not None:
                raise  # too late for another answer: the connection is cut
            reason = f"the service made a mistake: its log tells more of request {request_id}"
            await _refuse(scope, 500, reason, send_with_headers)
        finally:
            service.active -= 1
            service.held -= state.get("held", 0)
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - began
            service.metrics.requests.labels(route, _method(scope), status).inc()
            service.metrics.seconds.labels(route).observe(seconds)
            log_request(
                {
                    "id": request_id,
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "ms": round(1e3 * seconds if milliseconds is None else milliseconds, 2),
                    "bytes": state.get("held"),
                    "queue_ms": state.get("queue_ms"),
                    "batch": state.get("batch"),
                }
            )


def _identify(scope: Scope, headers: Headers) -> tuple[dict[str, Any], str]:
    """What handlers note of a request, and its id: the client's own, if that can stand in a log."""
    given = headers.get("x-request-id", "")
    request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
    state: dict[str, Any] = scope.setdefault("state", {})
    state["request_id"] = request_id
    return state, request_id


def _is_always_open(scope: Scope) -> bool:
    """Whether it is answered also while the service ends; jobs end then, and may be asked for."""
    job = scope["path"].startswith("/v1/jobs/") and scope["method"] == "GET"
    return job or scope["path"] in _ALWAYS


def _method(scope: Scope) -> str:
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "other"


async def _refuse(scope: Scope, status: int, detail: str, send: Send) -> None:
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 503:
        headers.append((b"retry-after", b"5"))
    if status in (400, 503, 505):
        headers.append((b"connection", b"close"))
    body = refusal_body(detail, scope["state"]["request_id"], scope["path"])
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
