from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from pinglow.cli.main import app
from pinglow.models.card import ModelCard
from pinglow.models.score import ScoreCalibration
from pinglow.structures import Prediction

LOAD = "pinglow.inference.predictor.Predictor.load"
Run = Callable[..., Result]
SaveClip = Callable[..., Path]


class Finder:
    """A predictor of pixels made of a function."""

    kind = "pixels"
    card = ModelCard(name="m", network={}, parameters=0)

    def __init__(self, find: Callable[[NDArray[Any]], Prediction]) -> None:
        self._find = find

    def __call__(self, frame: NDArray[Any]) -> Prediction:
        return self._find(frame)


def find_bright(frame: NDArray[Any]) -> Prediction:
    return Prediction((frame > 100).astype(np.float32))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `pinglow predict` in an empty folder with a predictor that finds bright pixels."""
    asked: list[tuple[str, float | None]] = []

    def load(name: str, *, min_score: float | None, tile: int | None, **_: object) -> Finder:
        asked.append((name, min_score))
        return Finder(find_bright)

    monkeypatch.setattr(LOAD, load)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, ["predict", *arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    invoke.asked = asked  # type: ignore[attr-defined]
    return invoke


def save_frames(folder: Path, count: int, *, target: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        frame = np.full((20, 30), 50, dtype=np.uint8)
        frame[4:6, 7:9] = 200 if target else 50
        Image.fromarray(frame).save(folder / f"f{number}.png")


def test_a_folder_goes_in_and_targets_come_out(run: Run) -> None:
    save_frames(Path("in"), 3)
    result = run("in")
    assert result.exit_code == 0
    assert result.stdout.startswith("3 frames, 3 targets, ")
    assert result.stdout.endswith("s a frame. Results are in pinglow-out.\n")
    assert result.stderr == ""  # no progress bar where there is no terminal
    assert run.asked == [("pinglow-fast", None)]  # type: ignore[attr-defined]
    written = sorted(path.name for path in Path("pinglow-out").iterdir())
    assert written == [".pinglow-job.jsonl", "overlays", "targets.csv", "targets.jsonl"]
    lines = Path("pinglow-out/targets.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == [
        str(Path("in") / f"f{number}.png") for number in range(3)
    ]
    assert json.loads(lines[0])["targets"][0]["bbox"] == [7, 4, 2, 2]


def test_options_are_handed_on(run: Run) -> None:
    save_frames(Path("in"), 2)
    result = run(
        "in/*0.png", "in", "--model", "m", "--min-score", "0.25", "--out", "o/p", "--save", "mask"
    )
    assert result.exit_code == 0
    assert run.asked == [("m", 0.25)]  # type: ignore[attr-defined]
    names = sorted(path.relative_to("o").as_posix() for path in Path("o").rglob("*.*"))
    assert names == ["p/.pinglow-job.jsonl", "p/masks/f0_mask.png", "p/masks/f1_mask.png"]


def test_alarms_per_frame_chooses_the_score_by_the_card(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = {"detections": 7, "pd": 0.875, "alarms_per_megapixel": 0.2}
    calibration = ScoreCalibration.model_validate(
        {
            **{"slope": 2, "intercept": -5, "min_score": 0.25, "highest": 0.9, "ece": 0.1},
            **{"reliability": [], "frames": []},
            "table": [
                level | {"min_score": 0.6, "alarms_per_frame": 0.02},
                level | {"min_score": 0.4, "alarms_per_frame": 0.05},
                level | {"min_score": 0.25, "alarms_per_frame": 0.2},
            ],
        }
    )
    finder = Finder(find_bright)
    finder.card = ModelCard(name="m", network={}, parameters=0, calibration=calibration)
    monkeypatch.setattr(LOAD, lambda name, **_: finder)
    save_frames(Path("in"), 1)
    told = run("in", "--alarms-per-frame", "0.1").stderr
    assert finder.min_score == 0.4
    assert "note: --min-score 0.4: where m was calibrated, 0.05 false alarms a frame" in told
    refused = run("in", "--alarms-per-frame", "0.01")
    assert refused.exit_code == 2
    assert "no score with so few false alarms: use 0.02 or more" in refused.stderr
    finder.min_score = 0.95
    assert "no detection scored above 0.9, and the smallest score is 0.95" in run("in").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-score", "0.5", "--alarms-per-frame", "1"], "give one of the two"),
        (["--alarms-per-frame", "-1"], "--alarms-per-frame is -1.0: give 0 or more"),
        (["--alarms-per-frame", "nan"], "--alarms-per-frame is nan: give 0 or more"),
        (["--alarms-per-frame", "1"], "the card of m does not say how many false alarms"),
    ],
)
def test_alarms_that_cannot_be_chosen_by_are_said(
    run: Run, options: list[str], message: str
) -> None:
    save_frames(Path("in"), 1)
    result = run("in", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_device_reaches_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, have_cards: Callable[[int], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_frames(Path("in"), 1)
    have_cards(1)
    for option in (["--device", "cuda:7"], ["--device", "tpu"], ["--precision", "fp16"]):
        result = CliRunner().invoke(app, ["predict", "in", *option])
        assert result.exit_code == 2
        assert f"{option[0][2:]} {option[1]!r}" in result.stderr
        assert result.stderr.count("\n") == 1
    assert not Path("pinglow-out").exists()


def test_nothing_found_is_a_clean_answer(run: Run) -> None:
    save_frames(Path("in"), 1, target=False)
    result = run("in")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 frame, 0 targets, ")
    assert json.loads(Path("pinglow-out/targets.jsonl").read_text())["targets"] == []


def test_broken_frames_are_listed_and_the_others_go_on(run: Run) -> None:
    save_frames(Path("in"), 2)
    Path("in/f1.png").write_text("not a picture")
    result = run("in")
    assert result.exit_code == 2
    assert result.stdout.startswith("1 frame, 1 left out, 1 target, ")
    assert result.stderr.count("\n") == 1
    assert "warning: left out: in" in result.stderr
    assert "f1.png is not a frame" in result.stderr


def test_only_broken_frames_is_an_error(run: Run) -> None:
    Path("broken.png").touch()
    result = run("broken.png")
    assert result.exit_code == 2
    assert "broken.png is empty" in result.stderr
    assert "error: no frame could be read" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "error: gone does not exist"),
        (["in", "--save", "csv,xml"], "error: --save 'xml' is unknown: choose from mask, prob"),
        (["in", "--save", ""], "error: --save '' is unknown"),
        (["in", "--out", "in/f0.png"], "is a file: name a folder"),
        (["in", "--out", "in/f0.png/deeper"], "error: cannot write results to"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(
    run: Run, arguments: list[str], message: str
) -> None:
    save_frames(Path("in"), 1)
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("pinglow-out").exists()


def test_ctrl_c_says_where_the_results_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save_frames(Path("in"), 3)
    frames = iter([50, 60])

    def interrupt_third(frame: NDArray[Any]) -> Prediction:
        if next(frames, None) is None:
            raise KeyboardInterrupt
        return find_bright(frame)

    monkeypatch.setattr(LOAD, lambda name, **_: Finder(interrupt_third))
    result = run("in")
    assert result.exit_code == 130
    assert result.stderr == (
        "The results so far are in pinglow-out; --resume goes on after 2 files.\n"
        "stopped by Ctrl-C\n"
    )
    assert len(Path("pinglow-out/targets.jsonl").read_text().splitlines()) == 2


Interrupt = Callable[[int | None], list[int]]


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Let the predictor be interrupted after some frames (None: never), and count them."""

    def set_up(after: int | None) -> list[int]:
        seen: list[int] = []

        def predict(frame: NDArray[Any]) -> Prediction:
            if len(seen) == after:
                raise KeyboardInterrupt
            seen.append(1)
            return find_bright(frame)

        monkeypatch.setattr(LOAD, lambda name, **_: Finder(predict))
        return seen

    return set_up


def files_in(folder: str) -> dict[str, bytes]:
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_folder_that_cannot_be_made_is_not_taken_for_a_broken_job(run: Run) -> None:
    save_frames(Path("in"), 1)
    result = run("in", "--out", "/proc/results")
    assert result.exit_code == 2
    assert "cannot write results to /proc/results" in result.stderr


@pytest.mark.parametrize("stop", range(8))
def test_an_interrupted_job_that_is_resumed_ends_as_if_it_had_not_been(
    run: Run, save_clip: SaveClip, interrupt: Interrupt, stop: int
) -> None:
    save_frames(Path("in"), 2)
    (Path("in") / "sub").mkdir()
    Image.fromarray(np.full((20, 30), 50, dtype=np.uint8)).save("in/sub/f0.png")  # no target
    tifffile.imwrite("in/s.tif", np.full((3, 20, 30), 200, np.uint16), photometric="minisblack")
    save_clip(Path("in/clip.mkv"), 2)
    # A name that a page of the stack would like to have.
    Image.fromarray(np.full((20, 30), 50, dtype=np.uint8)).save("in/s_p0.png")
    sources = ("in", "in/sub", "--save", "csv,jsonl,overlay,mask,coco,crops")
    assert run(*sources, "--out", "whole").exit_code == 0
    seen = interrupt(stop)
    result = run(*sources, "--out", "parts")
    assert result.exit_code == 130
    assert len(seen) == stop
    again = interrupt(None)
    assert run(*sources, "--out", "parts", "--resume").exit_code == 0
    assert len(again) < 9 or stop < 2  # what was done is not done again
    assert files_in("parts") == files_in("whole")


def test_resuming_leaves_tables_that_the_job_does_not_write(run: Run, interrupt: Interrupt) -> None:
    save_frames(Path("in"), 2)
    assert run("in", "--save", "csv,jsonl").exit_code == 0
    before = Path("pinglow-out/targets.csv").read_bytes()
    interrupt(1)
    assert run("in", "--save", "jsonl").exit_code == 130
    interrupt(None)
    assert run("in", "--save", "jsonl", "--resume").exit_code == 0
    assert Path("pinglow-out/targets.csv").read_bytes() == before
    assert len(Path("pinglow-out/targets.jsonl").read_text().splitlines()) == 2


def test_without_a_job_to_go_on_with_one_is_begun(run: Run) -> None:
    save_frames(Path("in"), 2)
    assert run("in", "--resume").stdout.startswith("2 frames, ")


def test_a_finished_job_is_neither_repeated_nor_replaced(run: Run, interrupt: Interrupt) -> None:
    save_frames(Path("in"), 2)
    assert run("in").exit_code == 0
    before = files_in("pinglow-out")
    interrupt(0)
    assert run("in/f0.png").exit_code == 130  # has written nothing, nor does the next
    seen = interrupt(None)
    Path("broken.png").write_bytes(b"x")
    assert run("broken.png").exit_code == 2
    again = run("in", "--resume")
    assert again.exit_code == 0
    assert again.stdout.startswith("Nothing was left to do.")
    other = run("in/f1.png", "--resume")
    assert other.exit_code == 2
    assert "was another one (sources)" in other.stderr
    assert run("broken.png", "--out", "fresh").exit_code == 2
    assert not Path("fresh/.pinglow-job.jsonl").exists()
    Path("pinglow-out/.pinglow-job.jsonl").unlink()  # as an earlier version left it
    without = run("in", "--resume")
    assert without.exit_code == 2
    assert "no job to go on with" in without.stderr
    assert seen == []
    del before[".pinglow-job.jsonl"]
    assert files_in("pinglow-out") == before


def test_the_overlay_of_a_video_that_is_done_is_whole(
    run: Run, save_clip: SaveClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_frames(Path("in"), 9)
    save_clip(Path("in/clip.mkv"), 3)  # comes first
    seen: list[bytes] = []

    def predict(frame: NDArray[Any]) -> Prediction:
        # A few frames later, when what was waiting has been written; and while the job goes on.
        overlay = Path("pinglow-out/overlays/clip_overlay.mp4")
        seen.append(overlay.read_bytes() if len(seen) == 11 else b"")
        return find_bright(frame)

    monkeypatch.setattr(LOAD, lambda name, **_: Finder(predict))
    assert run("in").exit_code == 0
    assert seen[-1] == Path("pinglow-out/overlays/clip_overlay.mp4").read_bytes()


def test_files_that_were_broken_are_tried_again(run: Run, interrupt: Interrupt) -> None:
    save_frames(Path("in"), 3)
    whole = Path("in/f1.png").read_bytes()
    Path("in/f1.png").write_bytes(whole[:50])
    assert run("in").exit_code == 2
    seen = interrupt(None)
    result = run("in", "--resume")
    assert result.exit_code == 2
    assert "note: 2 files done before" in result.stderr
    assert "f1.png is damaged" in result.stderr
    assert seen == []
    Path("in/f1.png").write_bytes(whole)
    assert run("in", "--resume").exit_code == 0
    assert len(seen) == 1
    assert len(Path("pinglow-out/targets.jsonl").read_text().splitlines()) == 3


def test_another_job_is_not_gone_on_with(run: Run, interrupt: Interrupt) -> None:
    save_frames(Path("in"), 3)
    interrupt(2)
    assert run("in").exit_code == 130
    before = files_in("pinglow-out")
    for change, key in (
        (["in", "--min-score", "0.2"], "min_score"),
        (["in", "--save", "jsonl"], "save"),
        (["in", "--every", "2"], "selection"),
        (["in/f1.png"], "sources"),
        (["in", "--track"], "--track"),
    ):
        result = run(*change, "--resume")
        assert result.exit_code == 2
        assert key in result.stderr
        assert files_in("pinglow-out") == before


@pytest.mark.parametrize("name", [".pinglow-job.jsonl", "targets.jsonl"])
@pytest.mark.parametrize("content", ["{}\n", "[]\n", "no table\n", "", "null\n7\n"])
def test_broken_tables_are_not_gone_on_with(
    run: Run, interrupt: Interrupt, name: str, content: str
) -> None:
    save_frames(Path("in"), 3)
    interrupt(2)
    assert run("in").exit_code == 130
    Path("pinglow-out", name).write_text(content)
    interrupt(None)
    result = run("in", "--resume")
    if name == "targets.jsonl" and not content:
        assert result.exit_code == 0  # an empty table is one
    else:
        assert result.exit_code == 2
        assert "pinglow-out" in result.stderr
        assert Path("pinglow-out", name).read_text() == content


def test_results_of_an_earlier_job_are_announced(run: Run) -> None:
    save_frames(Path("in"), 1)
    assert "note:" not in run("in", "--save", "csv").stderr
    assert "pinglow-out holds results of an earlier job" in run("in").stderr


def test_a_pattern_does_not_find_the_results(run: Run) -> None:
    save_frames(Path("in"), 1)
    for _ in range(2):
        assert run("**/*.png").stdout.startswith("1 frame, ")
    assert run("pinglow-out/overlays", "--save", "csv").exit_code == 0  # if asked for by name
    assert run("in/*.png", "--out", "in").stdout.startswith("1 frame, ")


def test_an_empty_folder_among_others_is_told(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    save_frames(Path("in"), 1)
    Path("in/empty").mkdir()
    assert run("in/empty", "in").stdout.startswith("1 frame, ")
    (told,) = caplog.messages
    assert told.startswith("in/empty holds no frames")


def test_a_video_goes_in_and_an_annotated_one_comes_out(run: Run, save_clip: SaveClip) -> None:
    save_clip(Path("clip.mkv"))
    result = run("clip.mkv", "--track", "--save", "overlay,jsonl", "--out", "o")
    assert result.exit_code == 0
    assert result.stdout.startswith("20 frames, 20 targets in 1 track, ")
    lines = [json.loads(line) for line in Path("o/targets.jsonl").read_text().splitlines()]
    assert [line["time"] for line in lines] == pytest.approx([n / 10 for n in range(20)])
    assert [line["frame"] for line in lines] == list(range(20))
    assert lines[-1]["targets"][0]["track"] == 1
    with av.open("o/overlays/clip_overlay.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 20


def test_a_part_of_a_video(run: Run, save_clip: SaveClip) -> None:
    save_clip(Path("clip.mkv"))
    result = run("clip.mkv", "--save", "csv", "--every", "3", "--start", "0.5", "--end", "1.6")
    assert result.stdout.startswith("4 frames, ")
    rows = Path("pinglow-out/targets.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["6", "9", "12", "15"]


def test_ctrl_c_leaves_a_video_that_plays(
    run: Run, save_clip: SaveClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_clip(Path("clip.mkv"))
    seen = 0

    def interrupt(frame: NDArray[Any]) -> Prediction:
        nonlocal seen
        seen += 1
        if seen == 12:
            raise KeyboardInterrupt
        return find_bright(frame)

    monkeypatch.setattr(LOAD, lambda *_, **__: Finder(interrupt))
    result = run("clip.mkv", "--save", "overlay,jsonl")
    assert result.exit_code == 130
    assert len(Path("pinglow-out/targets.jsonl").read_text().splitlines()) == 11
    with av.open("pinglow-out/overlays/clip_overlay.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--every", "0"], "error: every is 0; use 1 or more\n"),
        (["--start", "3", "--end", "2"], "error: end is 2.0; use more than start, which is 3.0\n"),
        (["--start", "3"], "has no times: leave them out, or name videos only\n"),
    ],
)
def test_impossible_selections_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    save_frames(Path("in"), 1)
    result = run("in", *arguments)
    assert result.exit_code == 2
    assert result.stderr.endswith(message)
    assert result.stderr.count("\n") == 1


def test_pixels_without_a_value_are_said(run: Run) -> None:
    frame = np.full((20, 30), 50, dtype=np.float32)
    frame[3, 4] = np.nan
    np.save("a.npy", frame)
    result = run("a.npy")
    assert result.exit_code == 0
    assert "note: 1 frame with NaN or infinite pixels, taken as the frame's median" in result.stderr


def test_a_job_that_takes_no_frame_leaves_an_earlier_jobs_tables(
    run: Run, save_clip: SaveClip
) -> None:
    save_clip(Path("clip.mkv"))
    Path("broken.png").write_bytes(b"garbage")
    run("clip.mkv", "--save", "csv,jsonl")
    tables = [Path("pinglow-out") / name for name in ("targets.csv", "targets.jsonl")]
    before = [table.read_text() for table in tables]
    assert run("clip.mkv", "--save", "csv,jsonl", "--start", "60").exit_code == 2
    assert run("broken.png", "--save", "csv,jsonl").exit_code == 2
    assert [table.read_text() for table in tables] == before
    run("clip.mkv", "--save", "csv,jsonl", "--every", "10")
    assert [len(table.read_text().splitlines()) for table in tables] == [3, 2]


# --- videos, other files, standard output ----------------------------------------------------


def test_a_folder_says_once_what_it_holds_that_is_not_read(
    run: Run, save_clip: SaveClip, caplog: pytest.LogCaptureFixture
) -> None:
    save_frames(Path("in"), 1)
    for name in ("a.txt", "b.TXT", "c.seq2", ".hidden", "noise"):
        (Path("in") / name).write_text("x")
    (Path("in") / "folder.txt").mkdir()
    os.mkfifo("in/pipe.png")
    save_clip(Path("in/clip.mkv"), 2).rename("in/clip.ts")
    assert run("in").exit_code == 0
    said = "1 .seq2, 2 .txt, 1 pipe or device, 1 without a suffix"
    assert caplog.messages == [f"not read, as they are not named as frames are: {said}"]
    lines = Path("pinglow-out/targets.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["clip_f0000", "clip_f0001", "f0"]
    caplog.clear()
    assert run("**/*").exit_code == 0  # its own results are no others
    assert caplog.messages == [f"not read, as they are not named as frames are: {said}"]
    Path("other").mkdir()
    Path("other/a.seq2").touch()
    assert run("other").stderr.endswith("; there are 1 .seq2\n")


def test_a_video_stream_is_chosen(run: Run, save_clip: SaveClip) -> None:
    save_clip(Path("clip.mkv"), 2)
    assert run("clip.mkv", "--video-stream", "0").exit_code == 0
    result = run("clip.mkv", "--video-stream", "1")
    assert result.exit_code == 2
    assert "clip.mkv has no video stream 1: choose from 0: ffv1 40 x 32" in result.stderr


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_a_table_goes_to_standard_output(run: Run, name: str) -> None:
    save_frames(Path("in"), 2)
    Path("in/f1.png").write_text("broken")
    save = ("--save", name) if name == "csv" else ()
    result = run("in", "--out", "-", *save)
    assert result.exit_code == 2
    assert run("in", "--out", "found", "--save", name).exit_code == 2
    assert result.stdout == Path(f"found/targets.{name}").read_text()
    assert "1 frame, 1 left out, 1 target, " in result.stderr
    assert not Path("-").exists()
    for more in (("--save", "csv,jsonl"), ("--save", "mask"), ("--resume",)):
        refused = run("in", "--out", "-", *more)
        assert refused.exit_code == 2
        assert refused.stderr.startswith("error: --out - ")
        assert refused.stdout == ""


def test_home_is_known_in_every_path(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path("home").resolve()
    monkeypatch.setenv("HOME", str(home))
    save_frames(home, 2)
    for source in ("~/*.png", "~", "~/f0.png"):
        result = run(source, "--out=~/found", "--model", "~/m", "--save", "csv")
        assert result.exit_code == 0
        assert (home / "found/targets.csv").is_file()
        assert run.asked[-1][0] == str(home / "m")  # type: ignore[attr-defined]
    assert run("~nobody-here/x").stderr.startswith("error: ~nobody-here/x does not exist")
    save_frames(Path("a~b"), 1)
    assert run("a~b").exit_code == 0
    assert not Path("~").exists()


def test_what_is_ignored_is_written_down_and_not_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    save_frames(Path("in"), 1)
    mask = np.full((20, 30), 255, np.uint8)
    mask[0, 0] = 0
    Image.fromarray(mask).save("mask.png")
    command = ["predict", "in", "--model", str(small_model), "--backend", "torch"]
    words = ["--ignore", "0,0,1,2", "--ignore", "mask.png"]
    result = CliRunner().invoke(app, [*command, *words])
    assert result.exit_code == 2
    assert result.stderr.endswith("f0.png: the whole frame is ignored: ignore less\n")
    result = CliRunner().invoke(app, [*command, *words[2:]])
    assert result.exit_code == 0, result.output
    line = json.loads(Path("pinglow-out/targets.jsonl").read_text())
    assert [target["bbox"] for target in line["targets"]] in ([], [[0, 0, 1, 1]])
    assert '"ignore": ["mask.png"]' in Path("pinglow-out/.pinglow-job.jsonl").read_text()
    again = CliRunner().invoke(app, [*command, "--resume"])
    assert "was another one (ignore)" in again.stderr


# --- detectors -------------------------------------------------------------------------------


def test_what_a_detector_finds_is_written_in_the_same_way(
    tmp_path: Path, detector_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_frames(Path("in"), 2)
    Path("in/broken.png").write_bytes(b"no image")
    command = ["predict", "in", "--model", str(detector_weights), "--min-score", "0.005"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2, result.output
    assert "broken.png" in result.stderr
    out = Path("pinglow-out")
    lines = [json.loads(line) for line in (out / "targets.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0].keys() == {"source", "frame", "name", "width", "height", "targets"}
    targets: list[dict[str, Any]] = [target for line in lines for target in line["targets"]]
    assert targets
    assert targets[0].keys() == {"x", "y", "bbox", "area", "score"}
    assert len(list((out / "overlays").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save", "csv,mask"], "a detector has no mask, it finds boxes: choose from overlay"),
        (["--flips"], "flips True is not for "),
        (["--backend", "openvino"], "backend 'openvino' is not for "),
    ],
)
def test_what_is_for_pixels_is_refused_for_a_detector(
    tmp_path: Path,
    detector_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_frames(Path("in"), 1)
    command = ["predict", "in", "--model", str(detector_weights), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("pinglow-out").exists()
