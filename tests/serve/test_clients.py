"""The example clients and the guide's Python, with a service that has a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from pinglow import Predictor, read_frame
from pinglow.structures import Target
from siege.service import ROOT, Service

CLIENTS = ROOT / "examples" / "clients"
FRAMES = [ROOT / "examples" / "images" / f"00000{number}.png" for number in range(2)]
TOKEN = "correct-Horse"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN)
    with Service("--token-file", str(file), "--backend", "onnxruntime") as service:
        yield service


@pytest.fixture(scope="module")
def expected() -> list[tuple[Target, ...]]:
    predictor = Predictor.load("pinglow-fast", backend="onnxruntime")
    found = [tuple(predictor(read_frame(frame)).targets) for frame in FRAMES]
    assert all(found)
    return found


def run(*command: str | Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PINGLOW_TOKEN": token}
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment, timeout=60
    )


def check(lines: str, expected: list[tuple[Target, ...]]) -> None:
    found = [json.loads(line) for line in lines.splitlines() if line]
    assert [line["source"] for line in found] == [frame.name for frame in FRAMES]
    for line, targets in zip(found, expected, strict=True):
        places = [(t["x"], t["y"], t["score"]) for t in line["targets"]]
        np.testing.assert_allclose(places, [(t.x, t.y, t.score) for t in targets], atol=1e-4)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(service: Service, expected: list[tuple[Target, ...]]) -> None:
    done = run(CLIENTS / "predict.sh", service.address, *FRAMES)
    assert done.returncode == 0, done.stderr
    check(done.stdout, expected)
    assert run(CLIENTS / "predict.sh", service.address, FRAMES[0], token="no").returncode == 1


def test_python(service: Service, expected: list[tuple[Target, ...]], tmp_path: Path) -> None:
    client = CLIENTS / "predict.py"
    done = run(sys.executable, client, service.address, *FRAMES)
    assert done.returncode == 0, done.stderr
    check(done.stdout, expected)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a frame")
    refused = run(sys.executable, client, service.address, broken)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("422: ")


def test_cpp(service: Service, expected: list[tuple[Target, ...]], tmp_path: Path) -> None:
    client = tmp_path / "predict"
    words = ("-std=c++17", "-Wall", "-Wextra", "-Werror", CLIENTS / "predict.cpp")
    if shutil.which("g++") is None or run("g++", "-fsyntax-only", *words).returncode:
        pytest.skip("needs g++ and the headers of libcurl")
    assert run("g++", *words, "-lcurl", "-o", client).returncode == 0
    done = run(client, service.address, *FRAMES)
    assert done.returncode == 0, done.stderr
    check(done.stdout, expected)
    assert run(client, service.address, FRAMES[0], token="no").returncode == 1


def test_stream(service: Service, expected: list[tuple[Target, ...]]) -> None:
    pytest.importorskip("trackers", reason="needs trackers")
    address = service.address.replace("http", "ws")
    done = run(sys.executable, CLIENTS / "stream.py", address, *FRAMES, "--rate", "2")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(line["targets"]) for line in found] == [len(targets) for targets in expected]
    assert all("track" in target for line in found for target in line["targets"])


def test_job(service: Service, expected: list[tuple[Target, ...]], tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "frames"), "zip", FRAMES[0].parent))
    done = run(sys.executable, CLIENTS / "predict.py", service.address, "--job", archive)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(line["targets"]) for line in found][:2] == [len(each) for each in expected]


def test_the_guide(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "guides" / "serve.md").read_text()
    sources = [t.content for t in MarkdownIt().parse(page) if t.info == "python"]
    assert sources
    opener = urllib.request.build_opener()
    opener.addheaders = [("Authorization", f"Bearer {TOKEN}")]
    monkeypatch.setattr(urllib.request, "_opener", opener)
    monkeypatch.chdir(ROOT)
    for source in sources:
        exec(source.replace("http://127.0.0.1:8080", service.address), {})
    assert len(capsys.readouterr().out.splitlines()) >= 1
