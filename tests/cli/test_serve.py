"""pinglow serve: what it refuses before anything is opened."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pinglow.cli.main import app


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines"),
        (["--workers", "0"], "--workers is 0: give 1 or more"),
        (["--queue", "0"], "--queue is 0: give 1 or more"),
        (["--port", "70000"], "--port is 70000: give 65535 or less"),
        (["--max-mb", "0"], "--max-mb is 0: give 0.0001 to 4096"),
        (["--max-pixels", "0"], "--max-pixels is 0: give 1 or more"),
        (["--wait-ms", "-1"], "--wait-ms is -1.0: give 0 or more"),
        (["--wait-ms", "nan"], "--wait-ms is nan: give 0 or more"),
        (["--min-score", "1"], "--min-score is 1.0: use a value from 0 to below 1"),
        (["--model", "gone"], "model 'gone' is neither a file nor a bundled model"),
        (["--token-file", "gone"], "--token-file gone cannot be read"),
    ],
)
def test_bad_options_are_one_line(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["serve", *words])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    result = CliRunner().invoke(app, ["serve", "--token-file", str(tmp_path / "token")])
    assert result.exit_code == 2
    assert "is empty: write a token into it" in result.stderr


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "--port", str(port)])
    assert result.exit_code == 2
    assert f"--port {port} cannot be listened on" in result.stderr
