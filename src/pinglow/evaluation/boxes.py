"""Scores of boxes, of a detector or of a segmentation model under the same rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pinglow.data.boxes import BoxFolder
from pinglow.errors import DataError, FrameError
from pinglow.extras import import_extra
from pinglow.inference.detector import DetectorPredictor
from pinglow.inference.predictor import Predictor
from pinglow.metrics.boxes import BoxReport, BoxScorer
from pinglow.models.card import EXPORTED, find_model, read_card
from pinglow.structures import Detections


class BoxFinder(Protocol):
    """Finds boxes of every score.

    Attributes:
        threshold: Of the scores, above which a box is a target.
    """

    threshold: float

    def candidates(self, frame: NDArray[Any]) -> Detections:
        """Boxes in an (H, W) frame of counts."""


class _SegmentationFinder:
    """The boxes around what a segmentation model finds.

    Pixels above its threshold make the targets; their scores only rank them.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.threshold = predictor.threshold

    def candidates(self, frame: NDArray[Any]) -> Detections:
        targets = self._predictor(frame).targets
        boxes = np.array([target.bbox for target in targets], dtype=np.float64)
        return Detections(boxes.reshape(-1, 4), np.array([target.score for target in targets]))


def load_finder(
    name_or_path: str, threshold: float | None = None, device: str = "auto"
) -> BoxFinder:
    """A detector, or a segmentation model, by the name or path of its weights.

    Args:
        name_or_path: A bundled model, or the path of weights or of an exported model.
        threshold: Of the scores; the card's by default.
        device: See `choose_device`.

    Raises:
        ModelError: The name is unknown or the file cannot be used.
        OptionError: The threshold is not in [0, 1), or the device cannot be used.
    """
    exported = find_model(name_or_path).suffix.lower() in EXPORTED
    if not exported and read_card(name_or_path).kind == "boxes":
        return DetectorPredictor.load(name_or_path, device=device, threshold=threshold)
    return _SegmentationFinder(Predictor.load(name_or_path, device=device, threshold=threshold))


def evaluate_boxes(
    frames: BoxFolder,
    finder: BoxFinder,
    order: Iterable[int],
    on_broken: Callable[[str], object] | None = None,
) -> BoxReport:
    """Score a finder on frames with known boxes.

    Args:
        frames: The frames.
        finder: What finds boxes.
        order: The indices of the frames, each once; a progress bar may be behind it.
        on_broken: Called with the reason for each frame that cannot be used and is left out; None:
            such a frame raises.
    """
    import_extra("faster_coco_eval", "detect", "Box average precision")  # not after hours
    scorer = BoxScorer()
    for index in order:
        try:
            frame, boxes = frames.frame(index), frames.boxes(index)
            try:
                found = finder.candidates(frame)
            except FrameError as error:
                raise FrameError(f"{frames.names[index]}: {error}") from error
        except (FrameError, DataError) as error:
            if on_broken is None:
                raise
            on_broken(str(error))
            continue
        scorer.update(found.boxes, found.scores, boxes, frame.shape)
    return scorer.compute(finder.threshold)
