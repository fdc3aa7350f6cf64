"""Training of networks that find the pixels of targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pinglow.backends.torch import TorchBackend
from pinglow.data.folder import FrameFolder
from pinglow.inference.probability import predict_probabilities
from pinglow.losses import SoftIoULoss, find_loss
from pinglow.metrics import PROTOCOLS, THRESHOLDS, Scorer
from pinglow.metrics.report import FloatArray, mean_defined, resample_together
from pinglow.models.weights import load_network
from pinglow.nn import fold_kernels, fold_norms
from pinglow.structures import BoolArray
from pinglow.training.recipe import Recipe
from pinglow.training.splits import open_frames
from pinglow.training.task import TrainingTask, ValidationFrame

_TOGETHER: Final = 16  # frames whose probabilities wait to be scored


class SegmentationTask(TrainingTask):
    """Trains a network by the recipe's sum of losses.

    A network with ``forward_pyramid`` is trained on the logits of all its levels, each against the
    mask of its size. Frames are scored under the strict protocol, as the network will be used: the
    whole frame, through the same path as inference, with the averaged weights.
    """

    figures = ("iou", "niou", "pd", "fa")
    static = True
    open_frames = staticmethod(open_frames)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.losses = nn.ModuleList(
            find_loss(term.name)(**term.options) for term in recipe.loss.terms
        )
        self.warmup_loss = SoftIoULoss()
        self._teachers: list[nn.Module] = []  # in a list: it is no part of what is trained
        if recipe.distill is not None:
            teacher, _ = load_network(recipe.distill.model)
            teacher = fold_norms(fold_kernels(teacher)).to(memory_format=torch.channels_last)
            self._teachers.append(teacher.requires_grad_(False))

    @staticmethod
    def read_frame(name: str, frames: FrameFolder, index: int) -> ValidationFrame:
        """See `TrainingTask`."""
        return ValidationFrame(name, *frames.pair(index))

    def is_warm(self, step: int) -> bool:
        """See `TrainingTask`."""
        return step < self.recipe.loss.warmup_steps

    def batch_loss(self, images: Tensor, masks: Tensor, warm: bool) -> Tensor:
        """Mean loss over the fused output and the levels' own; see `TrainingTask`."""
        images = images.contiguous(memory_format=torch.channels_last)
        network: Any = self.network
        if hasattr(network, "forward_pyramid"):
            fused, *sides = network.forward_pyramid(images)
        else:
            fused, sides = network(images), []
        losses = [self._loss(fused, masks, warm)]
        for level, side in enumerate(sides):
            truth = F.max_pool2d(masks, 2**level, ceil_mode=True) if level else masks
            losses.append(self._loss(side, truth, warm))
        loss = torch.stack(losses).mean()
        if self.recipe.distill is not None:
            taught = self._teachers[0].to(images.device)(images).float().sigmoid()
            # What the teacher misses and its false alarms are not taught: the masks know better.
            known = (taught - masks).abs() <= 0.5
            distance = F.binary_cross_entropy_with_logits(fused.float(), taught, reduction="none")
            loss = loss + self.recipe.distill.weight * (distance * known).mean()
        return loss

    def score_frames(self, frames: Sequence[ValidationFrame]) -> list[Scorer]:
        """See `TrainingTask`."""
        backend, rule = self._open_backend(), self.recipe.input_rule
        scorers = [Scorer(PROTOCOLS["strict"], thresholds=THRESHOLDS) for _ in frames]
        # Neighbors of one size are computed together.
        order = sorted(range(len(frames)), key=lambda place: frames[place].counts.shape)
        for start in range(0, len(order), _TOGETHER):
            part = order[start : start + _TOGETHER]
            found = predict_probabilities(backend, [frames[each].counts for each in part], rule)
            for place, probability in zip(part, found, strict=True):
                scorers[place].update(probability, frames[place].truth)
        return scorers

    def draw_score(self) -> FloatArray | None:
        """See `TrainingTask`."""
        tables = [
            np.array(scorer.images, dtype=np.int64)
            for name, scorer in self.scorers.items()
            if self.reports[name].targets
        ]
        draws = [
            resample_together([table], seed)[1][self.figures[0]][:, 0]
            for seed, table in enumerate(tables)
        ]
        return mean_defined(draws) if draws else None

    def find_masks(self, frames: Sequence[ValidationFrame]) -> list[tuple[BoolArray, BoolArray]]:
        """See `TrainingTask`."""
        counts = [frame.counts for frame in frames]
        found = predict_probabilities(self._open_backend(), counts, self.recipe.input_rule)
        return [(frame.truth, each > 0.5) for frame, each in zip(frames, found, strict=True)]

    def report(self) -> dict[str, Any]:
        """The strict protocol's report of each data set."""
        return {name: scorer.compute() for name, scorer in self.scorers.items()}

    def _open_backend(self) -> TorchBackend:
        """What runs the trained network."""
        network = self.trained_network.eval()
        return TorchBackend.fastest(network, next(network.parameters()).device)

    def _loss(self, logits: Tensor, masks: Tensor, warm: bool) -> Tensor:
        """The sum of the terms; in the warm-up the first one is the plain soft IoU."""
        first, *others = self.losses
        total = [self.warmup_loss if warm else first, *others]
        parts = zip(self.recipe.loss.terms, total, strict=True)
        return torch.stack([term.weight * loss(logits, masks) for term, loss in parts]).sum()
