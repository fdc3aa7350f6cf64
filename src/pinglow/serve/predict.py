"""POST /v1/predict: frames in, targets out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from pinglow.serve.answers import FrameLine, FrameLines, binary, refusal_body, refusals
from pinglow.serve.bodies import read_body
from pinglow.serve.service import service_of
from pinglow.serve.tasks import Answer, Task

router = APIRouter()

_T = TypeVar("_T")
_MOST: Final = 64  # frames of a form
_LONGEST: Final = 200  # characters of a name
_FORM: Final = "multipart/form-data"
_PICTURE: Final = "image/png"

MinScore = Annotated[
    float | None,
    Query(ge=0, lt=1, description="a detection is a target if its score is above this"),
]
# Said, not checked: what reads it says more clearly what is wrong.
_Region = Annotated[str, Field(json_schema_extra={"maxLength": 500, "pattern": "^[0-9,; ]+$"})]
Ignore = Annotated[
    list[_Region] | None,
    Query(
        max_length=64,
        description="x,y,w,h or a polygon x,y;x,y;x,y in whole pixels, in which nothing is found",
        examples=[["0,0,64,20"]],
    ),
]
Crop = Annotated[
    str | None,
    Query(max_length=_LONGEST, description="x,y,w,h: only this is searched"),
]
Name = Annotated[
    str, Query(min_length=1, max_length=_LONGEST, description="what answers call what is sent")
]
"""What the endpoints that predict have in common."""


@router.post(
    "/v1/predict",
    tags=["frames"],
    responses={
        200: {
            "description": "What was found: a line of targets.jsonl, or for a form one a frame; "
            "or a picture; or the frame's counts as NPY.",
            "model": FrameLine | FrameLines,
            "content": binary(_PICTURE, "application/octet-stream"),
        },
        **refusals(400, 408, 413, 422, 429),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                **binary("application/octet-stream"),
                _FORM: {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "frame": {
                                "type": "array",
                                "maxItems": _MOST,
                                "items": {"type": "string", "format": "binary"},
                            }
                        },
                    }
                },
            },
        }
    },
)
async def predict(
    request: Request,
    min_score: MinScore = None,
    ignore: Ignore = None,
    crop: Crop = None,
    name: Name = "frame",
    save: Annotated[
        Literal["mask", "overlay", "probability", "outlines", "counts"] | None,
        Query(
            description="which picture; outlines: targets with their outlines; counts: the frame "
            "as read; with Accept: image/png and nothing here, the overlay"
        ),
    ] = None,
) -> Response:
    """Find the targets of one frame, or of those of a form.

    The body is a file of any kind that `pinglow predict` reads frames from, with one frame in it.
    """
    service = service_of(request)
    service.pool.check()  # before the body is read
    pictured = _PICTURE in request.headers.get("accept", "")
    want = save or ("overlay" if pictured else "targets")
    form = request.headers.get("content-type", "").lower().startswith(_FORM)
    if form and want != "targets":
        raise HTTPException(422, "a picture is made of one frame: send it as the whole body")
    body = await read_body(request, service.settings.max_bytes)
    files = await _read_form(request, body) if form else [(name, body)]
    options = want, min_score, tuple(ignore or ()), crop
    tasks = [Task(content, called, *options) for called, content in files]
    del body, files
    answers = await until_gone(request, service.pool.submit_all(tasks))
    note(request, answers, predicted=want != "counts")
    return _join(request, tasks, answers) if form else respond(request, answers[0])


def note(request: Request, answers: Sequence[Answer], predicted: bool = True) -> None:
    """Count what was predicted, and tell the log how it was."""
    if predicted:
        for answer in answers:
            service_of(request).metrics.count(answer)
    request.state.queue_ms = round(1e3 * max(answer.queued for answer in answers), 2)
    request.state.batch = max(answer.batch for answer in answers)


def respond(request: Request, answer: Answer) -> Response:
    """A worker's answer as HTTP's."""
    body = answer.body
    if answer.status != 200:
        body = refusal_body(json.loads(body)["detail"], request.state.request_id)
    return Response(body, answer.status, media_type=answer.media_type)


async def _read_form(request: Request, body: bytes) -> list[tuple[str, bytes]]:
    """The name and the content of each file in a form.

    Raises:
        HTTPException: It is none, or has no files or too many.
    """

    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, once(), max_files=_MOST, max_fields=_MOST)
    parser.spool_max_size = len(body) + 1  # none of it goes to the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    files = []
    for key, each in form.multi_items():
        if isinstance(each, UploadFile):
            name = (each.filename or key or "frame")[:_LONGEST]
            files.append((name, await each.read()))
            await each.close()
    if not files:
        raise HTTPException(422, "the form has no files: send each frame as one, with a file name")
    return files


def _join(request: Request, tasks: list[Task], answers: list[Answer]) -> Response:
    frames = [
        {"source": task.name, **json.loads(answer.body)}
        for task, answer in zip(tasks, answers, strict=True)
    ]
    if all(answer.status != 200 for answer in answers):
        more = f" (and {len(frames) - 1} more)" if len(frames) > 1 else ""
        detail = f"no frame could be read: {frames[0]['detail']}{more}"
        content = refusal_body(detail, request.state.request_id)
        return Response(content, 422, media_type="application/json")
    return Response(json.dumps({"frames": frames}), media_type="application/json")


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
