from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner, Result

from pinglow.cli.main import app
from pinglow.models.card import ModelCard, read_card
from pinglow.structures import Prediction

av = pytest.importorskip("av", reason="needs av: pip install '.[video]'")
pytest.importorskip("trackers", reason="needs trackers: pip install '.[video]'")

Run = Callable[[str], Result]


class Finder:
    """Finds each pixel above 100, with a score of its counts / 255."""

    kind = "pixels"
    min_score = 0.0

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self.calls = 0

    def __call__(self, frame: NDArray[Any]) -> Prediction:
        self.calls += 1
        found = np.where(frame > 100, frame / np.float32(255), 0).astype(np.float32)
        return Prediction(found, 0.3, self.min_score)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_model: Path) -> Run:
    finder = Finder(read_card(small_model))

    def load(name: str, *, min_score: float | None, **_: object) -> Finder:
        finder.card = read_card(name)
        finder.min_score = finder.card.choose_score(min_score)
        return finder

    monkeypatch.setattr("pinglow.inference.predictor.Predictor.load", load)
    monkeypatch.chdir(tmp_path)

    def invoke(words: str) -> Result:
        given = shlex.split(words.replace("MODEL", shlex.quote(str(small_model))))
        result = CliRunner().invoke(app, given)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    invoke.finder = finder  # type: ignore[attr-defined]
    return invoke


def save_stills(folder: Path, count: int, spots: dict[int, int]) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        frame = np.full((24, 32), 50, dtype=np.uint8)
        if number in spots:
            frame[4:6, 7:9] = spots[number]
        Image.fromarray(frame).save(folder / f"f{number:03}.png")


def test_stills_give_a_model_with_its_operating_point(run: Run) -> None:
    save_stills(Path("sky"), 80, {3: 240, 7: 200, 9: 150, 11: 130, 20: 120, 30: 115})
    result = run("calibrate --clear sky --alarms-per-frame 0.1 --model MODEL --out mine")
    assert result.exit_code == 0, result.stderr
    point = read_card("mine").operating_point
    assert point is not None
    assert (point.unit, point.frames, point.clips, point.hours) == ("frame", 80, 80, None)
    assert point.bound <= 0.1
    # Three alarms in 80 frames are bounded by 7.75 / 80, four by 9.15 / 80.
    assert point.alarms == 3
    assert 130 / 255 < point.min_score < 150 / 255
    with Path("mine/alarms.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["clip"] for row in rows[:2]] == ["sky/f003.png", "sky/f007.png"]
    assert (rows[0]["x"], rows[0]["y"]) == ("7.5", "4.5")
    assert sorted(path.name for path in Path("mine/alarms").iterdir())[0] == "01_f003.png"
    shown = run("models mine").stdout
    assert "Operating point" in shown
    found = run("predict sky --model mine --out found --save jsonl --monitor")
    assert found.exit_code == 0, found.stderr
    assert "monitor: 3 alarms in 80 frames" in found.stderr
    assert "warning" not in found.stderr


def test_too_little_footage_says_how_much_it_takes(run: Run) -> None:
    save_stills(Path("sky"), 10, {3: 240})
    result = run("calibrate --clear sky --alarms-per-frame 0.05 --model MODEL --out mine")
    assert result.exit_code == 2
    error = result.stderr.strip().splitlines()[-1]
    assert error.startswith("error: nothing is certified and no model is written")
    assert "10 frames, and 59.9 frames" in error
    assert not Path("mine/weights.safetensors").exists()
    assert Path("mine/alarms/01_f003.png").is_file()  # seen all the same


def test_more_footage_costs_only_itself(run: Run) -> None:
    finder: Finder = run.finder  # type: ignore[attr-defined]
    save_stills(Path("sky"), 20, {3: 240})
    words = "calibrate --clear sky --alarms-per-frame 0.1 --model MODEL --out mine"
    assert run(words).exit_code == 2
    save_stills(Path("sky"), 60, {3: 240})
    assert run(f"{words} --resume").exit_code == 0
    assert finder.calls == 60
    assert run(words.replace("0.1", "0.2") + " --resume").exit_code == 0
    assert finder.calls == 60


def test_a_broken_frame_is_listed_and_the_others_count(run: Run) -> None:
    save_stills(Path("sky"), 40, {})
    Path("sky/f007.png").write_bytes(b"no picture")
    result = run("calibrate --clear sky --alarms-per-frame 0.1 --model MODEL --out mine")
    assert result.exit_code == 0
    assert "f007.png" in result.stderr
    point = read_card("mine").operating_point
    assert point is not None
    assert point.frames == 39


def test_clips_are_judged_by_tracks(run: Run, save_clip: Callable[..., Path]) -> None:
    Path("sky").mkdir()
    for number in range(2):  # in each a spot of 200 moves: one track
        save_clip(Path(f"sky/{number}.mkv"), count=20, rate=10)
    hours = 2 * 20 / 10 / 3600
    strict = run("calibrate --clear sky --alarms-per-hour 3000 --model MODEL --out strict")
    assert strict.exit_code == 0, strict.stderr
    point = read_card("strict").operating_point
    assert point is not None
    assert point.hours == pytest.approx(hours)
    assert (point.clips, point.frames, point.alarms) == (2, 40, 0)
    assert point.min_score >= 200 / 255
    loose = run("calibrate --clear sky --alarms-per-hour 6000 --model MODEL --out loose")
    assert "2 alarms of a score of 0.5 or more last a second or longer" in loose.stderr
    assert "note: 2 clips" in loose.stderr
    found = read_card("loose").operating_point
    assert found is not None
    assert found.alarms == 2
    assert found.min_score < 200 / 255
    watched = run("predict sky --model loose --out found --save jsonl --monitor")
    assert "monitor: 2 alarms in 0.00111 hours, 1.8e+03 an hour" in watched.stderr
    last = Path("found/targets.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["targets"][0]["track"] == 2


def test_the_monitor_counts_tracks_as_calibration_does_where_the_camera_shakes(run: Run) -> None:
    random = np.random.default_rng(0)
    scene = (50 + 40 * ndimage.gaussian_filter(random.normal(size=(280, 330)), 2)).astype(np.uint8)
    scene[140:142, 165:167] = 200  # stands in the scene; in the picture it jumps by up to 44
    Path("sky").mkdir()
    with av.open("sky/0.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 240, 200, "gray"
        for _ in range(20):
            left, top = 40 + 22 * random.choice((-1, 1), 2)
            frame = np.ascontiguousarray(scene[top : top + 200, left : left + 240])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())
    made = run("calibrate --clear sky --alarms-per-hour 9000 --model MODEL --out mine")
    assert made.exit_code == 0, made.stderr
    point = read_card("mine").operating_point
    assert point is not None
    assert point.alarms == 1
    assert "1 alarm is in mine/alarms.csv" in made.stdout
    watched = run("predict sky --model mine --out found --save jsonl --monitor")
    assert "monitor: 1 alarm in" in watched.stderr
    lines = Path("found/targets.jsonl").read_text().splitlines()
    tracks = [json.loads(line)["targets"] for line in lines]
    assert {target["track"] for targets in tracks[2:] for target in targets} == {1}


def test_folders_need_their_rate(run: Run) -> None:
    save_stills(Path("sky"), 30, {})
    words = "calibrate --clear sky --alarms-per-hour 4000 --model MODEL --out mine"
    refused = run(words)
    assert refused.exit_code == 2
    assert "give --rate" in refused.stderr
    assert run(f"{words} --rate 10").exit_code == 0
    point = read_card("mine").operating_point
    assert point is not None
    assert (point.clips, point.hours) == (1, pytest.approx(3 / 3600))


def test_no_other_model_is_replaced(run: Run, small_model: Path) -> None:
    save_stills(Path("sky"), 2, {})
    Path("runs").mkdir()
    Path("runs/weights.safetensors").write_bytes(small_model.read_bytes())
    result = run("calibrate --clear sky --alarms-per-frame 2 --model MODEL --out runs")
    assert result.exit_code == 2
    assert "holds another model" in result.stderr
    assert Path("runs/weights.safetensors").read_bytes() == small_model.read_bytes()


def test_a_model_without_an_operating_point_is_not_monitored(run: Run) -> None:
    save_stills(Path("sky"), 1, {})
    result = run("predict sky --model MODEL --monitor")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --monitor needs an operating point")
