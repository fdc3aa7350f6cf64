"""Training of detectors: the same views of frames, runs and recipes as segmentation has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pinglow.data.boxes import BoxArray, BoxFolder, mask_boxes
from pinglow.detection.detector import Detector, build_detector, find_boxes
from pinglow.detection.recipe import BoxDataSet, DetectorRecipe
from pinglow.extras import import_extra
from pinglow.metrics.boxes import BoxReport, BoxScorer
from pinglow.training.batches import Cut, TrainingBatches, cut_validation
from pinglow.training.fit import as_is, describe_model, finished_steps, fit_task
from pinglow.training.task import TrainingTask

BoxFrame = tuple[str, NDArray[Any], BoxArray]
"""Data set, (H, W) counts, boxes."""


class DetectionTask(TrainingTask):
    """Trains a detector by a recipe.

    ``training_step`` takes images and masks (N, 1, H, W), whose components are the targets, so that
    boxes go through every augmentation as masks do; ``validation_step`` takes one `BoxFrame` and
    scores it as it will be used: the whole frame, with the averaged weights. The threshold is the
    one of the largest F1 on the validation frames, and goes into the card.
    """

    figures = ("ap50", "ap", "pd", "fa")

    def __init__(self, recipe: DetectorRecipe) -> None:
        network = build_detector(recipe.detector.model_dump())
        super().__init__(recipe, network.to(memory_format=torch.channels_last))
        self.scorers: dict[str, BoxScorer] = {}
        self.threshold = 0.5

    @property
    def card_changes(self) -> dict[str, Any]:
        """The threshold."""
        return {"threshold": self.threshold}

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The detector's own loss."""
        images, masks = batch
        images = images.contiguous(memory_format=torch.channels_last)
        corners = [_corners(mask_boxes(mask[0].bool().cpu().numpy())).to(images) for mask in masks]
        loss = cast(Detector, self.network).loss(images, corners)
        self.log("train/loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.scorers = {}

    def validation_step(self, batch: BoxFrame, _: int) -> None:
        """Find the boxes of one frame."""
        name, frame, boxes = batch
        detector = cast(Detector, self.trained_network)
        with torch.autocast(self.device.type, enabled=False):  # as in use
            found = find_boxes(detector, frame, self.recipe.input_rule)
        scorer = self.scorers.setdefault(name, BoxScorer())
        scorer.update(found.boxes, found.scores, boxes, frame.shape)

    def report(self) -> dict[str, BoxReport]:
        """The report of each data set, at the threshold that is best for all of them."""
        together = BoxScorer()
        for scorer in self.scorers.values():
            together.merge(scorer)
        self.threshold = together.best_threshold()
        return {name: scorer.compute(self.threshold) for name, scorer in self.scorers.items()}


def _corners(boxes: BoxArray) -> Tensor:
    corners = torch.from_numpy(boxes).reshape(-1, 4)
    return torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1)


class _ValidationFrames(Dataset[BoxFrame]):
    def __init__(self, cuts: list[Cut]) -> None:
        self._items = [(cut, index) for cut in cuts for index in cut.validation]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> BoxFrame:
        cut, index = self._items[number]
        frames = cast(BoxFolder, cut.validation_frames)
        return cut.name, frames.frame(index), frames.boxes(index)


def train_detector(
    recipe: DetectorRecipe,
    run: Path,
    *,
    resume: bool = False,
    command: str = "",
    progress: bool = True,
    on_start: Callable[[list[Cut]], None] = lambda cuts: None,
) -> DetectionTask:
    """Train by a recipe until its last step; see `pinglow.training.fit.train`, also for errors.

    Raises:
        MissingExtraError: The detector's library is not installed.
    """
    import_extra("faster_coco_eval", "detect", "Training of detectors")  # not after hours
    start = finished_steps(run, recipe, resume)
    cuts = cut_validation(recipe, _open_boxes)
    lightning.seed_everything(recipe.seed, verbose=False)
    task = DetectionTask(recipe)
    fit_task(
        task,
        describe_model(task, recipe.detector.model_dump(), cuts, command),
        cuts,
        DataLoader(TrainingBatches(recipe, cuts, start), batch_size=None),
        DataLoader(_ValidationFrames(cuts), batch_size=None, collate_fn=as_is),
        run,
        resume=resume,
        progress=progress,
        on_start=on_start,
        command="pinglow detect train",
    )
    return task


def _open_boxes(folder: Path, dataset: BoxDataSet) -> BoxFolder:
    return BoxFolder(folder, dataset.split, dataset.boxes)
