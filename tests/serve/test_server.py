"""The service as a process: sockets, connections that cost too much, signals, the end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = """
import sys
sys.path.insert(0, {tests!r})
import fake_worker
from pinglow.serve import connections, pool, server
from pinglow.serve.settings import ServeSettings

if __name__ == "__main__":
    connections._HEAD = {head}
    connections._MOST = {most}
    Pool = pool.Pool
    server.Pool = lambda settings: Pool(settings, fake_worker.{work})
    try:
        server.run(ServeSettings(port=0, {options}), lambda text: print(text, flush=True))
    except Exception as error:
        print(type(error).__name__, error, flush=True)
        sys.exit(2)
"""


@contextlib.contextmanager
def serving(
    folder: Path, options: str = "", *, work: str = "work", head: float = 10, most: int = 512
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service with a fake worker; the process and its port."""
    script = folder / "serve.py"
    values = {"work": work, "head": head, "most": most, "options": options}
    script.write_text(RUN.format(tests=str(ROOT), **values))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        port = int(re.search(r":(\d+)$", process.stdout.readline())[1])  # type: ignore[index]
        yield process, port
    finally:
        process.kill()
        process.communicate()


def ask(port: int, content: bytes = b"", path: str = "/v1/predict") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST" if content else "GET", path, content or None)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def wait_ready(port: int) -> None:
    while ask(port, path="/readyz")[0] != 200:
        time.sleep(0.02)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_a_service_begins_answers_and_drains(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with serving(tmp_path) as (process, port):
        assert ask(port, path="/healthz")[0] == 200  # at once
        wait_ready(port)
        answers: list[tuple[int, bytes]] = []
        content = f"wait {gate}".encode()
        threads = [
            threading.Thread(target=lambda: answers.append(ask(port, content))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        while b"pinglow_queue_length 3.0" not in ask(port, path="/metrics")[1]:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        while ask(port, path="/readyz")[0] != 503:
            time.sleep(0.02)
        assert ask(port, b"x")[0] == 503
        gate.touch()
        for thread in threads:
            thread.join()
        assert [status for status, _ in answers] == [200] * 4
        assert process.wait(20) == 0
    statuses = [each["status"] for each in lines(tmp_path) if each.get("route") == "/v1/predict"]
    assert statuses == [200] * 4


def test_a_killed_worker_costs_its_request_only(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, port):
        wait_ready(port)
        status, body = ask(port, b"die")
        assert status == 503
        assert "send it again" in json.loads(body)["detail"]
        assert ask(port, b"x")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_a_model_that_cannot_be_used_ends_the_service(tmp_path: Path) -> None:
    with serving(tmp_path, work="refuse") as (process, _):
        said, _ = process.communicate(timeout=20)
        assert said == "ModelError the model is damaged: copy it again\n"
        assert process.returncode == 2


def test_hostile_connections_are_cut_and_stall_nobody(tmp_path: Path) -> None:
    with serving(tmp_path, "max_mb=1", head=1.5, most=12) as (_, port):
        wait_ready(port)

        def connect(first: bytes) -> socket.socket:
            one = socket.create_connection(("127.0.0.1", port), timeout=20)
            one.sendall(first)
            return one

        start = time.monotonic()
        slow = [connect(b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n") for _ in range(4)]
        assert ask(port, b"x")[0] == 200
        # Headers that trickle in win no time.
        while time.monotonic() - start < 1:
            slow[0].sendall(b"X-A: b\r\n")
            time.sleep(0.1)
        for one in slow:
            with contextlib.suppress(ConnectionError):
                assert one.recv(100) == b""
            one.close()
        assert time.monotonic() - start < 10
        # More connections than may be: the oldest that waits is cut.
        many = [connect(b"GET / HTTP/1.1\r\n") for _ in range(30)]
        assert ask(port, b"x")[0] == 200
        for one in many:
            one.close()
        # What is too large is answered, not swallowed.
        large = connect(
            b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                large.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert large.recv(100).startswith(b"HTTP/1.1 413")
        large.close()
        # Bad heads.
        for head in (
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
            b"Content-Length: 6\r\n\r\n",
            b"\x16\x03\x01" + os.urandom(50) + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
        ):
            one = connect(b"")
            with contextlib.suppress(ConnectionError):
                one.sendall(head)
                assert one.recv(100).startswith(b"HTTP/1.1 400")
            one.close()
        assert ask(port, b"x")[0] == 200
