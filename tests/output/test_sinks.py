from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pinglow.errors import DataError, OptionError
from pinglow.evaluation.saved import SavedMaps
from pinglow.io.frames import read_frame
from pinglow.io.source import open_source
from pinglow.io.video import probe_video, read_video
from pinglow.output.counts import CountsSink
from pinglow.output.job_log import JobLog
from pinglow.output.mask import MaskSink
from pinglow.output.probability import ProbabilitySink
from pinglow.output.sink import FrameRecord
from pinglow.output.sinks import SINKS, check_sinks, open_sinks
from pinglow.output.tables import CsvSink, JsonlSink, TableSink
from pinglow.structures import Clip, Detections, Prediction


def make_record(
    name: str = "frame", *spots: tuple[int, int, float], shape: tuple[int, int] = (40, 60)
) -> FrameRecord:
    """Make a record with one 3 x 3 target a spot (left, top, score)."""
    probability = np.zeros(shape, np.float32)
    for left, top, score in spots:
        probability[top : top + 3, left : left + 3] = score
    frame = np.random.default_rng(0).normal(8000, 20, shape).astype(np.uint16)
    return FrameRecord(f"{name}.png", 0, name, frame, Prediction(probability))


def test_mask_is_0_and_255_at_the_frames_size(tmp_path: Path) -> None:
    record = make_record("a", (5, 6, 0.9))
    MaskSink(tmp_path).write(record)
    mask = np.asarray(Image.open(tmp_path / "masks" / "a_mask.png"))
    np.testing.assert_array_equal(mask, np.where(record.prediction.mask, 255, 0))
    assert mask.dtype == np.uint8


def test_saved_probabilities_are_what_evaluate_reads(tmp_path: Path) -> None:
    probability = np.random.default_rng(0).random((30, 50), dtype=np.float32)
    probability[0, :2] = 0, 1
    frame = np.zeros(probability.shape, np.uint8)
    record = FrameRecord("a.png", 0, "a", frame, Prediction(probability))
    ProbabilitySink(tmp_path).write(record)
    saved = SavedMaps(tmp_path / "probability", ["a"]).read("a", probability.shape)
    np.testing.assert_allclose(saved, probability, rtol=0, atol=0.5 / 65535 + 1e-7)


def test_the_two_tables_agree_with_the_prediction(tmp_path: Path) -> None:
    records = [make_record("a", (5, 6, 0.51234567), (30, 20, 0.9)), make_record("b")]
    with open_sinks(["csv", "jsonl"], tmp_path / "new" / "out") as sinks:
        for record in records:
            for sink in sinks:
                sink.write(record)
    out = tmp_path / "new" / "out"
    lines = [json.loads(line) for line in (out / "targets.jsonl").read_text().splitlines()]
    scores = [target.score for target in records[0].prediction.targets]
    assert lines[0] == {
        "source": "a.png",
        "frame": 0,
        "name": "a",
        "width": 60,
        "height": 40,
        "targets": [
            {"x": 31.0, "y": 21.0, "bbox": [30, 20, 3, 3], "area": 9, "score": scores[0]},
            {"x": 6.0, "y": 7.0, "bbox": [5, 6, 3, 3], "area": 9, "score": scores[1]},
        ],
    }
    assert scores == [float(np.float32(0.9)), float(np.float32(0.51234567))]
    assert {**lines[0], **records[0].prediction.to_dict()} == lines[0]
    assert lines[1] == {**lines[0], "source": "b.png", "name": "b", "targets": []}
    with (out / "targets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert " ".join(rows[0]) == ("source frame x y left top width height area score time track")
    flat = [
        {
            "source": line["source"],
            "frame": line["frame"],
            "x": target["x"],
            "y": target["y"],
            **dict(zip(("left", "top", "width", "height"), target["bbox"], strict=True)),
            "area": target["area"],
            "score": target["score"],
            "time": "",
            "track": "",
        }
        for line in lines
        for target in line["targets"]
    ]
    assert rows == [{key: str(value) for key, value in row.items()} for row in flat]


def test_no_number_is_rounded(tmp_path: Path) -> None:
    probability = np.zeros((9, 9), np.float32)
    probability[[1, 1, 2], [1, 2, 1]] = np.nextafter(np.float32(1), np.float32(0))
    prediction = Prediction(probability)
    plain = FrameRecord("f.png", 3, "f", np.zeros((9, 9)), prediction, time=1001 / 30000)
    with open_sinks(["csv", "jsonl"], tmp_path) as sinks:
        for sink in sinks:
            sink.write(plain)
    line = json.loads((tmp_path / "targets.jsonl").read_text())
    with (tmp_path / "targets.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    (target,) = prediction.targets
    assert target.x == 1 + 1 / 3
    for key, value in {"x": target.x, "y": target.y, "score": target.score}.items():
        assert line["targets"][0][key] == float(row[key]) == value
    assert line["time"] == float(row["time"]) == 1001 / 30000
    assert (line["frame"], row["frame"]) == (3, "3")


@pytest.mark.parametrize("kind", [CsvSink, JsonlSink])
def test_tables_are_on_disk_after_every_frame(tmp_path: Path, kind: Any) -> None:
    sink = kind(tmp_path)
    sizes = [0]
    for name in "ab":
        sink.write(make_record(name, (5, 6, 0.9)))
        (path,) = tmp_path.iterdir()
        sizes.append(path.stat().st_size)
        assert path.read_bytes().endswith(b"\n")
    sink.close()
    assert sizes[0] < sizes[1] < sizes[2] == path.stat().st_size


def test_odd_file_names_keep_the_tables_readable(tmp_path: Path) -> None:
    path = 'a,"b"\n\udcff.png'  # a comma, quotes, a line break and a byte that is not UTF-8
    odd = open_source(path).name
    record = FrameRecord(
        odd, 0, "odd", np.zeros((40, 60)), make_record("a", (5, 6, 0.9)).prediction
    )
    with open_sinks(["csv", "jsonl"], tmp_path) as sinks:
        for sink in sinks:
            sink.write(record)
    expected = 'a,"b"\n\\udcff.png'
    assert json.loads((tmp_path / "targets.jsonl").read_text("utf-8"))["source"] == expected
    with (tmp_path / "targets.csv").open(encoding="utf-8", newline="") as file:
        assert [row["source"] for row in csv.DictReader(file)] == [expected]


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [("uint8", "uint8"), ("uint16", "uint16"), ("float32", "float32"), ("float64", "float32")],
)
def test_counts_are_the_frame_as_read(tmp_path: Path, stored: str, dtype: str) -> None:
    frame = np.arange(12).reshape(3, 4).astype(stored).T  # not as C lays it out
    frame[0] = np.nan if frame.dtype.kind == "f" else np.iinfo(frame.dtype).max
    boxes = Detections(np.array([[0.0, 1.0, 2.0, 2.0]]), np.array([0.75]))
    with open_sinks(["counts"], tmp_path) as (sink,):
        for name, found in (("a", Prediction(np.zeros(frame.shape, np.float32))), ("b", boxes)):
            sink.write(FrameRecord(f"{name}.tif", 0, name, frame, found))
    check_sinks(["counts"], "boxes")
    for name in "ab":
        path = tmp_path / "counts" / f"{name}.npy"
        saved = np.load(path)
        np.testing.assert_array_equal(saved, frame)
        assert saved.dtype == dtype
        np.testing.assert_array_equal(read_frame(path), frame)


def test_counts_end_with_the_first_frame_that_does_not_fit(tmp_path: Path) -> None:
    sink = CountsSink(tmp_path)
    sink.write(make_record("a"))
    [first] = (tmp_path / "counts").iterdir()
    sink.bytes_left = first.stat().st_size
    for name, shape in (("b", (40, 60)), ("c", (40, 60)), ("d", (1, 1))):
        sink.write(make_record(name, shape=shape))
    assert sorted(path.name for path in (tmp_path / "counts").iterdir()) == ["a.npy", "b.npy"]


def test_an_interrupted_image_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = MaskSink(tmp_path)
    sink.write(make_record("a"))
    before = (tmp_path / "masks" / "a_mask.png").read_bytes()

    def interrupt(temporary: Path, path: Path) -> None:
        assert temporary.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("pinglow.files.os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sink.write(make_record("a", (5, 6, 0.9)))
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a_mask.png"]
    assert (tmp_path / "masks" / "a_mask.png").read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with (
        pytest.raises(DataError, match=r"cannot write results to .*taken"),
        open_sinks(["csv"], tmp_path / "taken"),
    ):
        pass


def test_every_sink_can_be_opened_by_name(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    with open_sinks(list(SINKS), tmp_path) as sinks:
        for sink in sinks:
            sink.write(make_record("a", (5, 6, 0.9)))
            sink.end_source("a.png", True)
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert written == [
        ".coco.json.lines",
        ".targets.parquet.lines",
        "coco.json",
        "counts/a.npy",
        "crops/a_1.png",
        "crops/crops.csv",
        "html/frames.jsonl",
        "html/frames/a.webp",
        "html/index.html",
        "html/thumbnails/a.webp",
        "masks/a_mask.png",
        "overlays/a_overlay.png",
        "probability/a.png",
        "targets.csv",
        "targets.jsonl",
        "targets.parquet",
    ]


def test_the_overlay_of_a_clip_is_a_video(tmp_path: Path) -> None:
    # A clip of 60 x 45, then another; targets come and go, which must not change the size.
    spots = [((30, 20, 0.9),), (), ((30, 20, 0.9), (5, 6, 0.6))]
    with open_sinks(["overlay"], tmp_path) as (sink,):
        for name in ("one", "two"):
            for number, each in enumerate(spots):
                plain = make_record(f"{name}_f{number}", *each)
                tracks = tuple(range(len(each)))
                sink.write(
                    dataclasses.replace(plain, time=number / 5, clip=Clip(name, 5.0), tracks=tracks)
                )
    videos = sorted((tmp_path / "overlays").iterdir())
    assert [path.name for path in videos] == ["one_overlay.mp4", "two_overlay.mp4"]
    for path in videos:
        assert probe_video(path).rate == 5
        frames = list(read_video(path))
        assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4])
        assert frames[0].counts.std() > 5
        assert not np.array_equal(frames[0].counts, frames[1].counts)


def test_a_videos_overlay_can_be_read_before_it_is_ended(tmp_path: Path) -> None:
    with open_sinks(["overlay"], tmp_path) as (sink,):
        for number in range(260):  # five fragments, of which the encoder holds some back
            record = make_record(f"f{number}", (30, 20, 0.9))
            sink.write(dataclasses.replace(record, time=number / 25, clip=Clip("clip", 25.0)))
        copy = tmp_path / "copy.mp4"
        copy.write_bytes((tmp_path / "overlays" / "clip_overlay.mp4").read_bytes())
        assert len(list(read_video(copy))) > 100


def test_a_full_disk_is_told_by_a_videos_overlay(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs a limit of the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write(frames: int) -> None:
        with open_sinks(["overlay"], tmp_path) as (sink,):
            for _ in range(frames):
                record = make_record("f", (30, 20, 0.9))
                sink.write(dataclasses.replace(record, clip=Clip("clip", 25.0)))

    write(80)
    size = (tmp_path / "overlays" / "clip_overlay.mp4").stat().st_size
    for limit in (0, size // 2, size * 97 // 100):  # encoders on threads vary by a few bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(DataError, match=r"cannot write results to .*: free space there"):
                write(80)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_time_and_track_are_written_where_there_are_some(tmp_path: Path) -> None:
    record = dataclasses.replace(
        make_record("a", (5, 6, 0.6), (30, 20, 0.9)), time=0.123456, tracks=(7, None)
    )
    with open_sinks(["csv", "jsonl"], tmp_path) as sinks:
        for sink in sinks:
            sink.write(record)
    line = json.loads((tmp_path / "targets.jsonl").read_text())
    assert line["time"] == 0.123456
    assert [target["track"] for target in line["targets"]] == [7, None]
    with (tmp_path / "targets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["time"], row["track"]) for row in rows] == [("0.123456", "7"), ("0.123456", "")]


@pytest.mark.parametrize("rate", [1 / 5000, 0.5, 29.97, 1000.0])
def test_a_clip_may_have_any_rate_and_change_its_size(tmp_path: Path, rate: float) -> None:
    clip = Clip("a:b", rate)
    with open_sinks(["overlay"], tmp_path) as (sink,):
        for number, shape in enumerate([(40, 60), (40, 60), (700, 520), (33, 71)]):
            record = make_record(f"f{number}", shape=shape)
            sink.write(dataclasses.replace(record, time=number / rate, clip=clip))
    with av.open(str((tmp_path / "overlays" / "a:b_overlay.mp4").resolve())) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_boxes_are_written_like_targets_and_have_no_mask(tmp_path: Path) -> None:
    found = Detections(np.array([[5.0, 6.0, 3.0, 4.0]]), np.array([0.75]))
    record = FrameRecord("a.png", 0, "a", np.zeros((40, 60), np.uint16), found)
    with open_sinks(["csv", "jsonl", "overlay"], tmp_path) as sinks:
        for sink in sinks:
            sink.write(record)
    line = json.loads((tmp_path / "targets.jsonl").read_text())
    assert (line["width"], line["height"]) == (60, 40)
    assert line["targets"] == [
        {"x": 6.0, "y": 7.5, "bbox": [5, 6, 3, 4], "area": 12, "score": 0.75}
    ]
    check_sinks(["csv", "jsonl", "overlay"], "boxes")
    check_sinks(list(SINKS), "pixels")
    with pytest.raises(OptionError, match="a detector has no mask"):
        check_sinks(["csv", "mask"], "boxes")


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")


@needs_pipes
@pytest.mark.parametrize("name", ["csv", "jsonl", "coco", "parquet"])
def test_a_pipe_in_the_place_of_a_table_is_named_and_not_waited_for(
    tmp_path: Path, name: str
) -> None:
    kind = SINKS[name]
    assert issubclass(kind, TableSink)
    os.mkfifo(tmp_path / (kind.table or kind.place))
    with (
        pytest.raises(DataError, match=rf"{kind.table or kind.place} is a pipe"),
        open_sinks([name], tmp_path),
    ):
        pass


@needs_pipes
def test_a_pipe_in_the_place_of_a_video_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "overlays").mkdir()
    path = tmp_path / "overlays" / "clip_overlay.mp4"
    os.mkfifo(path)
    with open_sinks(["overlay"], tmp_path) as (sink,):
        sink.write(dataclasses.replace(make_record("f", (30, 20, 0.9)), clip=Clip("clip", 25.0)))
    assert path.is_file()


@needs_pipes
def test_a_pipe_is_no_log_of_a_job(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / JobLog.place)
    with pytest.raises(DataError, match=rf"{JobLog.place} is not of a job"):
        JobLog(tmp_path, ["csv"], {}, resume=True)


@pytest.mark.parametrize("text", ["[" * 20_000, "3\n", '{"save": ["csv"]}\n{}\n'])
def test_what_is_no_log_of_a_job_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / JobLog.place).write_text(f"{text}\n")
    with pytest.raises(DataError, match=rf"{JobLog.place} is not of a job"):
        JobLog(tmp_path, ["csv"], {}, resume=True)


def test_a_table_of_deep_lines_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "targets.jsonl").write_text("[" * 20_000 + "\n")
    with (
        pytest.raises(DataError, match="not a table that can be gone on with"),
        open_sinks(["jsonl"], tmp_path, {"in/a.png"}),
    ):
        pass
