"""What the service answers: refusals, and how answers are described in /openapi.json."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel, Field


class Refusal(BaseModel):
    """Why a request has no other answer."""

    detail: str = Field(description="one sentence", examples=["frame is empty: copy it again"])
    request_id: str = Field(description="as in the log", examples=["9f8a7c6b5d4e3f21"])


class InferenceError(BaseModel):
    """The same below /v2, as the Open Inference Protocol has it."""

    error: str = Field(description="one sentence", examples=["frame holds no numbers: send some"])
    request_id: str = Field(description="as in the log", examples=["9f8a7c6b5d4e3f21"])


class FoundTarget(BaseModel):
    """A target in a frame, in its pixels; the center of the top-left pixel is (0, 0)."""

    x: float
    y: float
    bbox: list[int] = Field(
        description="left, top, width, height",
        min_length=4,
        max_length=4,
        examples=[[97, 46, 3, 3]],
    )
    area: int = Field(ge=1, description="pixels")
    score: float = Field(ge=0, le=1)


class FrameLine(BaseModel):
    """What was found in a frame: a line of targets.jsonl."""

    source: str = Field(description="the name that the client gave")
    frame: int = Field(description="its number in the source, from 0")
    name: str = Field(description="what the frame's pictures are called")
    width: int
    height: int
    targets: list[FoundTarget] = Field(description="highest score first")


class BrokenFrame(BaseModel):
    """A frame of a form that could not be read."""

    source: str
    detail: str = Field(description="one sentence, as the command says it")


class FrameLines(BaseModel):
    """What was found in the frames of a form, in their order."""

    frames: list[FrameLine | BrokenFrame]


_REASONS: Final = {
    400: "The request is malformed.",
    401: "The token is missing or wrong.",
    403: "The request comes from elsewhere, by its Host or Origin header.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "It is not in a state for that.",
    413: "The body is larger than the service takes.",
    415: "The body is of a kind that is not taken here.",
    422: "A parameter is impossible, or the frame cannot be read.",
    429: "As many frames wait as may: try again after Retry-After seconds.",
    500: "A fault of the service; its log tells more.",
    503: "The model is being loaded, the service is being stopped, or a worker died: try again.",
    507: "The service's disk is full: try again later.",
}
_RETRY: Final = {
    "Retry-After": {"description": "seconds", "schema": {"type": "integer"}, "required": True}
}

ALWAYS: Final = (401, 403, 422, 500, 503)
"""What every endpoint may answer."""


def refusals(*statuses: int, model: type[BaseModel] = Refusal) -> dict[int | str, dict[str, Any]]:
    """How refusals with these statuses are described.

    Args:
        statuses: Of `ALWAYS`, and others.
        model: Of their body.
    """
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        described[status] = {"model": model, "description": _REASONS[status]}
        if status in (429, 503, 507):
            described[status]["headers"] = _RETRY
    return described


def refusal_body(detail: str, request_id: str, path: str = "") -> bytes:
    """A `Refusal` or an `InferenceError` as it is sent to who asked for a path."""
    key = "error" if f"{path}/".startswith("/v2/") else "detail"
    return json.dumps({key: detail, "request_id": request_id}).encode()


def binary(*media_types: str) -> dict[str, Any]:
    """How a body of bytes is described."""
    return {each: {"schema": {"type": "string", "format": "binary"}} for each in media_types}
