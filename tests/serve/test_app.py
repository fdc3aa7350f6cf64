"""What the endpoints answer; the worker is a function."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fake_worker import CARD, LOADED
from pinglow.serve.app import make_app
from pinglow.serve.logs import JsonFormatter
from pinglow.serve.pool import Pool
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import Answer, BusyError, LostError, Statistics, Task, UnreadyError
from pinglow.serve.worker import refusal

LINE = {"source": "a", "frame": 0, "name": "a", "width": 2, "height": 1, "targets": []}


def find(task: Task) -> Answer:
    """A worker's answer: to what begins with "bad", why there is none."""
    if task.content.startswith(b"bad"):
        return refusal(task.name, f"{task.name} is damaged: copy it again")
    line = json.dumps(LINE | {"source": task.name}).encode()
    return Answer(200, "application/json", line, 1, 1, Statistics(5.0, 1.0, 2, 1), 0.25, 1)


class OnePool(Pool):
    """A pool without workers."""

    def __init__(self, settings: ServeSettings, answer: Callable[[Task], Answer] = find) -> None:
        super().__init__(settings)
        self.loaded, self.alive = LOADED, 1
        self.answer, self.asked = answer, list[Task]()

    async def submit_all(self, tasks: Sequence[Task]) -> list[Answer]:
        self.asked += tasks
        return [self.answer(task) for task in tasks]


@pytest.fixture
def pool() -> OnePool:
    return OnePool(ServeSettings(max_mb=2**-10))


@pytest.fixture
def app(pool: OnePool) -> FastAPI:
    return make_app(pool._settings, pool)


def ask(app: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8080"
        ) as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


def detail(response: httpx.Response) -> str:
    """The one sentence of a refusal, which has nothing else."""
    body = response.json()
    assert set(body) == {"detail", "request_id"}
    assert body["request_id"] == response.headers["x-request-id"]
    assert "\n" not in body["detail"]
    return str(body["detail"])


def test_a_frame_is_answered_with_its_line(app: FastAPI, pool: OnePool) -> None:
    query = "?name=x.png&min_score=0.2&ignore=0,0,1,1&ignore=1,0,1,1&crop=0,0,2,1"
    response = ask(app, "POST", f"/v1/predict{query}", content=b"frame")
    assert (response.status_code, response.json()) == (200, LINE | {"source": "x.png"})
    assert pool.asked == [
        Task(b"frame", "x.png", "targets", 0.2, ("0,0,1,1", "1,0,1,1"), "0,0,2,1")
    ]


@pytest.mark.parametrize(
    ("query", "accept", "want"),
    [
        ("", "*/*", "targets"),
        ("", "image/png", "overlay"),
        ("?save=mask", "image/png", "mask"),
        ("?save=probability", "*/*", "probability"),
    ],
)
def test_what_is_wanted(app: FastAPI, pool: OnePool, query: str, accept: str, want: str) -> None:
    ask(app, "POST", f"/v1/predict{query}", content=b"x", headers={"Accept": accept})
    assert [task.want for task in pool.asked] == [want]


def test_a_form_is_answered_in_its_order(app: FastAPI) -> None:
    files = [("f", ("1.png", b"a")), ("f", ("2.png", b"bad")), ("g", ("3.png", b"b"))]
    response = ask(app, "POST", "/v1/predict", files=files, data={"other": "words"})
    assert response.status_code == 200
    frames = response.json()["frames"]
    assert [each["source"] for each in frames] == ["1.png", "2.png", "3.png"]
    assert frames[1] == {"source": "2.png", "detail": "2.png is damaged: copy it again"}
    assert frames[2] == LINE | {"source": "3.png"}


@pytest.mark.parametrize(
    ("content", "content_type", "status", "said"),
    [
        (b"bad", "image/png", 422, "frame is damaged: copy it again"),
        (b"x", "multipart/form-data", 400, "Missing boundary"),
        (b"x", "multipart/form-data; boundary=y", 400, "the form cannot be read"),
        (b"--y--\r\n", "multipart/form-data; boundary=y", 422, "the form has no files"),
        (b"x" * 1025, "image/png", 413, "larger than 0.000976562 MB"),
    ],
)
def test_what_cannot_be_read_is_refused(
    app: FastAPI, content: bytes, content_type: str, status: int, said: str
) -> None:
    headers = {"Content-Type": content_type}
    response = ask(app, "POST", "/v1/predict", content=content, headers=headers)
    assert response.status_code == status
    assert said in detail(response)
    assert app.state.service.held == 0
    assert app.state.service.active == 0


def test_a_form_of_broken_frames_is_refused(app: FastAPI) -> None:
    files = [("f", ("1.png", b"bad")), ("f", ("2.png", b"bad"))]
    response = ask(app, "POST", "/v1/predict", files=files)
    assert response.status_code == 422
    assert detail(response) == (
        "no frame could be read: 1.png is damaged: copy it again (and 1 more)"
    )


def test_a_body_that_does_not_say_how_long_it_is_is_counted(app: FastAPI) -> None:
    async def chunks() -> Any:
        for _ in range(10):
            yield b"x" * 500
        raise AssertionError("it is read to its end")

    response = ask(app, "POST", "/v1/predict", content=chunks())
    assert response.status_code == 413


def test_a_body_that_comes_too_slowly_is_given_up(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pinglow.serve.bodies._GRACE", 0.02)

    async def chunks() -> Any:
        yield b"x"
        await asyncio.sleep(5)

    response = ask(app, "POST", "/v1/predict", content=chunks())
    assert response.status_code == 408
    assert "too slowly" in detail(response)
    assert response.headers["connection"] == "close"


def test_what_all_bodies_take_is_bounded(app: FastAPI) -> None:
    app.state.service.held = 8 * pool_bytes(app)
    response = ask(app, "POST", "/v1/predict", content=b"x")
    assert response.status_code == 429
    assert app.state.service.held == 8 * pool_bytes(app)


def pool_bytes(app: FastAPI) -> int:
    return int(app.state.service.settings.max_bytes)


@pytest.mark.parametrize(
    ("error", "status"),
    [(BusyError("full"), 429), (UnreadyError("not yet"), 503), (LostError("it died"), 503)],
)
def test_what_may_be_sent_again_says_when(
    app: FastAPI, pool: OnePool, error: Exception, status: int
) -> None:
    def fail(task: Task) -> Answer:
        raise error

    pool.answer = fail
    response = ask(app, "POST", "/v1/predict", content=b"x")
    assert response.status_code == status
    assert int(response.headers["retry-after"]) >= 1
    assert detail(response) == str(error)


def test_a_fault_is_one_sentence_and_a_line_in_the_log(
    app: FastAPI, pool: OnePool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(task: Task) -> Answer:
        raise RuntimeError("secret /path")

    pool.answer = fail
    headers = {"X-Request-Id": "mine-1"}
    response = ask(app, "POST", "/v1/predict", content=b"x", headers=headers)
    assert response.status_code == 500
    assert "mine-1" in detail(response)
    assert "secret" not in response.text
    assert "secret /path" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/predict", 405),
        ("POST", "/v1/predict?min_score=1", 422),
        ("POST", "/v1/predict?min_score=nan", 422),
        ("POST", "/v1/predict?save=words", 422),
        ("POST", "/v1/predict?name=", 422),
    ],
)
def test_an_impossible_request_is_refused(
    app: FastAPI, method: str, path: str, status: int
) -> None:
    response = ask(app, method, path, content=b"x" if method == "POST" else None)
    assert response.status_code == status
    assert detail(response)


def test_a_request_has_an_id_and_a_line(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pinglow.serve")
    for given in ("good-1", "bad\x1b[31m", "x" * 65, ""):
        headers = {"X-Request-Id": given}
        response = ask(app, "POST", "/v1/predict", content=b"abc", headers=headers)
        known = response.headers["x-request-id"]
        assert (known == given) == (given == "good-1")
        line = json.loads(JsonFormatter().format(caplog.records[-1]))
        assert {key: line[key] for key in ("id", "method", "route", "status", "bytes")} == {
            "id": known,
            "method": "POST",
            "route": "/v1/predict",
            "status": 200,
            "bytes": 3,
        }
        assert (line["queue_ms"], line["batch"]) == (250.0, 1)
        assert line["ms"] > 0


def test_a_log_line_cannot_be_broken() -> None:
    record = logging.makeLogRecord({"msg": 'a\n{"level": "x"}\x1b[31m', "levelname": "INFO"})
    text = JsonFormatter().format(record)
    assert text.isprintable()
    assert json.loads(text)["message"] == 'a\n{"level": "x"}\x1b[31m'


def test_models_are_described(app: FastAPI, pool: OnePool) -> None:
    [model] = ask(app, "GET", "/v1/models").json()["models"]
    assert (model["name"], model["kind"], model["min_score"]) == ("fake", "pixels", 0.5)
    assert model["data"] == ["none"]
    assert model["tracks"] == (importlib.util.find_spec("trackers") is not None)
    pool.loaded = None
    assert ask(app, "GET", "/v1/models").status_code == 503


def test_readiness_follows_the_workers_and_the_end(app: FastAPI, pool: OnePool) -> None:
    assert ask(app, "GET", "/readyz").status_code == 200
    pool.alive = 0
    assert ask(app, "GET", "/readyz").status_code == 503
    pool.alive = 1
    asyncio.run(app.state.service.drain(1))
    assert ask(app, "GET", "/readyz").status_code == 503
    assert ask(app, "GET", "/healthz").status_code == 200
    response = ask(app, "POST", "/v1/predict", content=b"x")
    assert response.status_code == 503
    assert response.headers["connection"] == "close"
    assert "being stopped" in detail(response)


def metrics(app: FastAPI) -> dict[str, float]:
    lines = ask(app, "GET", "/metrics").text.splitlines()
    rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def test_metrics_count(app: FastAPI) -> None:
    for content in (b"a", b"b", b"bad"):
        ask(app, "POST", "/v1/predict", content=content)
    found = metrics(app)
    labels = '{method="POST",route="/v1/predict",status="%s"}'
    assert found["pinglow_requests_total" + labels % 200] == 2
    assert found["pinglow_requests_total" + labels % 422] == 1
    assert found['pinglow_frames_total{result="broken"}'] == 1
    assert found["pinglow_targets_total"] == found["pinglow_alarms_last_hour"] == 2
    assert found["pinglow_queue_length"] == 0
    assert found["pinglow_workers_ready"] == 1
    assert found['pinglow_input_statistic{statistic="median"}'] == 5
    assert found['pinglow_request_seconds_count{route="/v1/predict"}'] == 3
    assert found['pinglow_batch_size_bucket{le="1.0"}'] == 3


def test_more_alarms_than_the_operating_point_has_are_seen(app: FastAPI, pool: OnePool) -> None:
    point = {
        **{"min_score": 0.5, "unit": "frame", "wished": 0.1, "alarms": 1, "rate": 0.05},
        **{"bound": 0.1, "confidence": 0.9, "frames": 20, "clips": 1},
    }
    pool.loaded = type(LOADED)(CARD | {"operating_point": point}, "pixels", 0.5, "cpu", "fake", 1)
    for _ in range(12):  # an alarm a frame, ten times the bound
        ask(app, "POST", "/v1/predict", content=b"a")
    assert metrics(app)["pinglow_alarm_evidence"] > 100


@pytest.mark.parametrize("path", ["/v2", "/v2/health/ready"])
def test_below_v2_a_refusal_is_an_error(app: FastAPI, path: str) -> None:
    refused = ask(app, "GET", path, headers={"Host": "evil.example"})
    assert refused.status_code == 403
    assert set(refused.json()) == {"error", "request_id"}


def test_every_refusal_is_described(app: FastAPI) -> None:
    described = ask(app, "GET", "/openapi.json").json()
    answers = described["paths"]["/v1/predict"]["post"]["responses"]
    assert set(answers) >= {"200", "400", "401", "403", "408", "413", "422", "429", "500", "503"}
    assert "Retry-After" in answers["429"]["headers"]
    assert set(answers["200"]["content"]) >= {"application/json", "image/png"}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert {"401", "403", "500", "503"} <= set(operation["responses"]), (path, method)
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and status != "416":  # a range, which has no body
                    schema = answer["content"]["application/json"]["schema"]
                    name = "InferenceError" if path.startswith("/v2") else "Refusal"
                    assert schema == {"$ref": f"#/components/schemas/{name}"}, (path, status)
