"""Who may use the service: a token, or only what runs on this machine."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from pinglow.serve.settings import ServeSettings, is_loopback

_OPEN: Final = ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
_PAGE: Final = "/page/"
SUBPROTOCOL: Final = "bearer."
"""What a browser, which can send no header with a WebSocket, puts before the token."""

HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Of every answer that does not say otherwise."""


def why_not(
    settings: ServeSettings, path: str, headers: Mapping[str, str]
) -> tuple[int, str] | None:
    """Why a request is refused, as a status and a sentence; None: it is not.

    Args:
        settings: Of the service.
        path: That is asked for.
        headers: Of the request; names in lower case.
    """
    if "transfer-encoding" in headers and "content-length" in headers:
        # A proxy may go by the other one, and so take one request for two (RFC 9112, 6.3).
        return 400, "the request has Transfer-Encoding and Content-Length: send one of them"
    if settings.token is not None:
        if path in _OPEN or path.startswith(_PAGE):
            return None
        given = _token_of(headers)
        if hmac.compare_digest(given.encode(errors="replace"), settings.token.encode()):
            return None
        return 401, "the service needs its token: send the header Authorization: Bearer TOKEN"
    host = headers.get("host", "")
    # A page of another site can make a browser send requests here, and by DNS even read answers.
    if settings.is_local and not settings.insecure and not is_loopback(_hostname(host)):
        return 403, "the Host header names another machine: use 127.0.0.1 or localhost"
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return 403, "the request comes from a page of another site, which may not use the service"
    return None


def _token_of(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(SUBPROTOCOL):
            return protocol.strip().removeprefix(SUBPROTOCOL)
    return ""


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
