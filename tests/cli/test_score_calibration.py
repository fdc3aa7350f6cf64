"""pinglow calibrate --data, on frames whose counts are their own probability maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from pinglow.cli.main import app
from pinglow.models.card import ModelCard, OperatingPoint, read_card
from pinglow.models.recard import save_with_card

Run = Callable[..., Result]


class Echo:
    """Takes 8-bit counts for probabilities."""

    kind = "pixels"

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def probabilities(self, frames: Iterable[NDArray[Any]]) -> Iterator[NDArray[np.float32]]:
        for frame in frames:
            yield (frame / np.float32(255)).astype(np.float32)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command in a folder with the data set "set" of twelve frames, "many" and "few"."""
    monkeypatch.setattr(
        "pinglow.inference.predictor.Predictor.load", lambda name, **_: Echo(read_card(name))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for kind in ("images", "masks"):
        Path("set", kind).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(12):
        frame, mask = np.zeros((2, 40, 50), np.uint8)
        for y, x, true in ((8, 9, True), (20, 30, True), (32, 10, False)):
            frame[y, x] = random.integers(150, 250) if true else random.integers(60, 190)
            mask[y, x] = 255 * true
        Image.fromarray(frame).save(f"set/images/{number}.png")
        Image.fromarray(mask).save(f"set/masks/{number}.png")
    Path("set/many.txt").write_text("".join(f"{number}\n" for number in range(12)))
    Path("set/few.txt").write_text("0\n1\n")

    def invoke(*arguments: Any) -> Result:
        result = CliRunner().invoke(app, ["calibrate", *map(str, arguments)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_scores_are_calibrated_then_measured(run: Run, small_model: Path) -> None:
    common = "--data", "set", "--split", "many"
    made = run(*common, "--model", small_model, "--out", "mine")
    assert made.exit_code == 0, made.output
    assert "set, many" in made.stdout
    assert "(default)" in made.stdout
    calibration = read_card("mine").calibration
    assert calibration is not None
    assert calibration.frames[0]["targets"] == 24
    assert calibration.table[-1].pd == 1
    measured = run(*common, "--model", "mine")
    assert measured.exit_code == 0
    # The default finds as many as reach the threshold.
    (default,) = [row for row in calibration.table if row.min_score == calibration.min_score]
    frames = [np.asarray(Image.open(f"set/images/{number}.png")) for number in range(12)]
    assert default.detections == sum(int((frame > 127.5).sum()) for frame in frames)
    shown = [line for line in measured.stdout.splitlines() if "(default)" in line]
    assert shown[0].split()[2] == str(default.detections)


def test_an_operating_point_does_not_outlive_its_scores(run: Run, small_model: Path) -> None:
    point = OperatingPoint(
        **{"min_score": 0.9, "unit": "frame", "wished": 1, "alarms": 0, "rate": 0, "bound": 0.1},
        **{"confidence": 0.95, "frames": 40, "clips": 40},
    )
    card = read_card(small_model).model_copy(update={"operating_point": point})
    save_with_card(small_model, card, Path("before"))
    made = run("--data", "set", "--split", "many", "--model", "before", "--out", "after")
    assert made.exit_code == 0, made.output
    assert "the operating point is left out" in made.stderr
    again = run("--data", "set", "--split", "many", "--model", small_model, "--out", "after")
    assert again.exit_code == 2
    assert "holds another model" in again.stderr
    after = read_card("after")
    assert after.operating_point is None
    assert after.calibration is not None
    assert after.choose_score() == after.calibration.min_score


def test_a_broken_frame_is_left_out_and_told(run: Run, small_model: Path) -> None:
    Path("set/images/3.png").write_bytes(b"")
    result = run("--data", "set", "--split", "many", "--model", small_model, "--out", "mine")
    assert result.exit_code == 2
    assert "3.png is empty" in result.stderr
    calibration = read_card("mine").calibration
    assert calibration is not None
    assert calibration.frames[0]["frames"] == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "set"), "--data takes --split"),
        (("--data", "set", "--split", "many", "--clear", "set"), "and no --clear"),
        (("--data", "set", "--split", "many", "--crop", "0,0,9,9"), "--crop is for --clear"),
        (
            ("--data", "set", "--split", "many", "--alarms-per-hour", "0"),
            "--alarms-per-hour is for",
        ),
        (("--out", "mine"), "give --clear and --out, for alarms; or --data and --split"),
        (("--data", "set", "--split", "many"), "are not calibrated yet: give --out"),
        (
            (*("--data", "set", "--split", "many", "--split", "few"), "--out", "mine"),
            "there are 1 --data and 2 --split",
        ),
        (
            ("--data", "set", "--split", "few", "--out", "mine"),
            "2 frames have 4 true and 2 false candidates",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_said(
    run: Run, small_model: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments, "--model", small_model)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not Path("mine").exists()
