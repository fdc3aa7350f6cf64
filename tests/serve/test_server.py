"""The service with its socket: connections that cost too much, signals, the end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import fake_worker
from pinglow.errors import ModelError
from pinglow.serve import connections, server
from pinglow.serve.pool import Pool
from pinglow.serve.settings import ServeSettings


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Serve with a fake worker while a client, in a thread, does something with the port."""
    monkeypatch.setattr(server, "log_to_stderr", lambda: None)

    def run(client: Callable[[int], None], work: Any = fake_worker.work, **options: Any) -> None:
        monkeypatch.setattr(server, "Pool", partial(Pool, work=work))
        failed: list[BaseException] = []

        def use(address: str) -> None:
            try:
                client(int(address.rpartition(":")[2]))
            except BaseException as error:
                failed.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

        threads = []

        def begin(address: str) -> None:
            threads.append(threading.Thread(target=use, args=(address,)))
            threads[0].start()

        try:
            server.run(ServeSettings(port=0, **options), begin)
        finally:
            threads[0].join()
        if failed:
            raise failed[0]

    return run


@pytest.fixture
def ignored() -> Iterator[None]:
    """Outlive the client's signal where the service ends before it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


def ask(port: int, content: bytes = b"", path: str = "/v1/predict") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST" if content else "GET", path, content or None)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def wait_for(port: int, path: str, status: int, said: bytes = b"") -> None:
    while True:
        found, body = ask(port, path=path)
        if found == status and said in body:
            return
        time.sleep(0.02)


def test_what_was_accepted_is_answered_before_the_end(
    serve: Callable[..., None], ignored: None, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    answers: list[tuple[int, bytes]] = []

    def client(port: int) -> None:
        assert ask(port, path="/healthz")[0] == 200  # at once
        wait_for(port, "/readyz", 200)
        content = f"wait {gate}".encode()
        threads = [
            threading.Thread(target=lambda: answers.append(ask(port, content))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        wait_for(port, "/metrics", 200, b"pinglow_queue_length 3.0")
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(port, "/readyz", 503)
        status, body = ask(port, b"x")
        assert status == 503
        assert "being stopped" in json.loads(body)["detail"]
        gate.touch()
        for thread in threads:
            thread.join()

    serve(client)
    assert [status for status, _ in answers] == [200] * 4


def test_a_killed_worker_costs_its_request_only(serve: Callable[..., None]) -> None:
    def client(port: int) -> None:
        wait_for(port, "/readyz", 200)
        status, body = ask(port, b"die")
        assert status == 503
        assert "send it again" in json.loads(body)["detail"]
        assert ask(port, b"x")[0] == 200

    serve(client)


def test_a_model_that_cannot_be_used_ends_the_service(
    serve: Callable[..., None], ignored: None
) -> None:
    def client(port: int) -> None:
        with contextlib.suppress(OSError):
            wait_for(port, "/readyz", 200)

    with pytest.raises(ModelError, match="the model is damaged"):
        serve(client, fake_worker.refuse)


def connect(port: int, first: bytes = b"") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), timeout=60)
    one.sendall(first)
    return one


def test_heads_that_trickle_in_are_cut(
    serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD", 0.5)

    def client(port: int) -> None:
        wait_for(port, "/readyz", 200)
        silent = connect(port)
        slow = connect(port, b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert ask(port, b"x")[0] == 200
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < start + 30:  # what comes wins no time
                slow.sendall(b"X-A: b\r\n")
                time.sleep(0.05)
        assert time.monotonic() < start + 30
        with contextlib.suppress(ConnectionError):
            assert silent.recv(100) == b""
        silent.close()
        slow.close()

    serve(client)


def test_of_too_many_connections_the_oldest_that_waits_is_cut(
    serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_MOST", 8)

    def client(port: int) -> None:
        wait_for(port, "/readyz", 200)
        many = [connect(port, b"GET / HTTP/1.1\r\n") for _ in range(20)]
        assert ask(port, b"x")[0] == 200
        with contextlib.suppress(ConnectionError):
            assert many[0].recv(100) == b""
        for one in many:
            one.close()

    serve(client)


def test_what_is_too_large_is_answered_while_it_comes(serve: Callable[..., None]) -> None:
    def client(port: int) -> None:
        wait_for(port, "/readyz", 200)
        head = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        large = connect(port, head)
        for _ in range(40):
            large.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert large.recv(100).startswith(b"HTTP/1.1 413")
        large.close()

    serve(client, max_mb=1)
