"""The Open Inference Protocol, spoken by the real client of Triton and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow.inference.predictor import Predictor
from pinglow.serve import worker
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import Answer, Task
from pinglow.serve.worker import describe
from pinglow.structures import Detections
from serving import LocalPool, serve

URL = "/v2/models/pinglow-fast"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    found = Predictor.load("pinglow-fast", backend="onnxruntime", device="cpu")
    assert isinstance(found, Predictor)
    return found


@pytest.fixture(scope="module")
def pool(predictor: Predictor) -> LocalPool:
    pool = LocalPool(ServeSettings(queue=4))
    pool.predictor = predictor
    return pool


@pytest.fixture(scope="module")
def address(pool: LocalPool) -> Iterator[str]:
    with serve(pool, max_mb=8, queue=4) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address}") as client:
        yield client


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint16]:
    """Three frames with one target, none and two."""
    frames = np.random.default_rng(5).normal(9000, 12, (3, 64, 96)).astype(np.uint16)
    for number, y, x in ((0, 20, 30), (2, 40, 70), (2, 12, 12)):
        frames[number, y : y + 3, x : x + 3] += 400
    return frames


def request_of(frame: NDArray[Any], datatype: str = "UINT16", **more: Any) -> dict[str, Any]:
    tensor = {"name": "frame", "shape": [*frame.shape], "datatype": datatype}
    return {"inputs": [tensor | {"data": frame.tolist()}], **more}


def rows(predictor: Predictor, frames: NDArray[Any]) -> list[list[float]]:
    """The tensor targets, from the library."""
    return [
        [place, target.x, target.y, *target.bbox, target.area, target.score]
        for place, frame in enumerate(frames)
        for target in predictor(frame).targets
    ]


def test_the_server_and_its_model_describe_themselves(client: httpx.Client) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "model_repository"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for url in (URL, f"{URL}/versions/1"):
        about = client.get(url).json()
        assert (about["name"], about["versions"]) == ("pinglow-fast", ["1"])
        ends = {
            end["name"]: (end["datatype"], end["shape"])
            for end in about["inputs"] + about["outputs"]
        }
        assert ends == {
            "frame": ("UINT16", [-1, -1, -1]),
            "probability": ("FP32", [-1, -1, -1]),
            "targets": ("FP64", [-1, 9]),
        }
        assert client.get(f"{url}/ready").json() == {"name": "pinglow-fast", "ready": True}
    known = {"name": "pinglow-fast", "version": "1", "state": "READY", "reason": ""}
    assert client.post("/v2/repository/index", content=b"").json() == [known]


def test_json_in_and_out_equals_the_library(
    client: httpx.Client, predictor: Predictor, frames: NDArray[np.uint16]
) -> None:
    response = client.post(f"{URL}/infer", json=request_of(frames, id="seven"))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert (answer["model_name"], answer["model_version"]) == ("pinglow-fast", "1")
    assert answer["id"] == "seven"
    outputs = {output["name"]: output for output in answer["outputs"]}
    expected = rows(predictor, frames)
    assert [row[0] for row in expected] == [0, 2, 2]
    targets = outputs["targets"]
    assert (targets["datatype"], targets["shape"]) == ("FP64", [3, 9])
    assert np.reshape(targets["data"], (3, 9)).tolist() == expected
    found = outputs["probability"]
    assert (found["datatype"], found["shape"]) == ("FP32", [3, 64, 96])
    for each, frame in zip(np.reshape(found["data"], (3, 64, 96)), frames, strict=True):
        np.testing.assert_array_equal(each, predictor.probability(frame))


def test_flat_and_nested_data_and_all_datatypes_answer_the_same(
    client: httpx.Client, predictor: Predictor, frames: NDArray[np.uint16]
) -> None:
    frame = frames[2]
    expected = np.ravel(rows(predictor, frame[None])).tolist()
    asked = {"outputs": [{"name": "targets"}]}
    for datatype in ("INT16", "UINT16", "INT32", "UINT32", "FP32", "FP64"):
        request = request_of(frame, datatype, **asked)
        if datatype == "FP32":
            request["inputs"][0]["data"] = frame.ravel().tolist()
        (output,) = client.post(f"{URL}/infer", json=request).json()["outputs"]
        assert output["data"] == pytest.approx(expected, rel=1e-4), datatype
    broken = request_of(np.where(frame > 1200, 1e308, -1e308), "FP64", **asked)
    answer = client.post(f"{URL}/infer", json=broken)
    assert answer.status_code == 422
    assert "without a single finite pixel" in answer.json()["error"]


def test_a_frame_without_targets_has_no_rows_and_min_score_decides(
    client: httpx.Client, frames: NDArray[np.uint16]
) -> None:
    asked = {"outputs": [{"name": "targets"}]}
    (output,) = client.post(f"{URL}/infer", json=request_of(frames[1], **asked)).json()["outputs"]
    assert (output["shape"], output["data"]) == ([0, 9], [])
    for min_score, count in ((0.0, 2), (0.999999, 0)):
        request = request_of(frames[2], parameters={"min_score": min_score}, **asked)
        (output,) = client.post(f"{URL}/infer", json=request).json()["outputs"]
        assert output["shape"][0] >= count if count else output["shape"][0] == 0


def test_binary_tensors_go_both_ways(
    client: httpx.Client, predictor: Predictor, frames: NDArray[np.uint16]
) -> None:
    tensor = {
        "name": "frame",
        "shape": [64, 96],
        "datatype": "UINT16",
        "parameters": {"binary_data_size": frames[0].nbytes},
    }
    outputs = [{"name": "probability", "parameters": {"binary_data": True}}, {"name": "targets"}]
    head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    response = client.post(
        f"{URL}/infer",
        content=head + frames[0].tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert response.headers["content-type"] == "application/octet-stream"
    end = int(response.headers["Inference-Header-Content-Length"])
    probability, targets = json.loads(response.content[:end])["outputs"]
    behind = response.content[end:]
    assert probability["parameters"] == {"binary_data_size": len(behind)}
    assert probability["shape"] == [64, 96]
    found = np.frombuffer(behind, "<f4").reshape(64, 96)
    np.testing.assert_array_equal(found, predictor.probability(frames[0]))
    assert targets["data"] == np.ravel(rows(predictor, frames[:1])).tolist()


def tensor(**changes: Any) -> dict[str, Any]:
    whole = {"name": "frame", "shape": [1, 2], "datatype": "UINT8", "data": [1, 2]} | changes
    return {"inputs": [{key: value for key, value in whole.items() if value is not None}]}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "the request: "),
        ({}, "inputs: Field required"),
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        (tensor(name="image"), "the model has no input 'image': send frame"),
        (tensor(datatype="BYTES"), "datatype 'BYTES': send UINT8, "),
        (tensor(shape=[2]), "send [height, width] or [N, height, width]"),
        (tensor(shape=[1, -2]), "inputs.0.shape.1: "),
        (tensor(shape=[2**30, 2**30]), "send all numbers of the shape"),
        (tensor(shape=[2**30, 1, 1]), "the batch has 1073741824 frames: send 4 at most"),
        (tensor(data=[1, 2, 3]), "frame has 3 bytes, and [1, 2] of UINT8 are 2"),
        (tensor(data=[1, 256]), "does not hold numbers of its datatype alone"),
        (tensor(data=[1, 2.5]), "does not hold numbers of its datatype alone"),
        (tensor(data=["1", "2"]), "does not hold numbers of its datatype alone"),
        (tensor(data=[[1], [2, 3]]), "does not hold numbers of its datatype alone"),
        (tensor(data=[{}, 1]), "does not hold numbers of its datatype alone"),
        (tensor(data=[10**30, 1]), "does not hold numbers of its datatype alone"),
        (tensor(data=None), "binary_data_size None and 0 bytes behind the JSON"),
        (tensor(data=None, parameters={"binary_data_size": 2}), "binary_data_size 2 and 0 bytes"),
        (tensor(parameters={"shared_memory_region": "r"}), "shared_memory_region is not supported"),
        (tensor() | {"outputs": [{"name": "mask"}]}, "no output 'mask': ask for probability or"),
        (tensor() | {"parameters": {"min_score": 1}}, "min_score is no number from 0 to below 1"),
        (tensor() | {"parameters": {"binary_data_output": 1}}, "binary_data is no bool"),
        (tensor() | {"parameters": {"sequence_id": 3}}, "send sequences to /v1/streams"),
        (tensor(shape=[5, 1, 2], data=[0] * 10), "the batch has 5 frames: send 4 at most"),
        (tensor(shape=[1025, 1024], data=[0] * 1025 * 1024), "ask for it as binary data"),
    ],
)
def test_wrong_requests_are_one_sentence(client: httpx.Client, request_: Any, message: str) -> None:
    response = client.post(f"{URL}/infer", json=request_)
    assert response.status_code == 400
    assert message in response.json()["error"]
    assert set(response.json()) == {"error", "request_id"}


def test_its_schema_is_whole(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    described = document["paths"]["/v2/models/{name}/infer"]["post"]
    body = described["requestBody"]["content"]["application/json"]["schema"]
    assert "$ref" not in json.dumps(body)
    assert body["properties"]["inputs"]["items"]["required"] == ["name", "shape", "datatype"]
    refused = described["responses"]["503"]["content"]["application/json"]["schema"]
    assert refused == {"$ref": "#/components/schemas/InferenceError"}


def test_errors_have_the_shape_of_the_protocol(client: httpx.Client, pool: LocalPool) -> None:
    def error(response: httpx.Response, status: int) -> str:
        assert response.status_code == status
        return str(response.json()["error"])

    assert "there is no version 1 of a model x" in error(client.get("/v2/models/x"), 404)
    assert "version 2" in error(client.get(f"{URL}/versions/2/ready"), 404)
    assert error(client.get("/v2/nothing"), 404)
    assert "JSON" in error(client.post(f"{URL}/infer", content=b"{"), 400)
    header = {"Inference-Header-Content-Length": "99"}
    short = client.post(f"{URL}/infer", content=b"{}", headers=header)
    assert "no number of bytes that the body has" in error(short, 400)
    deep = client.post(f"{URL}/infer", content=b'{"inputs": ' + b"[" * 10**5, headers=JSON)
    assert error(deep, 400)
    packed = client.post(f"{URL}/infer", content=b"x", headers={"Content-Encoding": "gzip"})
    assert "compressed" in error(packed, 415)
    large = client.post(f"{URL}/infer", content=b" " * (2**22 + 1))
    assert "send the frame as binary data" in error(large, 400)
    assert "8 MB, the limit" in error(client.post(f"{URL}/infer", content=b" " * 2**24), 413)
    nan = request_of(np.full((4, 4), np.nan), "FP32")
    lost = client.post(f"{URL}/infer", content=json.dumps(nan).encode(), headers=JSON)
    assert "without a single finite pixel" in error(lost, 422)
    pool.busy = True
    busy = client.post(f"{URL}/infer", json=tensor())
    pool.busy = False
    assert "frames wait already" in error(busy, 429)
    assert busy.headers["retry-after"] == "1"


def test_before_the_model_is_loaded_it_is_alive_and_not_ready() -> None:
    options = {"token": "s3cret"}
    pool = LocalPool(ServeSettings(**options))
    with serve(pool, **options) as address, httpx.Client(base_url=f"http://{address}") as client:
        assert client.get("/v2/health/live").status_code == 200  # without the token, as probes do
        assert client.get("/v2/health/ready").status_code == 503
        refused = client.get(URL)
        assert (refused.status_code, list(refused.json())) == (401, ["error", "request_id"])
        client.headers["Authorization"] = "Bearer s3cret"
        assert client.get(f"{URL}/ready").status_code == 503
        assert client.post("/v2/repository/index").json() == []


def test_a_detector_has_targets_alone(predictor: Predictor) -> None:
    boxes = Detections(np.array([[2.0, 3.0, 4.0, 5.0]]), np.array([0.75]))

    class Detector(LocalPool):
        async def start(self) -> None:
            self.loaded = replace(describe(predictor), kind="boxes")
            self.alive = 1

        async def submit_all(self, tasks: Sequence[Task]) -> list[Answer]:
            return [worker._answer(task, np.zeros((9, 9)), boxes, 0.5) for task in tasks]

    pool = Detector(ServeSettings())
    with serve(pool) as address, httpx.Client(base_url=f"http://{address}") as client:
        assert [each["name"] for each in client.get(URL).json()["outputs"]] == ["targets"]
        (output,) = client.post(f"{URL}/infer", json=tensor()).json()["outputs"]
        assert output["data"] == [0, 3.5, 5, 2, 3, 4, 5, 20, 0.75]


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_own_client_is_understood(
    address: str, predictor: Predictor, frames: NDArray[np.uint16], binary: bool
) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    with triton.InferenceServerClient(address, concurrency=3) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("pinglow-fast", "1")
        assert client.get_server_metadata()["name"] == "pinglow"
        about = client.get_model_metadata("pinglow-fast")
        (index,) = client.get_model_repository_index()
        assert index["name"] == about["name"] == "pinglow-fast"
        (known,) = about["inputs"]
        tensor = triton.InferInput(known["name"], frames.shape, known["datatype"])
        tensor.set_data_from_numpy(frames, binary_data=binary)
        outputs = [
            triton.InferRequestedOutput(output["name"], binary_data=binary)
            for output in about["outputs"]
        ]
        waiting = [
            client.async_infer("pinglow-fast", [tensor], outputs=wanted, request_id="seven")
            for wanted in (outputs, None)
        ]
        for found in (each.get_result() for each in waiting):
            assert found.get_response()["id"] == "seven"
            np.testing.assert_array_equal(found.as_numpy("targets"), rows(predictor, frames))
            expected = [predictor.probability(frame) for frame in frames]
            np.testing.assert_array_equal(found.as_numpy("probability"), expected)
        with pytest.raises(triton.InferenceServerException, match="there is no version 1"):
            client.infer("other", [tensor])
