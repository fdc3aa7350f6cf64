"""`pinglow predict` on what is live: pipes, ends, interruptions, what is said."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from pinglow.cli.main import app
from pinglow.errors import FrameError
from pinglow.io.live import Feed
from pinglow.models.card import ModelCard
from pinglow.structures import Prediction

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
OPEN_CAMERA = "pinglow.io.streams._open_camera"
RAW = "30x20:gray16le"


class Finder:
    """Finds bright pixels; another kind of predictor stops the job by Ctrl-C after some frames."""

    kind = "pixels"
    card = ModelCard(name="m", network={}, parameters=0)

    def __init__(self, until: int | None = None) -> None:
        self._until = until
        self.seen = 0

    def __call__(self, frame: NDArray[Any]) -> Prediction:
        if self.seen == self._until:
            raise KeyboardInterrupt
        self.seen += 1
        return Prediction((frame > 100).astype(np.float32))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, until: int | None = None) -> Result:
        finder = Finder(until)
        monkeypatch.setattr("pinglow.inference.predictor.Predictor.load", lambda *_, **__: finder)
        return CliRunner().invoke(app, ["predict", *arguments])

    return invoke


def make_frames(count: int) -> NDArray[np.uint16]:
    frames = np.full((count, 20, 30), 50, np.uint16)
    frames[:, 4:6, 7:9] = 200
    return frames


def pour(path: Path, content: bytes) -> None:
    os.mkfifo(path)
    threading.Thread(target=lambda: path.write_bytes(content), daemon=True).start()


@contextmanager
def camera(frames: Iterator[Any]) -> Iterator[Feed]:
    yield Feed(frames, 10.0, patient=True)


def test_a_named_pipe(run: Callable[..., Result], tmp_path: Path) -> None:
    pour(tmp_path / "ir", make_frames(4).tobytes())
    result = run("ir", "--raw", RAW, "--out", "out")
    assert result.exit_code == 0, result.output
    assert "4 frames, 4 targets" in result.stdout
    assert "live: 0 of 4 frames dropped; results " in result.stderr
    lines = [json.loads(line) for line in Path("out/targets.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert {line["source"] for line in lines} == {"ir"}


def test_a_pipe_that_ends_in_the_middle_keeps_what_came(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    pour(tmp_path / "ir", make_frames(4).tobytes()[:-5])
    result = run("ir", "--raw", RAW, "--out", "-")
    assert result.exit_code == 2
    assert len(result.stdout.splitlines()) == 3
    assert "ir ends in the middle of frame 3, after 1,195 of 1,200 bytes" in result.stderr


def test_ctrl_c_leaves_whole_results(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = threading.Event()

    def frames() -> Iterator[Any]:
        yield from make_frames(4)
        silent.wait(20)  # a camera that says nothing more does not hold the job

    monkeypatch.setattr(OPEN_CAMERA, lambda number, raw: camera(frames()))
    result = run("0", "--out", "out", until=3)
    silent.set()
    assert result.exit_code == 130
    assert "live: 0 of 4 frames dropped" in result.stderr
    assert "The results so far are in out." in result.stderr
    assert len(Path("out/targets.jsonl").read_text().splitlines()) == 3
    with av.open("out/overlays/camera0_overlay.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 3


def test_a_camera_that_goes_away_keeps_what_came(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_camera(number: str, raw: Any) -> Any:
        opened.append(number)
        if len(opened) > 1:
            raise FrameError("no such device")
        return camera(iter(make_frames(2)))

    monkeypatch.setattr(OPEN_CAMERA, open_camera)
    monkeypatch.setattr("pinglow.io.live.WAITS", (0,))
    result = run("0", "--out", "out")
    assert result.exit_code == 2
    assert len(opened) == 2
    assert len(Path("out/targets.jsonl").read_text().splitlines()) == 2
    assert "left out: 0 went away after 2 frames (no such device)" in result.stderr


def test_a_camera_that_does_not_open_is_one_sentence(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_camera(number: str, raw: Any) -> Any:
        raise FrameError(f"camera {number} cannot be opened")

    monkeypatch.setattr(OPEN_CAMERA, open_camera)
    result = run("0", "--out", "-")
    assert (result.exit_code, result.stderr) == (2, "error: camera 0 cannot be opened\n")


@pytest.mark.parametrize("command", ["predict", "--version"])
def test_where_nobody_reads_on_it_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any, command: str
) -> None:
    (tmp_path / "clip.raw").write_bytes(make_frames(9).tobytes())
    monkeypatch.setattr("pinglow.inference.predictor.Predictor.load", lambda *_, **__: Finder())
    words = [command, str(tmp_path / "clip.raw"), "--raw", RAW, "--out", "-"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        with pytest.raises(SystemExit) as ended:
            app(words[:1] if command == "--version" else words)
    assert ended.value.code == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ir"], "ir is a pipe or a device: say with --raw how its frames lie in it"),
        (["ir", "a.png", "--raw", RAW], "ir may never end"),
        (["ir", "--raw", RAW, "--resume"], "--resume: a live source cannot be gone on with"),
        (["a.png", "--raw", "30x20"], "--raw '30x20' is not WIDTHxHEIGHT:KIND"),
        ([".", "--raw", RAW], "--raw is for pipes, raw files and cameras"),
        (["ir", "--raw", RAW, "--crop", "0,0,9"], "--crop '0,0,9' has 3 numbers"),
        (["ir", "--raw", RAW, "--crop", f"0,0,9,{'9' * 5000}"], "is not x,y,w,h"),
        (["ir", "--raw", RAW, "--crop", "0,0,9,-9"], "the crop 0,0,9,-9 is impossible"),
    ],
)
def test_what_cannot_be(
    run: Callable[..., Result], tmp_path: Path, arguments: list[str], message: str
) -> None:
    os.mkfifo(tmp_path / "ir")
    (tmp_path / "a.png").touch()
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
