"""The application: the endpoints, and how refusals look."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pinglow._version import __version__
from pinglow.serve import health, jobs, page, predict, streams, v2
from pinglow.serve.answers import ALWAYS, refusal_body, refusals
from pinglow.serve.gate import GONE, Gate
from pinglow.serve.pool import Pool
from pinglow.serve.service import Service
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import ServiceError

_UNSAID: Final = {  # by the framework, in a sentence
    "Not Found": "there is nothing at this address: /openapi.json lists what there is",
    "Method Not Allowed": "this address takes other methods: see the header Allow",
}


def make_app(settings: ServeSettings, pool: Pool) -> FastAPI:
    """The application of a service; while it lives, its workers do.

    Args:
        settings: Its options.
        pool: Its workers, which are not started yet.
    """
    service = Service(settings, pool)

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        service.jobs.open()
        await pool.start()
        yield
        await service.jobs.close()
        await pool.close()

    app = FastAPI(
        title="pinglow",
        version=__version__,
        description="Finds tiny, dim targets in infrared frames.",
        lifespan=live,
        responses=refusals(*ALWAYS),
        redirect_slashes=False,
        docs_url=None,  # its page asks for scripts of another host
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(Gate, service=service)
    for part in (page, health, predict, jobs, streams, v2):
        app.include_router(part.router)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_values)
    app.add_exception_handler(ServiceError, _refuse_for_now)
    app.add_exception_handler(ClientDisconnect, _forget)
    app.add_exception_handler(WebSocketRequestValidationError, streams.refuse_values)
    return app


def _say(request: Request, status: int, detail: str, headers: dict[str, str]) -> Response:
    body = refusal_body(detail, request.state.request_id, request.url.path)
    return Response(body, status, headers, "application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = _UNSAID.get(error.detail, error.detail)
    return _say(request, error.status_code, detail, dict(error.headers or {}))


async def _refuse_values(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("query", "path"))
    return _say(request, 422, f"{place}: {first['msg']}", {})


async def _refuse_for_now(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _say(request, error.status, str(error), {"Retry-After": str(error.retry_after)})


async def _forget(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)  # to nobody
