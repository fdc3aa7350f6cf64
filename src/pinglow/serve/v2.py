"""The Open Inference Protocol, version 2, which clients of Triton and KServe speak.

With binary tensors and the index of the model repository, both as Triton has them.
docs/guides/open-inference.md says what the tensors are.
Source: https://github.com/kserve/open-inference-protocol, and Triton's extension_binary_data.md and
extension_model_repository.md.
"""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from pinglow._version import __version__
from pinglow.serve.answers import ALWAYS, InferenceError, binary, refusals
from pinglow.serve.bodies import read_body
from pinglow.serve.predict import note, until_gone
from pinglow.serve.service import service_of
from pinglow.serve.tasks import Loaded
from pinglow.serve.tensors import (
    DATATYPES,
    LENGTH,
    describe_request,
    encode_answers,
    known_outputs,
    parse_request,
    read_tasks,
    split_body,
    wanted_outputs,
)

router = APIRouter(
    tags=["Open Inference Protocol"], responses=refusals(*ALWAYS, model=InferenceError)
)

_VERSION: Final = "1"
_UNKNOWN: Final = refusals(404, model=InferenceError)


@router.get("/v2")
async def server() -> dict[str, Any]:
    """What the server is."""
    extensions = ["binary_tensor_data", "model_repository"]
    return {"name": "pinglow", "version": __version__, "extensions": extensions}


@router.get("/v2/health/live")
async def live() -> dict[str, bool]:
    """Whether the HTTP process answers; it does."""
    return {"live": True}


@router.get("/v2/health/ready")
async def ready(request: Request) -> dict[str, bool]:
    """Whether frames are taken."""
    service_of(request).check_ready()
    return {"ready": True}


@router.get("/v2/models/{name}", responses=_UNKNOWN)
@router.get("/v2/models/{name}/versions/{version}", responses=_UNKNOWN)
async def metadata(request: Request, name: str, version: str = _VERSION) -> dict[str, Any]:
    """The tensors of the model."""
    loaded = _find(request, name, version)
    return {
        "name": name,
        "versions": [_VERSION],
        "platform": f"pinglow_{loaded.backend}",
        "inputs": [
            {
                "name": "frame",
                "datatype": "UINT16",
                "shape": [-1, -1, -1],
                "parameters": {"datatypes": ", ".join(DATATYPES)},
            }
        ],
        "outputs": [
            {"name": output, "datatype": datatype, "shape": shape, "parameters": parameters}
            for output, (datatype, shape, parameters) in known_outputs(loaded).items()
        ],
    }


@router.get("/v2/models/{name}/ready", responses=_UNKNOWN)
@router.get("/v2/models/{name}/versions/{version}/ready", responses=_UNKNOWN)
async def model_ready(request: Request, name: str, version: str = _VERSION) -> dict[str, Any]:
    """Whether the model takes frames."""
    _find(request, name, version)
    service_of(request).check_ready()
    return {"name": name, "ready": True}


@router.post("/v2/repository/index")
async def index(request: Request) -> list[dict[str, str]]:
    """The model that there is."""
    loaded = service_of(request).pool.loaded
    if loaded is None:
        return []
    state = "READY" if service_of(request).is_ready else "UNAVAILABLE"
    return [{"name": loaded.card["name"], "version": _VERSION, "state": state, "reason": ""}]


_INFER: Final[dict[str, Any]] = {
    "responses": {
        200: {
            "description": "Tensors in JSON, or behind it: see Inference-Header-Content-Length.",
            "content": {"application/json": {}, **binary("application/octet-stream")},
        },
        **refusals(400, 404, 408, 413, 415, 422, 429, model=InferenceError),
    },
    "response_class": Response,
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": describe_request()},
                **binary("application/octet-stream"),
            },
        }
    },
}


@router.post("/v2/models/{name}/infer", **_INFER)
@router.post("/v2/models/{name}/versions/{version}/infer", **_INFER)
async def infer(request: Request, name: str, version: str = _VERSION) -> Response:
    """Find the targets of one frame, or of frames of one size."""
    service = service_of(request)
    loaded = _find(request, name, version)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "the body is compressed: send it as it is")
    service.pool.check()  # before the body is read
    body = await read_body(request, service.settings.max_bytes)
    length = request.headers.get(LENGTH)
    head, behind = split_body(body, length)
    asked = parse_request(head)
    del body, head
    tasks = read_tasks(asked, behind, service.settings.queue)
    wanted = wanted_outputs(asked, loaded)
    answers = await until_gone(request, service.pool.submit_all(tasks))
    note(request, answers)
    for answer in answers:
        if answer.status != 200:
            raise HTTPException(answer.status, json.loads(answer.body)["detail"])
    return encode_answers(
        {"model_name": name, "model_version": version, "id": asked.id}, wanted, answers
    )


def _find(request: Request, name: str, version: str) -> Loaded:
    """What the workers said of a model.

    Raises:
        HTTPException: There is no such model.
        UnreadyError: It is not loaded yet.
    """
    loaded = service_of(request).model
    if (name, version) != (loaded.card["name"], _VERSION):
        raise HTTPException(
            404,
            f"there is no version {version} of a model {name}: ask for version {_VERSION} of "
            f"{loaded.card['name']}",
        )
    return loaded
