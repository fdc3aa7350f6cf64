"""Training of detectors: networks that find boxes, and have a loss of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pinglow.data.boxes import BoxFolder, mask_boxes
from pinglow.data.folder import FrameFolder
from pinglow.extras import import_extra
from pinglow.inference.boxes import Detector, find_boxes
from pinglow.io.labels.boxes import BoxArray
from pinglow.metrics.boxes import BoxReport, BoxScorer
from pinglow.structures import BoolArray
from pinglow.training.recipe import DataSet, Recipe
from pinglow.training.task import TrainingTask, ValidationFrame


class DetectionTask(TrainingTask):
    """Trains a detector by its own loss.

    The components of a batch's masks are its targets, so that boxes go through every augmentation
    as masks do. Frames are scored as the detector will be used: the whole frame, with the averaged
    weights. The threshold is the one of the largest F1 on the validation frames, and goes into the
    card.

    Raises:
        MissingExtraError: What it takes to score boxes is not installed.
    """

    figures = ("ap50", "ap", "pd", "fa")

    def __init__(self, recipe: Recipe) -> None:
        import_extra("faster_coco_eval", "detect", "Training of detectors")  # not after hours
        super().__init__(recipe)
        self.threshold = 0.5

    @staticmethod
    def open_frames(folder: Path, dataset: DataSet) -> BoxFolder:
        """See `TrainingTask`."""
        return BoxFolder(folder, dataset.split, dataset.boxes)

    @staticmethod
    def read_frame(name: str, frames: FrameFolder, index: int) -> ValidationFrame:
        """See `TrainingTask`."""
        boxed = cast(BoxFolder, frames)
        return ValidationFrame(name, boxed.frame(index), boxed.boxes(index))

    @property
    def card_changes(self) -> dict[str, Any]:
        """The threshold."""
        return {"threshold": self.threshold}

    def batch_loss(self, images: Tensor, masks: Tensor, warm: bool) -> Tensor:
        """The detector's own loss of the boxes around the masks' components."""
        images = images.contiguous(memory_format=torch.channels_last)
        corners = [_corners(mask_boxes(mask[0].bool().cpu().numpy())).to(images) for mask in masks]
        return cast(Detector, self.network).loss(images, corners)

    def score_frames(self, frames: Sequence[ValidationFrame]) -> list[BoxScorer]:
        """See `TrainingTask`."""
        detector = cast(Detector, self.trained_network.eval())
        scorers = []
        for _, counts, boxes in frames:
            found = find_boxes(detector, counts, self.recipe.input_rule)
            scorers.append(BoxScorer())
            scorers[-1].update(found.boxes, found.scores, boxes, counts.shape)
        return scorers

    def find_masks(self, frames: Sequence[ValidationFrame]) -> list[tuple[BoolArray, BoolArray]]:
        """See `TrainingTask`; boxes are filled."""
        detector = cast(Detector, self.trained_network.eval())
        masks = []
        for _, counts, boxes in frames:
            found = find_boxes(detector, counts, self.recipe.input_rule)
            kept = found.boxes[found.scores > self.threshold]
            masks.append((_fill(boxes, counts.shape), _fill(kept, counts.shape)))
        return masks

    def report(self) -> dict[str, BoxReport]:
        """The report of each data set, at the threshold that is best for all of them."""
        together = BoxScorer()
        for scorer in self.scorers.values():
            together.merge(scorer)
        self.threshold = together.best_threshold()
        return {name: scorer.compute(self.threshold) for name, scorer in self.scorers.items()}


def _fill(boxes: BoxArray, shape: tuple[int, ...]) -> BoolArray:
    mask = np.zeros(shape, dtype=np.bool_)
    for left, top, width, height in np.rint(boxes).astype(int).tolist():
        mask[max(0, top) : top + height, max(0, left) : left + width] = True
    return mask


def _corners(boxes: BoxArray) -> Tensor:
    corners = torch.from_numpy(boxes).reshape(-1, 4)
    return torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1)
