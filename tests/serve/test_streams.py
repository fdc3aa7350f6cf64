"""Streams over WebSockets: a real client and server, and what happens inside."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
import websockets
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import ClientConnection, connect

from pinglow.serve import streams
from pinglow.serve.app import make_app
from pinglow.serve.connections import Connection
from pinglow.serve.logs import JsonFormatter
from pinglow.serve.service import Service
from pinglow.serve.settings import ServeSettings
from pinglow.serve.streams import Stream, number_targets
from pinglow.serve.tasks import Answer, BusyError, LostError, Task, UnreadyError


class Workers:
    """Answers each frame with the target that its bytes say: x, y; it can be held up."""

    loaded = None
    alive = restarts = queued = 0

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.held: asyncio.Event | None = None

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def drain(self, seconds: float) -> None: ...

    async def submit(self, task: Task) -> Answer:
        self.tasks.append(task)
        if self.held is not None:
            await self.held.wait()
        if task.content in _FAULTS:
            raise _FAULTS[task.content]
        if task.content.startswith(b"broken"):
            return _answer(422, {"detail": f"{task.name} is empty: copy or export it again"})
        x, y = (int(part) for part in task.content.split(b",")[:2])
        target = {"x": x, "y": y, "bbox": [x - 1, y - 1, 3, 3], "area": 9, "score": 0.9}
        line = {"source": task.name, "frame": 0, "name": task.name, "width": 64, "height": 48}
        return _answer(200, {**line, "targets": [target]})


_RAW = b"1,1,".ljust(8 * 6 * 2, b"x")
_FAULTS = {
    b"busy": BusyError("64 frames wait already: try again in a second"),
    b"lost": LostError("the worker that had the frame died: send it again"),
    b"unready": UnreadyError("the model is being loaded: try again in a few seconds"),
}


def _answer(status: int, body: dict[str, Any]) -> Answer:
    return Answer(status, "application/json", json.dumps(body).encode())


class Still:
    """A tracker that numbers nothing, and keeps the frames that it is shown."""

    def __init__(self) -> None:
        self.frames: list[Any] = []

    def update(self, found: Any, frame: Any = None) -> list[None]:
        self.frames.append(frame)
        return [None] * len(found.targets)


def _serve(pool: Workers, **options: Any) -> Any:
    return make_app(ServeSettings(**options), pool)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server() -> Iterator[Callable[..., ClientConnection]]:
    """Return what opens a stream at a real server; its token is "secret"."""
    app = _serve(Workers(), token="secret", max_mb=1, streams=2, stream_idle=30)
    config = uvicorn.Config(app, http=Connection, log_config=None, port=0, ws_max_size=2**20)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
    port = running.servers[0].sockets[0].getsockname()[1]

    def open_stream(query: str = "", token: str = "secret", **options: Any) -> ClientConnection:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        address = f"ws://127.0.0.1:{port}/v1/streams?{query}"
        return connect(address, additional_headers=headers, proxy=None, **options)

    yield open_stream
    running.should_exit = True
    thread.join(10)


def test_a_moving_target_keeps_its_track(server: Callable[..., ClientConnection]) -> None:
    pytest.importorskip("trackers", reason="needs trackers: pip install '.[video]'")
    with server("rate=10&name=cam") as stream:
        lines = []
        for step in range(6):
            stream.send(b"%d,20" % (10 + 3 * step))
            lines.append(json.loads(stream.recv(20)))
        stream.send(b"broken")
        broken = json.loads(stream.recv(20))
        stream.send(b"30,20")
        lines.append(json.loads(stream.recv(20)))
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4, 5, 7]
    assert {line["source"] for line in lines} == {"cam"}
    tracks = [line["targets"][0]["track"] for line in lines]
    assert tracks[-1] == 1
    assert set(tracks) <= {None, 1}
    assert broken["detail"] == "cam is empty: copy or export it again"
    assert (broken["frame"], broken["dropped"]) == (6, 0)
    assert all(line["latency_ms"] > 0 and line["dropped"] == 0 for line in lines)
    assert 0 == lines[0]["time"] < lines[1]["time"] < lines[-1]["time"]


def test_who_has_no_token_gets_no_stream(server: Callable[..., ClientConnection]) -> None:
    for token in ("", "wrong"):
        with pytest.raises(websockets.InvalidStatus) as caught:
            server(token=token)
        assert caught.value.response.status_code == 403
    with server("track=false", token="", subprotocols=["bearer.secret"]) as stream:
        assert stream.subprotocol == "bearer.secret"
    with server("track=false", token="", subprotocols=["bearer.secret", "pinglow"]) as stream:
        assert stream.subprotocol == "pinglow"


def _closing(stream: ClientConnection) -> tuple[int, str]:
    with pytest.raises(websockets.ConnectionClosed) as caught:
        stream.recv(20)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_what_is_too_large_or_too_many(server: Callable[..., ClientConnection]) -> None:
    with server("track=false") as first, server("track=false") as second:
        first.send(b"1,1")
        second.send(b"1,1")
        first.recv(20), second.recv(20)
        with server("track=false") as third:
            assert _closing(third) == (1013, "2 streams are open already: try again later")
        first.send(bytes(2**20 + 1))
        assert _closing(first)[0] == 1009
        second.send(b"2,2")
        assert json.loads(second.recv(20))["targets"][0]["x"] == 2


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("rate=0", "rate: "),
        ("min_score=1", "min_score: "),
        ("crop=1", "crop"),
        ("ignore=/etc/passwd", "/etc/passwd"),
        ("raw=1x1", "raw"),
    ],
)
def test_impossible_parameters_close_with_a_reason(query: str, words: str) -> None:
    with (
        TestClient(_serve(Workers()), base_url="http://127.0.0.1") as client,
        client.websocket_connect(f"ws://127.0.0.1/v1/streams?{query}") as stream,
        pytest.raises(WebSocketDisconnect) as caught,
    ):
        stream.receive_text()
    assert caught.value.code == 1008
    assert words in caught.value.reason
    assert len(caught.value.reason.encode()) <= 123


def test_a_stream_goes_on_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_make_tracker", lambda rate: tracker)
    pool, tracker = Workers(), Still()
    app = _serve(pool, stream_idle=0.2, max_mb=0.001)
    service: Service = app.state.service
    query = "raw=8x6:gray16le&min_score=0.2&ignore=0,0,2,2&crop=0,0,4,4"
    with TestClient(app, base_url="http://127.0.0.1") as client:
        with client.websocket_connect(f"ws://127.0.0.1/v1/streams?{query}") as stream:
            for content, detail in [(b"busy", "64 frames wait"), (b"lost", "died"), (_RAW, "")]:
                stream.send_bytes(content)
                assert detail in stream.receive_json().get("detail", "")
            assert service.streams == 1
            with pytest.raises(WebSocketDisconnect) as caught:
                stream.receive_text()
            assert caught.value.code == 1001
            assert caught.value.reason == "no frame came for 0.2 seconds: open another stream"
        assert [frame is None for frame in tracker.frames] == [True, True, False]
        assert tracker.frames[2].shape == (6, 8)
        assert tracker.frames[2].tobytes() == _RAW
        task = pool.tasks[-1]
        assert (task.shape, task.dtype, task.min_score) == ((6, 8), "<u2", 0.2)
        assert (task.ignore, task.crop) == (("0,0,2,2",), "0,0,4,4")
        for content, code in [(b"unready", 1013), (b"x" * 1100, 1009), ("text", 1003)]:
            with client.websocket_connect("ws://127.0.0.1/v1/streams") as stream:
                stream.send(
                    {"type": "websocket.receive"}
                    | ({"text": content} if isinstance(content, str) else {"bytes": content})
                )
                with pytest.raises(WebSocketDisconnect) as caught:
                    stream.receive_text()
                assert caught.value.code == code
    assert (service.streams, service.active, service.held) == (0, 0, 0)


def test_frames_that_come_too_fast_are_dropped_and_counted() -> None:
    async def test() -> None:
        pool = Workers()
        pool.held = asyncio.Event()
        service: Service = _serve(pool).state.service
        stream = Stream(service, Task(b"", "cam"), None)
        for number in range(100):
            stream.put(b"%d,1" % number)
            await asyncio.sleep(0)
            assert service.held <= 6 * len(b"99,1")
        pool.held.set()
        stream.end()
        lines = [line async for line in _answers(stream)]
        assert [line["frame"] for line in lines] == [0, 1, 96, 97, 98, 99]
        assert [line["targets"][0]["x"] for line in lines] == [0, 1, 96, 97, 98, 99]
        assert {line["dropped"] for line in lines} == {94}
        assert service.held == 0

    asyncio.run(test())


async def _answers(stream: Stream) -> Any:
    while (line := await stream.answer()) is not None:
        yield line


def test_large_frames_of_all_streams_are_bounded() -> None:
    async def test() -> None:
        pool = Workers()
        pool.held = asyncio.Event()
        service: Service = _serve(pool, max_mb=0.001).state.service
        many = [Stream(service, Task(b""), None) for _ in range(4)]
        for _ in range(10):
            for stream in many:
                stream.put(b"1,1," + bytes(1000))
                assert service.held <= 4 * 1048 + 1004 + 8 * 1004
        assert any(stream.dropped for stream in many)
        for stream in many:
            stream.close()
        assert service.held == 0

    asyncio.run(test())


def test_the_end_of_the_service_answers_what_came() -> None:
    pool = Workers()
    app = _serve(pool)
    service: Service = app.state.service
    with (
        TestClient(app, base_url="http://127.0.0.1") as client,
        client.websocket_connect("ws://127.0.0.1/v1/streams?track=false") as stream,
    ):
        for number in range(3):
            stream.send_bytes(b"%d,1" % number)
        first = stream.receive_json()
        assert stream.portal is not None
        stream.portal.call(service.drain, 5.0)
        assert [first["frame"], *(stream.receive_json()["frame"] for _ in range(2))] == [0, 1, 2]
        with pytest.raises(WebSocketDisconnect) as caught:
            stream.receive_text()
        assert caught.value.code == 1012
    assert service.active == 0


def test_only_the_best_of_very_many_targets_are_linked() -> None:
    class Counting(Still):
        def update(self, found: Any, frame: Any = None) -> Any:
            assert found.targets[0].score == 0.9
            return range(1, len(found.targets) + 1)

    targets = [{"bbox": [0, 0, 1, 1], "score": 0.9 - number / 1e4} for number in range(300)]
    number_targets(Counting(), targets)  # type: ignore[arg-type]
    assert [target["track"] for target in targets] == [*range(1, 201), *[None] * 100]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("track=false", {"frames": 1, "dropped": 0, "code": 1003}),
        ("min_score=5", {"code": 1008}),
    ],
)
def test_a_stream_has_an_id_and_a_line(
    query: str, expected: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pinglow.serve")
    app = make_app(ServeSettings(), Workers())  # type: ignore[arg-type]
    headers = {"X-Request-Id": "mine-1"}
    with (
        TestClient(app, base_url="http://127.0.0.1") as client,
        client.websocket_connect(f"ws://127.0.0.1/v1/streams?{query}", headers=headers) as stream,
    ):
        assert dict(stream.extra_headers or ())[b"x-request-id"] == b"mine-1"
        if "frames" in expected:
            stream.send_bytes(b"1,1")
            stream.receive_text()
            stream.send_text("no frame")
        with pytest.raises(WebSocketDisconnect):
            stream.receive_text()
    line = json.loads(JsonFormatter().format(caplog.records[-1]))
    assert {key: line.get(key) for key in ("id", "route", *expected)} == {
        "id": "mine-1",
        "route": "/v1/streams",
        **expected,
    }


def test_a_refused_stream_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pinglow.serve")
    app = make_app(ServeSettings(), Workers())  # type: ignore[arg-type]
    with (
        TestClient(app, base_url="http://127.0.0.1") as client,
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("ws://evil.example/v1/streams"),
    ):
        pass
    line = json.loads(JsonFormatter().format(caplog.records[-1]))
    assert (line["code"], line["route"]) == (1008, "other")
    assert line["id"]
