"""COCO and Parquet, which are made of lines when a job ends, read by other people's code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinglow.errors import DataError, MissingExtraError
from pinglow.output.coco import CocoSink
from pinglow.output.converted import ConvertedSink
from pinglow.output.sink import FrameRecord
from pinglow.output.sinks import open_sinks
from pinglow.output.tables import TableSink
from pinglow.structures import Clip, Detections, Prediction

SHAPE = (40, 60)


def predict(*spots: tuple[int, int, float]) -> Prediction:
    """Make a prediction with one 3 x 2 target a spot (left, top, probability)."""
    probability = np.zeros(SHAPE, np.float32)
    for left, top, value in spots:
        probability[top : top + 2, left : left + 3] = value
    return Prediction(probability)


FRAME = np.zeros(SHAPE, np.uint16)
BOXES = Detections(np.array([[5.25, 6.5, 3.0, 4.5]]), np.array([0.75]))
RECORDS = [
    FrameRecord("in/a.png", 0, "a", FRAME, predict((57, 38, 0.9), (0, 0, 0.7))),
    FrameRecord("in/b.png", 0, "b", FRAME, predict()),
    FrameRecord("s.tif", 0, "s_p0", FRAME, predict((20, 5, 0.8))),
    FrameRecord("s.tif", 1, "s_p1", FRAME, predict((21, 5, 0.8))),
    FrameRecord(
        *("c.mp4", 0, "c_f0", FRAME, predict((9, 9, 0.9), (20, 9, 0.8))),
        time=1001 / 30000,
        clip=Clip("c", 30000 / 1001),
        tracks=(7, None),
    ),
    FrameRecord("in/d.png", 0, "d", FRAME, BOXES),
]


def write_all(names: Sequence[str], folder: Path, records: Iterable[FrameRecord]) -> None:
    with open_sinks(names, folder) as sinks:
        for record in records:
            for sink in sinks:
                sink.write(record)


# pycocotools decodes with an __array__ that NumPy 2 complains about.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_all_images_and_targets(tmp_path: Path) -> None:
    library = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    write_all(["coco"], tmp_path, RECORDS)
    coco = library.COCO(str(tmp_path / "coco.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == [
        *("in/a.png", "in/b.png", "s.tif", "s.tif#1", "c.mp4#0", "in/d.png")
    ]
    assert len(coco.getAnnIds()) == len(set(coco.getAnnIds())) == 7
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "target"}]
    for image, record in zip(images, RECORDS, strict=True):
        assert (image["height"], image["width"]) == SHAPE
        assert (image["source"], image["frame"], image.get("time")) == (
            *(record.source, record.page, record.time),
        )
        found = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert [each["score"] for each in found] == [t.score for t in record.prediction.targets]
        assert [each.get("track_id") for each in found] == list(
            record.tracks or [None] * len(found)
        )
        if isinstance(record.prediction, Prediction):
            mask = np.zeros(SHAPE, bool)
            for each, target in zip(found, record.prediction.targets, strict=True):
                pixels = coco.annToMask(each).astype(bool)
                assert (each["area"], each["bbox"]) == (pixels.sum(), list(target.bbox))
                mask |= pixels
            np.testing.assert_array_equal(mask, record.prediction.mask)
    (box,) = coco.loadAnns(coco.getAnnIds(imgIds=[6]))
    assert (box["bbox"], box["area"]) == ([5.25, 6.5, 3.0, 4.5], 13.5)
    assert "segmentation" not in box


def test_annotations_are_results_of_another_copy_of_the_images(tmp_path: Path) -> None:
    library = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    write_all(["coco"], tmp_path, RECORDS)
    coco = library.COCO(str(tmp_path / "coco.json"))
    results = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    assert len(coco.loadRes(results).getAnnIds()) == 7


def test_parquet_has_a_row_a_target_and_one_for_a_frame_without(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars", reason="needs polars")
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    write_all(["parquet", "jsonl"], tmp_path, RECORDS)
    table = polars.read_parquet(tmp_path / "targets.parquet")
    assert dict(zip(table.columns, map(str, table.dtypes), strict=True)) == {
        **{"source": "String", "frame": "Int64", "name": "String", "time": "Float64"},
        **{"frame_width": "Int32", "frame_height": "Int32", "x": "Float64", "y": "Float64"},
        **{"left": "Int32", "top": "Int32", "width": "Int32", "height": "Int32"},
        **{"area": "Int32", "score": "Float64", "track": "Int64"},
    }
    lines = [json.loads(line) for line in (tmp_path / "targets.jsonl").read_text().splitlines()]
    nothing: dict[str, Any] = {"bbox": [None] * 4}
    expected = [
        (
            *(line[key] for key in ("source", "frame", "name")),
            *(line.get("time"), line["width"], line["height"]),
            *(target.get("x"), target.get("y"), *target["bbox"]),
            *(target.get("area"), target.get("score"), target.get("track")),
        )
        for line in lines
        for target in line["targets"] or [nothing]
    ]
    assert table.rows() == expected
    assert len(table) == 8
    assert table["score"].count() == 7  # targets
    assert table.select("source", "frame").n_unique() == len(RECORDS)


def test_a_large_table_is_written_group_by_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    monkeypatch.setattr("pinglow.output.parquet._ROWS", 3)
    write_all(["parquet"], tmp_path, RECORDS)
    content = parquet.ParquetFile(tmp_path / "targets.parquet")
    groups = range(content.num_row_groups)
    assert [content.metadata.row_group(group).num_rows for group in groups] == [3, 3, 2]


def test_without_pyarrow_parquet_is_refused_before_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        pytest.raises(MissingExtraError, match=r"--save parquet needs pyarrow.*'.\[tables\]'"),
        open_sinks(["parquet"], tmp_path),
    ):
        pass


def test_a_killed_job_that_is_resumed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    write_all(["coco"], tmp_path / "whole", RECORDS)
    killed = CocoSink(tmp_path)
    for record in RECORDS[:3]:  # the stack is not done
        killed.write(record)
    TableSink.close(killed)
    lines = tmp_path / ".coco.json.lines"
    with lines.open("a") as file:
        file.write('{"source": "s.ti')  # cut short
    assert not (tmp_path / "coco.json").exists()
    with open_sinks(["coco"], tmp_path, {"in/a.png", "in/b.png"}) as (sink,):
        for record in RECORDS[2:]:
            sink.write(record)
    whole = (tmp_path / "whole" / "coco.json").read_bytes()
    assert (tmp_path / "coco.json").read_bytes() == whole
    with open_sinks(["coco"], tmp_path, {record.source for record in RECORDS}):
        pass  # nothing was left to do
    assert (tmp_path / "coco.json").read_bytes() == whole
    lines.unlink()
    with (
        pytest.raises(DataError, match="not a table that can be gone on with"),
        open_sinks(["coco"], tmp_path, {"in/a.png"}),
    ):
        pass


def test_an_interrupted_job_has_a_whole_file_of_what_was_done(tmp_path: Path) -> None:
    def stop() -> Iterator[FrameRecord]:
        yield RECORDS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_all(["coco"], tmp_path, stop())
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) == 2


def test_a_new_job_takes_the_place_of_the_earlier_one_with_its_first_frame(tmp_path: Path) -> None:
    write_all(["coco"], tmp_path, RECORDS)
    before = (tmp_path / "coco.json").read_bytes()
    write_all(["coco"], tmp_path, [])
    assert (tmp_path / "coco.json").read_bytes() == before
    begun = CocoSink(tmp_path)
    begun.write(RECORDS[1])
    TableSink.close(begun)
    assert not (tmp_path / "coco.json").exists()


def test_a_conversion_that_fails_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ConvertedSink, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CocoSink, "convert", fail)
    with pytest.raises(DataError, match="cannot write results to"):
        write_all(["coco"], tmp_path, RECORDS)
    assert [path.name for path in tmp_path.iterdir()] == [".coco.json.lines"]
