"""Training of detectors: the same views of frames, runs and recipes as segmentation has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pinglow.data.boxes import BoxFolder, mask_boxes
from pinglow.extras import import_extra
from pinglow.inference.boxes import find_boxes
from pinglow.inference.detector import Detector, build_detector
from pinglow.io.labels.boxes import BoxArray
from pinglow.metrics.boxes import BoxReport, BoxScorer
from pinglow.training.detection_recipe import BoxDataSet, DetectorRecipe
from pinglow.training.fit import (
    Machine,
    check_machine,
    describe_model,
    finished_steps,
    fit_task,
)
from pinglow.training.processes import open_world
from pinglow.training.recipe import RunRecipe
from pinglow.training.splits import Cut, cut_validation
from pinglow.training.task import TrainingTask, ValidationFrame


class DetectionTask(TrainingTask):
    """Trains a detector by a recipe.

    The components of a batch's masks are its targets, so that boxes go through every augmentation
    as masks do. Frames are scored as the detector will be used: the whole frame, with the averaged
    weights. The threshold is the one of the largest F1 on the validation frames, and goes into the
    card.
    """

    figures = ("ap50", "ap", "pd", "fa")

    def __init__(self, recipe: DetectorRecipe) -> None:
        network = build_detector(recipe.detector.model_dump())
        super().__init__(recipe, network.to(memory_format=torch.channels_last))
        self.threshold = 0.5

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


def train_detector(
    recipe: DetectorRecipe,
    run: Path,
    *,
    resume: bool = False,
    command: str = "",
    progress: bool = True,
    on_start: Callable[[RunRecipe, list[Cut]], None] = lambda recipe, cuts: None,
    machine: Machine | None = None,
) -> DetectionTask:
    """Train by a recipe until its last step; see `pinglow.training.fit.train`, also for errors.

    Raises:
        MissingExtraError: The detector's library is not installed.
    """
    machine = machine or Machine()
    begun = time.monotonic() if machine.begun is None else machine.begun
    import_extra("faster_coco_eval", "detect", "Training of detectors")  # not after hours
    world = open_world(machine.device, machine.devices)
    check_machine(recipe, machine, world)
    start = finished_steps(run, recipe, resume)
    cuts = cut_validation(recipe, _open_boxes)
    torch.manual_seed(recipe.seed)
    task = DetectionTask(recipe)
    fit_task(
        task,
        describe_model(task, recipe.detector.model_dump(), cuts, command),
        cuts,
        _read_boxes,
        run,
        start,
        resume=resume,
        world=world,
        machine=machine,
        begun=begun,
        progress=progress,
        on_start=on_start,
    )
    return task


def _open_boxes(folder: Path, dataset: BoxDataSet) -> BoxFolder:
    return BoxFolder(folder, dataset.split, dataset.boxes)


def _read_boxes(cut: Cut, index: int) -> ValidationFrame:
    frames = cast(BoxFolder, cut.validation_frames)
    return ValidationFrame(cut.name, frames.frame(index), frames.boxes(index))
