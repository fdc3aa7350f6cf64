"""The tensors of the Open Inference Protocol: from a request to tasks, and from answers back.

Source: as of `pinglow.serve.v2`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from fastapi import Response
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from pinglow.serve.tasks import Answer, Loaded, Task

COLUMNS: Final = ("frame", "x", "y", "left", "top", "width", "height", "area", "score")
"""Of the tensor ``targets``, which has a row a target; ``frame`` is the place in the batch."""

DATATYPES: Final = {
    "UINT8": "|u1",
    "INT16": "<i2",
    "UINT16": "<u2",
    "INT32": "<i4",
    "UINT32": "<u4",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""Of counts that are taken, and numpy's types."""

LENGTH: Final = "inference-header-content-length"
"""The header that says where the JSON ends and binary tensors begin."""

_MOST_JSON: Final = 2**22  # bytes of JSON in a request
_MOST_NUMBERS: Final = 2**20  # of a tensor that is answered in JSON
_REFUSED: Final = {
    "shared_memory_region": "send and take tensors in the body",
    "classification": "take the tensor",
    "sequence_id": "send sequences to /v1/streams",
}

_Parameters = dict[str, Any]
_Side = Annotated[int, Field(ge=1, lt=2**31)]


class InputTensor(BaseModel):
    """A tensor of a request; its numbers are in ``data`` or behind the JSON."""

    name: str
    shape: list[_Side]
    datatype: str
    parameters: _Parameters = {}
    data: list[Any] | None = None


class OutputTensor(BaseModel):
    """A tensor that is asked for."""

    name: str
    parameters: _Parameters = {}


class InferenceRequest(BaseModel):
    """What is sent to ``infer``."""

    id: str | None = None
    parameters: _Parameters = {}
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: list[OutputTensor] = []


def describe_request() -> dict[str, Any]:
    """The schema of an `InferenceRequest`, in one piece."""
    schema = InferenceRequest.model_json_schema()
    parts = schema.pop("$defs")

    def put_in(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return put_in(parts[node["$ref"].rpartition("/")[2]])
            return {key: put_in(value) for key, value in node.items()}
        return [put_in(value) for value in node] if isinstance(node, list) else node

    return dict(put_in(schema))


def known_outputs(loaded: Loaded) -> dict[str, tuple[str, list[int], _Parameters]]:
    """Datatype, shape and parameters of each output that a model has."""
    targets = ("FP64", [-1, len(COLUMNS)], {"columns": ", ".join(COLUMNS)})
    if loaded.kind == "boxes":
        return {"targets": targets}
    return {"probability": ("FP32", [-1, -1, -1], {}), "targets": targets}


def split_body(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """A body's JSON and the binary tensors behind it."""
    end = len(body)
    if length is not None:
        if not (length.isdecimal() and len(length) < 12 and int(length) <= end):
            raise HTTPException(
                400,
                "Inference-Header-Content-Length is no number of bytes that the body has: give "
                "the length of its JSON",
            )
        end = int(length)
    if end > _MOST_JSON:
        raise HTTPException(
            400,
            f"the request has {end:,} bytes of JSON, and {_MOST_JSON:,} is the limit: send the "
            "frame as binary data (binary_data_size)",
        )
    return body[:end], body[end:]


def parse_request(head: bytes) -> InferenceRequest:
    """A request from its JSON."""
    try:
        asked = InferenceRequest.model_validate_json(head)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the request"
        raise HTTPException(400, f"{place}: {first['msg']}") from None
    given = [
        asked.parameters,
        *(tensor.parameters for tensor in asked.inputs),
        *(tensor.parameters for tensor in asked.outputs),
    ]
    for parameters in given:
        for key in _REFUSED.keys() & parameters.keys():
            raise HTTPException(400, f"the parameter {key} is not supported: {_REFUSED[key]}")
    return asked


def read_tasks(asked: InferenceRequest, behind: bytes, most: int) -> list[Task]:
    """A task for each frame of a request, which may have so many."""
    (tensor,) = asked.inputs
    if tensor.name != "frame":
        raise HTTPException(400, f"the model has no input {tensor.name[:50]!r}: send frame")
    if tensor.datatype not in DATATYPES:
        raise HTTPException(
            400, f"frame is of datatype {tensor.datatype[:50]!r}: send {', '.join(DATATYPES)}"
        )
    if len(tensor.shape) not in (2, 3):
        raise HTTPException(
            400, f"frame has the shape {tensor.shape}: send [height, width] or [N, height, width]"
        )
    if len(tensor.shape) == 3 and tensor.shape[0] > most:
        raise HTTPException(400, f"the batch has {tensor.shape[0]} frames: send {most} at most")
    dtype = np.dtype(DATATYPES[tensor.datatype])
    count = math.prod(tensor.shape)
    content = behind if tensor.data is None else _encode(tensor.data, dtype)
    size = tensor.parameters.get("binary_data_size")
    if (tensor.data is None) != (size is not None) or (size is not None and size != len(behind)):
        raise HTTPException(
            400,
            f"frame has binary_data_size {size} and {len(behind):,} bytes behind the JSON: send "
            "either data in the JSON, or as many bytes as binary_data_size says",
        )
    if len(content) != count * dtype.itemsize:
        raise HTTPException(
            400,
            f"frame has {len(content):,} bytes, and {tensor.shape} of {tensor.datatype} are "
            f"{count * dtype.itemsize:,}: send all numbers of the shape",
        )
    height, width = tensor.shape[-2:]
    each = height * width * dtype.itemsize
    min_score = _min_score(asked.parameters)
    return [
        Task(
            content[start : start + each],
            name=f"frame {start // each}" if len(tensor.shape) == 3 else "frame",
            want="tensors",
            min_score=min_score,
            shape=(height, width),
            dtype=dtype.str,
        )
        for start in range(0, len(content), each)
    ]


def _encode(data: list[Any], dtype: np.dtype[Any]) -> bytes:
    """The bytes of numbers that came as JSON, nested or not."""
    try:
        numbers = np.asarray(data)
        if numbers.dtype.kind not in "iuf" or (dtype.kind != "f" and numbers.dtype.kind == "f"):
            raise ValueError
        with np.errstate(over="ignore"):
            converted = numbers.astype(dtype)
        if dtype.kind != "f" and (converted != numbers).any():
            raise ValueError
    except (ValueError, OverflowError):
        raise HTTPException(
            400, "data of frame does not hold numbers of its datatype alone: send such numbers"
        ) from None
    return converted.tobytes()


def _min_score(parameters: _Parameters) -> float | None:
    value = parameters.get("min_score")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise HTTPException(400, "min_score is no number from 0 to below 1: send such a number")
    return float(value)


class Wanted(NamedTuple):
    """How an output is to be answered."""

    datatype: str
    shape: list[int]  # -1: as many rows as there are
    binary: bool


def wanted_outputs(asked: InferenceRequest, loaded: Loaded) -> dict[str, Wanted]:
    """The tensors that a request asks for, by name; all if it names none."""
    known = known_outputs(loaded)
    default = asked.parameters.get("binary_data_output", False)
    outputs = asked.outputs or [OutputTensor(name=name) for name in known]
    wanted = {}
    for output in outputs:
        if output.name not in known:
            raise HTTPException(
                400, f"the model has no output {output.name[:50]!r}: ask for {' or '.join(known)}"
            )
        datatype, dimensions, _ = known[output.name]
        binary = output.parameters.get("binary_data", default)
        if not isinstance(binary, bool):
            raise HTTPException(400, "binary_data is no bool: send true or false")
        whole = asked.inputs[0].shape if output.name == "probability" else dimensions
        if not binary and math.prod(whole) > _MOST_NUMBERS:
            raise HTTPException(
                400,
                f"{output.name} would have more than {_MOST_NUMBERS:,} numbers in JSON: ask for "
                "it as binary data (binary_data)",
            )
        wanted[output.name] = Wanted(datatype, whole, binary)
    return wanted


def encode_answers(
    about: Mapping[str, str | None], wanted: Mapping[str, Wanted], answers: Sequence[Answer]
) -> Response:
    """The response: tensors in the JSON, or behind it."""
    contents = {"targets": _join_targets(answers), "probability": _join_probabilities(answers)}
    rows = sum(answer.targets for answer in answers)
    outputs: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for name, (datatype, shape, binary) in wanted.items():
        content = contents[name]
        output: dict[str, Any] = {
            "name": name,
            "datatype": datatype,
            "shape": [rows if side < 0 else side for side in shape],
        }
        if binary:
            output["parameters"] = {"binary_data_size": len(content)}
            behind.append(content)
        else:
            output["data"] = np.frombuffer(content, DATATYPES[datatype]).tolist()
        outputs.append(output)
    known = {key: value for key, value in about.items() if value is not None}
    head = json.dumps({**known, "outputs": outputs}, allow_nan=False).encode()
    if not behind:
        return Response(head, media_type="application/json")
    return Response(
        b"".join([head, *behind]),
        headers={LENGTH: str(len(head))},
        media_type="application/octet-stream",
    )


def _rows_end(answer: Answer) -> int:
    return answer.targets * (len(COLUMNS) - 1) * 8


def _join_targets(answers: Sequence[Answer]) -> bytes:
    """(n, 9) float64: the place of the frame before what a worker says of its targets."""
    parts = []
    for place, answer in enumerate(answers):
        rows = np.frombuffer(answer.body[: _rows_end(answer)], "<f8").reshape(-1, len(COLUMNS) - 1)
        parts.append(np.insert(rows, 0, place, axis=1))
    return np.concatenate(parts).tobytes()


def _join_probabilities(answers: Sequence[Answer]) -> bytes:
    return b"".join(answer.body[_rows_end(answer) :] for answer in answers)
