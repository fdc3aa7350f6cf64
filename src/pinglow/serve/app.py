"""The application: the endpoints, and how refusals look."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pinglow._version import __version__
from pinglow.serve import health, predict, v2
from pinglow.serve.gate import GONE, Gate, error_body
from pinglow.serve.pool import Pool, ServiceError
from pinglow.serve.service import Service
from pinglow.serve.settings import ServeSettings


def make_app(settings: ServeSettings, pool: Pool) -> FastAPI:
    """The application of a service; while it lives, its workers do.

    Args:
        settings: Its options.
        pool: Its workers, which are not started yet.
    """
    service = Service(settings, pool)

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        await pool.start()
        yield
        await pool.close()

    app = FastAPI(
        title="pinglow",
        version=__version__,
        description="Finds tiny, dim targets in infrared frames.",
        lifespan=live,
        docs_url=None,  # its page asks for scripts of another host
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(Gate, service=service)
    for part in (health, predict, v2):
        app.include_router(part.router)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_values)
    app.add_exception_handler(ServiceError, _refuse_for_now)
    app.add_exception_handler(ClientDisconnect, _forget)
    return app


def _say(request: Request, status: int, detail: str, headers: dict[str, str]) -> Response:
    body = error_body(request.url.path, detail, request.state.request_id)
    return Response(body, status, headers, "application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _say(request, error.status_code, str(error.detail), dict(error.headers or {}))


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
