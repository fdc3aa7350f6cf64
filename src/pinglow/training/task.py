"""What training any network has in common: moving average, optimizer, schedule, validation."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pinglow.data.folder import FrameFolder
from pinglow.metrics.report import FloatArray
from pinglow.structures import BoolArray
from pinglow.training.recipe import DataSet, OptimizerSection, Recipe


class ValidationFrame(NamedTuple):
    """A frame that validates."""

    dataset: str
    counts: NDArray[Any]
    """(H, W)."""
    truth: NDArray[Any]
    """(H, W) bool mask, or (n, 4) boxes."""


class FrameScorer(Protocol):
    """Counts of frames, which add up."""

    def merge(self, other: Self) -> None:
        """Add the frames of another one."""


class TrainingTask(nn.Module):
    """What training a network has in common, whatever it finds.

    `SegmentationTask` and `DetectionTask` say how frames are read, what a batch's loss is, and how
    frames are scored.

    Args:
        recipe: The network, moving average and optimizer.

    Attributes:
        average: The network's moving average; None where the recipe has none.
        scorers: The counts of the last validation, by data set.
        reports: What they come to.
        steps_done: How far it has been trained.
        stop_signal: The signal that came when all steps were done.
    """

    figures: tuple[str, ...]
    """Attributes of its reports that are noted in metrics.csv, the one that matters first."""

    static = False
    """Whether a step is the same operations on the same memory each time: for CUDA graphs."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = recipe.network.build().to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network) if recipe.ema_decay else None
        self.scorers: dict[str, Any] = {}
        self.reports: Mapping[str, Any] = {}
        self.steps_done = 0
        self.stop_signal: int | None = None

    @staticmethod
    def open_frames(folder: Path, dataset: DataSet) -> FrameFolder:
        """The frames of one list, and their truth."""
        raise NotImplementedError

    @staticmethod
    def read_frame(name: str, frames: FrameFolder, index: int) -> ValidationFrame:
        """A frame that validates, of a data set of that name."""
        raise NotImplementedError

    @property
    def trained_network(self) -> nn.Module:
        """The network to use: the moving average where there is one."""
        return self.network if self.average is None else self.average

    @property
    def card_changes(self) -> dict[str, Any]:
        """What the last validation says about the card, beyond the scores."""
        return {}

    @property
    def score(self) -> float:
        """Mean of the first figure over the data sets of the last validation with targets."""
        reports = [report for report in self.reports.values() if report.targets]
        values = [getattr(report, self.figures[0]) or 0.0 for report in reports]
        return sum(values) / max(1, len(values))

    def batch_loss(self, images: Tensor, masks: Tensor, warm: bool) -> Tensor:
        """Loss of images and masks (N, 1, H, W), a scalar; ``warm``: in the loss's warm-up."""
        raise NotImplementedError

    def is_warm(self, step: int) -> bool:
        """Whether a step, counted from 0, is in the loss's warm-up."""
        return False

    def score_frames(self, frames: Sequence[ValidationFrame]) -> list[Any]:
        """A `FrameScorer` for each frame, by what the trained network finds in it."""
        raise NotImplementedError

    def draw_score(self) -> FloatArray | None:
        """`score` of the last validation over draws of its frames, (R,), the same each time.

        None where that is not known of its figures.
        """
        return None

    def find_masks(self, frames: Sequence[ValidationFrame]) -> list[tuple[BoolArray, BoolArray]]:
        """(H, W) bool of each frame for pictures: the truth, what the trained network finds."""
        raise NotImplementedError

    def report(self) -> Mapping[str, Any]:
        """Scores of each data set, from `scorers`."""
        raise NotImplementedError

    def take_scores(self, names: Sequence[str], scorers: Sequence[Any]) -> None:
        """Make the reports of a validation from the data set and the scorer of each frame."""
        self.scorers = {}
        for name, scorer in zip(names, scorers, strict=True):
            if name in self.scorers:
                self.scorers[name].merge(scorer)
            else:
                self.scorers[name] = scorer
        self.reports = self.report()

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Let the moving average follow step number ``step``, counted from 0.

        It follows closely at the start, then at the recipe's decay.
        """
        if self.average is None:
            return
        keep = min(self.recipe.ema_decay, (1 + step) / (10 + step)) if step else 0.0  # 0: copy
        averages, current, counts, current_counts = self._followed
        torch._foreach_lerp_(averages, current, 1 - keep)
        if counts:
            torch._foreach_copy_(counts, current_counts)

    @functools.cached_property
    def _followed(self) -> tuple[list[Tensor], ...]:
        """The average's numbers and the network's, then the same for BatchNorm's counters."""
        assert self.average is not None
        state = self.network.state_dict()
        pairs = [(value, state[name]) for name, value in self.average.state_dict().items()]
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        return tuple([pair[side] for pair in part] for part in (real, counts) for side in (0, 1))

    def build_optimizer(self, device: torch.device) -> torch.optim.Optimizer:
        """The recipe's optimizer, at its full learning rate."""
        section = self.recipe.optimizer
        kinds: dict[str, Any] = {"adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad}
        # Decay would pull a kernel's angle and sigma, and BatchNorm's scales, to arbitrary values.
        trained = [each for each in self.network.parameters() if each.requires_grad]
        groups = [
            {
                "params": [each for each in trained if each.dim() == 4],
                "weight_decay": section.weight_decay,
            },
            {"params": [each for each in trained if each.dim() != 4], "weight_decay": 0.0},
        ]
        fused = {"fused": True} if device.type == "cuda" and section.name == "adamw" else {}
        optimizer: torch.optim.Optimizer = kinds[section.name](
            groups, lr=section.learning_rate, **fused
        )
        return optimizer


def learning_rate(section: OptimizerSection, steps: int, step: int) -> float:
    """The learning rate of a step, counted from 0, of ``steps``."""
    warm = min(1.0, (step + 1) / (section.warmup_steps + 1))
    if section.schedule == "constant":
        return section.learning_rate * warm
    done = max(0, step - section.warmup_steps) / max(1, steps - section.warmup_steps)
    return section.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
