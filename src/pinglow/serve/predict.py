"""POST /v1/predict: frames in, targets out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from pinglow.serve.bodies import read_body
from pinglow.serve.pool import Answer, Task
from pinglow.serve.service import service_of

router = APIRouter()

_T = TypeVar("_T")


@router.post("/v1/predict", tags=["frames"])
async def predict(
    request: Request,
    min_score: Annotated[float | None, Query(ge=0, lt=1)] = None,
    ignore: Annotated[list[str], Query()] = [],  # noqa: B006
    crop: str | None = None,
    name: str = "frame",
    save: Literal["mask", "overlay", "probability", "outlines", "counts"] | None = None,
) -> Response:
    """Find the targets of one frame."""
    service = service_of(request)
    body = await read_body(request, service.settings.max_bytes)
    wants_picture = "image/png" in request.headers.get("accept", "")
    want = save or ("overlay" if wants_picture else "targets")
    task = Task(body, name, want, min_score, tuple(ignore), crop)
    answer = await until_gone(request, service.pool.submit(task))
    if want != "counts":
        service.metrics.count(answer)
    request.state.queue_ms = round(1e3 * answer.queued, 2)
    request.state.batch = answer.batch
    return respond(request, answer)


def respond(request: Request, answer: Answer) -> Response:
    """A worker's answer as HTTP's."""
    body = answer.body
    if answer.status != 200:
        body = json.dumps(json.loads(body) | {"request_id": request.state.request_id}).encode()
    return Response(body, answer.status, media_type=answer.media_type)


async def until_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Do something for a client, unless it goes away, which cancels it.

    Raises:
        ClientDisconnect: It went away.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    doing, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        doing.cancel()
        watching.cancel()
