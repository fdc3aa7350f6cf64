"""Who may use the service."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from pinglow.errors import OptionError
from pinglow.serve.security import why_not
from pinglow.serve.settings import ServeSettings, is_loopback, read_token

LOCAL = ServeSettings()
TOKEN = ServeSettings(host="0.0.0.0", token="secret")
OPEN = ServeSettings(host="0.0.0.0", insecure=True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8080"}, None),
        ({"host": "localhost"}, None),
        ({"host": "[::1]:8080"}, None),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "evil.example:8080"}, 403),
        ({"host": "evil@127.0.0.1:80@evil.example"}, 403),
        ({"host": "["}, 403),
        ({}, 403),
        ({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"}, None),
        ({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:9090"}, 403),
        ({"host": "127.0.0.1:8080", "origin": "https://evil.example"}, 403),
        ({"host": "127.0.0.1:8080", "origin": "null"}, 403),
        ({"host": "127.0.0.1:8080", "origin": "http://["}, 403),
    ],
)
def test_only_this_machine_is_answered(headers: dict[str, str], status: int | None) -> None:
    refused = why_not(LOCAL, "/v1/predict", headers)
    assert (refused and refused[0]) == status


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/predict", {}, 401),
        ("/v1/predict", {"authorization": "Bearer secret"}, None),
        ("/v1/predict", {"authorization": "bearer  secret"}, None),
        ("/v1/predict", {"authorization": "Bearer secre"}, 401),
        ("/v1/predict", {"authorization": "Bearer secret2"}, 401),
        ("/v1/predict", {"authorization": "Basic secret"}, 401),
        ("/v1/predict", {"authorization": "Bearer s\xe9cret"}, 401),
        ("/v1/streams", {"sec-websocket-protocol": "pinglow, bearer.secret"}, None),
        ("/v1/streams", {"sec-websocket-protocol": "bearer.other"}, 401),
        ("/metrics", {}, 401),
        ("/openapi.json", {}, 401),
        ("/v1/models", {}, 401),
        ("/", {}, None),
        ("/page/app.js", {}, None),
        ("/healthz", {}, None),
        ("/readyz", {}, None),
        ("/healthz/", {}, 401),
    ],
)
def test_a_token_opens_all_but_the_page_and_the_probes(
    path: str, headers: dict[str, str], status: int | None
) -> None:
    refused = why_not(TOKEN, path, {"host": "anything", **headers})
    assert (refused and refused[0]) == status


def test_without_security_any_host_is_answered_but_no_other_site() -> None:
    assert why_not(OPEN, "/v1/predict", {"host": "cam.example"}) is None
    other = {"host": "cam.example", "origin": "http://evil.example"}
    assert why_not(OPEN, "/v1/predict", other) is not None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_another_address_needs_a_token(host: str) -> None:
    with pytest.raises(OptionError, match=r"--token-file, or --insecure"):
        ServeSettings(host=host)
    ServeSettings(host=host, token="x")
    ServeSettings(host=host, insecure=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_this_machine_needs_none(host: str) -> None:
    assert is_loopback(host)
    ServeSettings(host=host)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("port", -1), ("port", 65536), ("workers", 0), ("workers", 10**6), ("queue", 0)),
        *(("max_mb", 1e-9), ("max_mb", math.inf), ("max_mb", math.nan), ("max_job_mb", math.inf)),
        *(("wait_ms", -1), ("wait_ms", math.inf), ("max_pixels", 10**10), ("streams", -1)),
    ],
)
def test_impossible_options_are_refused(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"--{option.replace('_', '-')} is"):
        ServeSettings(**{option: value})  # type: ignore[arg-type]


def test_a_token_is_never_shown() -> None:
    assert "secret" not in repr(TOKEN)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff", "it is no text"),
        (b"a b", "more than one word"),
        (b"a\nb\n", "more than one word"),
        ("ä".encode(), "more than one word"),
    ],
)
def test_a_file_without_a_token_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=said):
        read_token(path)


def test_a_token_is_read_without_white_space(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc123\n")
    assert read_token(tmp_path / "token") == "abc123"
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "gone", tmp_path / "loop", Path(os.devnull), tmp_path):
        with pytest.raises(OptionError, match="cannot be read"):
            read_token(path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux names pipes there")
def test_a_token_comes_through_a_shells_pipe_but_no_named_one(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"abc123\n")
    os.close(writer)
    assert read_token(Path(f"/dev/fd/{reader}")) == "abc123"
    os.close(reader)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OptionError, match="it is a pipe"):
        read_token(tmp_path / "pipe")
