from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow.io.frames import read_frame
from pinglow.output.crops import CropSink, find_window
from pinglow.output.sink import FrameRecord
from pinglow.structures import Detections, Prediction, Target


def save_crops(folder: Path, frame: NDArray[Any], found: Prediction | Detections) -> list[Any]:
    sink = CropSink(folder)
    sink.write(FrameRecord("in/a.png", 2, "a_p2", frame, found, tracks=(5,) * len(found.targets)))
    sink.close()
    with (folder / "crops" / "crops.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("kind", "suffix"), [(np.uint8, "png"), (np.uint16, "png"), (np.float32, "tif")]
)
def test_a_crop_holds_the_frames_counts(kind: Any, suffix: str, tmp_path: Path) -> None:
    frame = np.random.default_rng(0).uniform(0, np.iinfo(np.uint8).max, (150, 200)).astype(kind)
    if kind == np.uint16:
        frame = frame * np.uint16(250) + np.uint16(1)
    probability = np.zeros(frame.shape, np.float32)
    probability[70:73, 100:103] = 0.9
    probability[0, 0] = 0.8
    probability[149, 199] = 0.7
    probability[80:150, 0:40] = 0.6  # larger than a crop
    rows = save_crops(tmp_path, frame, Prediction(probability))
    assert [row["file"] for row in rows] == [f"a_p2_{rank}.{suffix}" for rank in range(1, 5)]
    for row in rows:
        left, top, width, height = (
            int(row[f"window_{name}"]) for name in ("left", "top", "width", "height")
        )
        crop = read_frame(tmp_path / "crops" / row["file"])
        assert crop.dtype == frame.dtype
        np.testing.assert_array_equal(crop, frame[top : top + height, left : left + width])
        assert crop.shape == (height, width) == ((140, 140) if row is rows[3] else (64, 64))
        assert left <= int(row["left"])
        assert left + width >= int(row["left"]) + int(row["width"])
        assert top <= int(row["top"])
        assert top + height >= int(row["top"]) + int(row["height"])
        assert (row["source"], row["frame"], row["track"]) == ("in/a.png", "2", "5")
    assert (rows[0]["x"], rows[0]["y"]) == ("101.0", "71.0")


def test_a_window_is_centered_where_the_frame_allows_it() -> None:
    target = Target(100.0, 71.0, (100, 71, 1, 1), 1, 0.5)
    assert find_window(target, (150, 200)) == (slice(39, 103), slice(68, 132))
    assert find_window(target, (80, 120)) == (slice(16, 80), slice(56, 120))
    assert find_window(Target(3.0, 4.0, (3, 4, 1, 1), 1, 0.5), (9, 7)) == (slice(0, 9), slice(0, 7))


def test_a_frame_has_no_more_than_twenty_crops_those_of_its_best_targets(tmp_path: Path) -> None:
    scores = np.linspace(0.9, 0.5, 30)
    boxes = np.array([[3.0 * number, 5.0, 2.0, 2.0] for number in range(30)])
    rows = save_crops(tmp_path, np.zeros((100, 100), np.uint16), Detections(boxes, scores))
    assert len(list((tmp_path / "crops").glob("*.png"))) == len(rows) == 20
    assert [float(row["score"]) for row in rows] == scores[:20].tolist()
