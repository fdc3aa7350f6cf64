"""Read what clients send: counted as it comes, no slower than is bearable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from pinglow.serve.service import service_of
from pinglow.serve.tasks import BusyError

_GRACE: Final = 10.0  # seconds until a body must have begun to come
_RATE: Final = 2**16  # bytes a second that it must have come with by then, on average
_SHARE: Final = 8  # bodies of the largest size that are held at once


async def stream_body(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body of a request, as it comes.

    Args:
        request: Whose body nobody has read.
        limit: Bytes; of a body that says that it is longer, nothing is read.

    Raises:
        HTTPException: It is longer, or comes too slowly.
        ClientDisconnect: The client went away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    loop = asyncio.get_running_loop()
    end = loop.time() + _GRACE
    size = 0
    while True:
        try:
            async with asyncio.timeout_at(end + size / _RATE):
                message = await request.receive()
        except TimeoutError:
            raise HTTPException(
                408, "the body comes too slowly: send it at once", {"Connection": "close"}
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body of a request; what all bodies take together is bounded, too.

    Raises:
        HTTPException: See `stream_body`.
        BusyError: Other bodies take all that they may.
        ClientDisconnect: The client went away.
    """
    service = service_of(request)
    parts: list[bytes] = []
    async for chunk in stream_body(request, limit):
        if service.held + len(chunk) > _SHARE * service.settings.max_bytes:
            raise BusyError("other requests hold all memory there is for bodies: try again")
        service.held += len(chunk)  # given back when the request is answered
        request.state.held = getattr(request.state, "held", 0) + len(chunk)
        parts.append(chunk)
    return b"".join(parts)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {limit / 2**20:g} MB, the limit")
