"""Scores of detectors and of segmentation models under one rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow.data.boxes import BoxFolder
from pinglow.errors import FrameError, OptionError
from pinglow.evaluation.boxes import BoxPair, evaluate_boxes, target_boxes
from pinglow.inference.predictor import Predictor
from pinglow.metrics import PROTOCOLS
from pinglow.structures import Detections, label_targets

pytest.importorskip("faster_coco_eval", reason="needs pip install '.[detect]'")

STRICT = [PROTOCOLS["strict"]]

pytestmark = pytest.mark.usefixtures("one_thread", "offline_detectors")


class Oracle:
    """Knows every box, and makes one up."""

    def __init__(self, frames: BoxFolder) -> None:
        self._boxes = iter([frames.boxes(index) for index in range(len(frames))])

    def __call__(self, frames: Iterable[NDArray[Any]]) -> Iterator[Detections | FrameError]:
        for _ in frames:
            boxes = next(self._boxes)
            made_up = np.array([[0.0, 0.0, 2.0, 2.0]])
            scores = np.append(np.full(len(boxes), 0.9), 0.6)
            yield Detections(np.concatenate([boxes, made_up]), scores)


def pairs_of(frames: BoxFolder) -> Iterator[BoxPair]:
    for index, name in enumerate(frames.names):
        yield name, *frames.boxed(index)


def test_what_is_known_scores_full(box_scenes: Path) -> None:
    frames = BoxFolder(box_scenes, "train")
    [report] = evaluate_boxes(pairs_of(frames), Oracle(frames), STRICT)
    assert report.ap50 == pytest.approx(1)
    assert report.ap == pytest.approx(1)
    assert report.pd == 1
    assert report.false_alarms_per_image == 1
    assert report.fa == pytest.approx(4 / 64**2)


def test_protocols_share_a_pass_and_those_for_pixels_are_refused(box_scenes: Path) -> None:
    frames = BoxFolder(box_scenes, "train")
    both = [PROTOCOLS["strict"], PROTOCOLS["greedy"]]
    strict, greedy = evaluate_boxes(pairs_of(frames), Oracle(frames), both)
    assert (strict.protocol, greedy.protocol) == ("boxes", "boxes-greedy")
    assert [strict] == evaluate_boxes(pairs_of(frames), Oracle(frames), STRICT)
    with pytest.raises(OptionError, match=r"mshnet256 .* choose strict or greedy for boxes"):
        evaluate_boxes(pairs_of(frames), Oracle(frames), [PROTOCOLS["mshnet256"]])


def test_a_frame_that_cannot_be_predicted_is_named(box_scenes: Path) -> None:
    def fail(frames: Iterable[NDArray[Any]]) -> Iterator[Detections | FrameError]:
        for number, found in enumerate(Oracle(known)(frames)):
            yield FrameError("does not fit") if number == 1 else found

    known = BoxFolder(box_scenes, "train")
    told: list[str] = []
    [report] = evaluate_boxes(pairs_of(known), fail, STRICT, on_broken=told.append)
    assert (report.images, report.ap50) == (len(known) - 1, pytest.approx(1))
    assert told == [f"{known.names[1]}: does not fit"]
    with pytest.raises(FrameError, match=f"^{known.names[1]}: does not fit"):
        evaluate_boxes(pairs_of(known), fail, STRICT)


def test_a_segmentation_model_is_scored_by_the_boxes_of_its_targets(
    box_scenes: Path, small_model: Path
) -> None:
    frames = BoxFolder(box_scenes, "train")
    predictor = Predictor.load(small_model, backend="torch")
    find = partial(target_boxes, predictor, 0.4)
    (found,) = find([frames.frame(0)])
    assert found.boxes.shape == (len(found.scores), 4)
    above = predictor.probability(frames.frame(0)) > 0.4
    assert len(found.boxes) == label_targets(above)[1] > 0
    np.testing.assert_array_equal(found.boxes, np.rint(found.boxes))
    [report] = evaluate_boxes(pairs_of(frames), find, STRICT, 0.4)
    assert report.images == len(frames)
    assert report.threshold == 0.4
    (broken,) = find([np.zeros((3, 4, 5))])
    assert isinstance(broken, FrameError)
