"""Whether the service is alive and ready, which model it has, and what it counts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from pinglow.extras import is_installed
from pinglow.serve.service import service_of

router = APIRouter()


@router.get("/healthz", tags=["operation"])
async def healthz() -> dict[str, str]:
    """Whether the HTTP process answers; it does."""
    return {"status": "alive"}


@router.get("/readyz", tags=["operation"])
async def readyz(request: Request) -> dict[str, str]:
    """Whether a worker has its model loaded and warm, and the service is not being stopped."""
    service_of(request).check_ready()
    return {"status": "ready"}


@router.get(
    "/metrics",
    tags=["operation"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """What Prometheus reads."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models", tags=["models"])
async def models(request: Request) -> dict[str, list[dict[str, Any]]]:
    """The model that the service has, from its card."""
    loaded = service_of(request).model
    card = loaded.card
    model = {
        "name": card["name"],
        "kind": loaded.kind,
        "min_score": loaded.min_score,
        "operating_point": card["operating_point"],
        "parameters": card["parameters"],
        "data": [row.get("name") for row in card["data"]],
        "license": card["license"],
        "device": loaded.device,
        "backend": loaded.backend,
        "tracks": is_installed("trackers"),  # whether jobs and streams have any
    }
    return {"models": [model]}
