"""Scores of detectors and of segmentation models under one rule."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow.data.boxes import BoxFolder
from pinglow.errors import FrameError, OptionError
from pinglow.evaluation.boxes import evaluate_boxes, load_finder
from pinglow.inference.detector import DetectorPredictor
from pinglow.models.card import ModelCard
from pinglow.models.registry import build_network
from pinglow.models.weights import save_model
from pinglow.structures import Detections

pytest.importorskip("faster_coco_eval", reason="needs pip install 'pinglow[detect]'")

pytestmark = pytest.mark.usefixtures("one_thread", "offline_detectors")


class Oracle:
    """Knows every box, and makes one up."""

    threshold = 0.5

    def __init__(self, frames: BoxFolder) -> None:
        self._boxes = iter([frames.boxes(index) for index in range(len(frames))])

    def candidates(self, frame: NDArray[np.generic]) -> Detections:
        boxes = next(self._boxes)
        made_up = np.array([[0.0, 0.0, 2.0, 2.0]])
        scores = np.append(np.full(len(boxes), 0.9), 0.6)
        return Detections(np.concatenate([boxes, made_up]), scores)


def test_what_is_known_scores_full(box_scenes: Path) -> None:
    frames = BoxFolder(box_scenes, "train")
    report = evaluate_boxes(frames, Oracle(frames), range(len(frames)))
    assert report.ap50 == pytest.approx(1)
    assert report.ap == pytest.approx(1)
    assert report.pd == 1
    assert report.false_alarms_per_image == 1
    assert report.fa == pytest.approx(4 / 64**2)


def test_a_broken_frame_is_left_out_and_told(box_scenes: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(box_scenes, tmp_path / "scenes")
    frames = BoxFolder(folder, "train")
    oracle = Oracle(frames)
    path = folder / "images" / f"{frames.names[-1]}.png"
    path.write_bytes(b"")
    told: list[str] = []
    report = evaluate_boxes(BoxFolder(folder, "train"), oracle, range(len(frames)), told.append)
    assert (report.images, report.ap50) == (len(frames) - 1, pytest.approx(1))
    assert len(told) == 1
    assert path.name in told[0]


def test_a_frame_that_cannot_be_predicted_is_named(box_scenes: Path) -> None:
    class Full(Oracle):
        def candidates(self, frame: NDArray[np.generic]) -> Detections:
            raise FrameError("does not fit")

    frames = BoxFolder(box_scenes, "train")
    told: list[str] = []
    assert evaluate_boxes(frames, Full(frames), [1], told.append).images == 0
    assert told == [f"{frames.names[1]}: does not fit"]
    with pytest.raises(FrameError, match=f"^{frames.names[0]}: does not fit"):
        evaluate_boxes(frames, Full(frames), [0])


def test_a_segmentation_model_is_scored_by_the_boxes_of_its_targets(
    box_scenes: Path, small_model: Path
) -> None:
    frames = BoxFolder(box_scenes, "train")
    finder = load_finder(str(small_model))
    found = finder.candidates(frames.frame(0))
    assert found.boxes.shape == (len(found.scores), 4)
    np.testing.assert_array_equal(found.boxes, np.rint(found.boxes))
    report = evaluate_boxes(frames, finder, range(len(frames)))
    assert report.images == len(frames)
    assert report.threshold == 0.5


def test_the_kind_of_a_model_is_told_by_its_card(tmp_path: Path) -> None:
    config = {"type": "retinanet-small"}
    path = tmp_path / "detector.safetensors"
    card = ModelCard(name="d", network=config, parameters=1, threshold=0.4)
    save_model(path, build_network(config), card)
    finder = load_finder(str(path))
    assert isinstance(finder, DetectorPredictor)
    assert finder.threshold == 0.4
    assert load_finder(str(path), 0.2).threshold == 0.2
    for model in (str(path), "pinglow-fast"):
        with pytest.raises(OptionError, match="device 'tpu' is unknown"):
            load_finder(model, device="tpu")
