from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import FrameError
from pinglow.inference.job import predict_frames
from pinglow.inference.sinks import FrameRecord, open_sinks
from pinglow.structures import Prediction

FRAME = np.full((20, 30), 50, dtype=np.uint8)
FRAME[4:6, 7:9] = 200


def find_bright(frame: NDArray[Any]) -> Prediction:
    return Prediction((frame > 100).astype(np.float32))


class Memory:
    """A sink that keeps the records."""

    def __init__(self) -> None:
        self.records: list[FrameRecord] = []

    def write(self, record: FrameRecord) -> None:
        self.records.append(record)

    def close(self) -> None:
        pass


def save(path: Path, frame: NDArray[Any] = FRAME) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(path)
    return path


def test_reads_predicts_and_writes_in_order(tmp_path: Path) -> None:
    files = [save(tmp_path / "b.png"), save(tmp_path / "a.png", FRAME // 4)]
    memory, progress = Memory(), []
    summary = predict_frames(
        find_bright, files, [memory], lambda done, total: progress.append((done, total))
    )
    assert (summary.frames, summary.targets, summary.broken) == (2, 1, ())
    assert summary.seconds > 0
    assert progress == [(1, 2), (2, 2)]
    assert [record.name for record in memory.records] == ["b", "a"]
    np.testing.assert_array_equal(memory.records[0].frame, FRAME)
    assert memory.records[0].prediction.targets[0].bbox == (7, 4, 2, 2)


def test_a_broken_frame_is_noted_and_does_not_stop_the_job(tmp_path: Path) -> None:
    files = [save(tmp_path / "a.png"), tmp_path / "broken.png", save(tmp_path / "c.png")]
    files[1].write_bytes(files[0].read_bytes()[:50])
    torn = tmp_path / "torn.tif"
    torn.write_bytes(b"II*\0\xff\xff\xff")
    memory, progress = Memory(), []
    summary = predict_frames(
        find_bright, [*files, torn], [memory], lambda done, total: progress.append(done)
    )
    assert summary.frames == 2
    assert [path for path, _ in summary.broken] == [files[1], torn]
    assert all(path.name in reason for path, reason in summary.broken)
    assert progress == [1, 2, 3, 4]


def test_a_frame_that_the_predictor_refuses_is_noted_too(tmp_path: Path) -> None:
    def refuse(frame: NDArray[Any]) -> Prediction:
        raise FrameError("nothing but NaN")

    summary = predict_frames(refuse, [save(tmp_path / "a.png")], [])
    assert summary.broken == ((tmp_path / "a.png", f"{tmp_path / 'a.png'}: nothing but NaN"),)


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    def fail(frame: NDArray[Any]) -> Prediction:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        predict_frames(fail, [save(tmp_path / "a.png")], [])


def test_no_files_is_an_empty_job() -> None:
    summary = predict_frames(find_bright, [], [])
    assert (summary.frames, summary.targets, summary.broken) == (0, 0, ())


def test_every_page_is_a_frame_with_its_number_in_the_name(tmp_path: Path) -> None:
    stack = np.stack([FRAME.astype(np.uint16) + number for number in range(11)])
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    memory = Memory()
    summary = predict_frames(find_bright, [tmp_path / "stack.tif"], [memory])
    assert summary.frames == 11
    assert [record.page for record in memory.records] == list(range(11))
    assert [record.name for record in memory.records][:2] == ["stack_p00", "stack_p01"]
    for record, frame in zip(memory.records, stack, strict=True):
        np.testing.assert_array_equal(record.frame, frame)


def test_names_are_unique_whatever_the_files_are_called(tmp_path: Path) -> None:
    files = [
        save(tmp_path / "x" / "f.png"),
        save(tmp_path / "y" / "f.png"),
        save(tmp_path / "y" / "F.bmp"),
        save(tmp_path / "y" / "g.png"),
        save(tmp_path / "z" / "y" / "f.png"),
        save(tmp_path / "s_p0.png"),
    ]
    tifffile.imwrite(tmp_path / "s.tif", np.stack([FRAME] * 2), photometric="minisblack")
    memory = Memory()
    predict_frames(find_bright, [*files, tmp_path / "s.tif"], [memory])
    names = [record.name for record in memory.records]
    assert names == ["x_f", "y_f", "y_F-2", "g", "y_f-3", "s_p0", "s_p0-2", "s_p1"]
    assert len({name.casefold() for name in names}) == len(names)


def test_ctrl_c_leaves_whole_files(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{number}.png") for number in range(5)]
    seen = 0

    def interrupt_third(frame: NDArray[Any]) -> Prediction:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt
        return find_bright(frame)

    out = tmp_path / "out"
    with (
        pytest.raises(KeyboardInterrupt),
        open_sinks(["mask", "overlay", "csv", "jsonl"], out) as sinks,
    ):
        predict_frames(interrupt_third, files, sinks)
    lines = (out / "targets.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["source"]).name for line in lines] == ["0.png", "1.png"]
    assert len((out / "targets.csv").read_text().splitlines()) == 3
    for image in out.rglob("*.png"):
        Image.open(image).load()
    assert len(list(out.rglob("*.png"))) == 4


def test_long_names_are_shortened_and_stay_apart(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{'ä' * 110}{letter}.png") for letter in "ab"]
    with open_sinks(["mask", "overlay"], tmp_path / "out") as sinks:
        summary = predict_frames(find_bright, files, sinks)
    assert summary.frames == 2
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 2
