"""The Lightning modules: network, loss with its warm-up, optimiser, moving average, validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from pinglow.inference.backends import TorchBackend
from pinglow.inference.predictor import predict_probability
from pinglow.inference.weights import build_network, load_network
from pinglow.losses import LOSSES, SoftIoULoss, target_weights
from pinglow.metrics import PROTOCOLS, Report, Scorer
from pinglow.nn import PinwheelUNet, fold_kernels, fold_norms
from pinglow.structures import BoolArray
from pinglow.training.recipe import OptimizerSection, Recipe, RunRecipe

LABELS: Final = {"iou": "IoU", "ap50": "AP50"}
"""How the figures that matter first are called."""

ValidationFrame = tuple[str, NDArray[Any], BoolArray]


class TrainingTask(lightning.LightningModule):
    """What training a network has in common, whatever it finds: see `SegmentationTask`.

    A task of its own kind gives `training_step`, `validation_step`, which fills what `report`
    makes the reports from, and the names of its `figures`. ``stop_signal`` is the signal that came
    when all steps were done.

    Args:
        recipe: Optimiser, schedule, moving average.
        network: What is trained.
    """

    figures: tuple[str, ...]
    """Attributes of its reports that are noted in metrics.csv, the one that matters first."""

    def __init__(self, recipe: RunRecipe, network: nn.Module) -> None:
        super().__init__()
        self.recipe: RunRecipe = recipe
        self.network = network
        self.average = (
            AveragedModel(
                self.network, multi_avg_fn=_moving_average(recipe.ema_decay), use_buffers=True
            )
            if recipe.ema_decay
            else None
        )
        self.reports: Mapping[str, Any] = {}
        self.gradient_norm = 0.0
        self.stop_signal: int | None = None

    @property
    def trained_network(self) -> nn.Module:
        """The network to use: the moving average where there is one."""
        return self.network if self.average is None else self.average.module

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

    def report(self) -> Mapping[str, Any]:
        """Scores of each data set, from what `validation_step` has collected."""
        raise NotImplementedError

    def on_before_optimizer_step(self, _: torch.optim.Optimizer) -> None:
        """Note the gradient's norm, before it is clipped."""
        gradients = [each.grad for each in self.network.parameters() if each.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        self.gradient_norm = float(torch.linalg.vector_norm(norms))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the moving average follow."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def on_validation_epoch_end(self) -> None:
        """Report each data set; ``val/score`` is `score`."""
        self.reports = self.report()
        for name, report in self.reports.items():
            for key in self.figures:
                value = getattr(report, key)
                self.log(f"val/{name}/{key}", float("nan") if value is None else value)
        self.log("val/score", self.score)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimiser and its schedule."""
        section = self.recipe.optimizer
        kinds = {"adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad}
        # Decay would pull a kernel's angle and sigma, and BatchNorm's scales, to arbitrary values.
        trained = [each for each in self.network.parameters() if each.requires_grad]
        weights = [each for each in trained if each.dim() == 4]
        others = [each for each in trained if each.dim() != 4]
        optimizer = kinds[section.name](
            [
                {"params": weights, "weight_decay": section.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=section.learning_rate,
        )
        schedule = LambdaLR(optimizer, _learning_rate_factor(section, self.recipe.steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class SegmentationTask(TrainingTask):
    """Trains a PinwheelUNet by a recipe.

    ``training_step`` takes images and masks (N, 1, H, W); ``validation_step`` takes one
    (data set, frame, mask) and scores it under the strict protocol, as it will be used: the whole
    frame, through the same path as inference, with the averaged weights.
    """

    figures = ("iou", "niou", "pd", "fa")
    recipe: Recipe
    network: PinwheelUNet

    def __init__(self, recipe: Recipe) -> None:
        network = build_network(recipe.network.model_dump())
        super().__init__(recipe, network.to(memory_format=torch.channels_last))
        self.loss = LOSSES[recipe.loss.name](**recipe.loss.options)
        self.warmup_loss = SoftIoULoss()
        self._teachers: list[nn.Module] = []  # in a list: it is no part of what is trained
        if recipe.distill is not None:
            teacher, _ = load_network(recipe.distill.model)
            teacher = fold_norms(fold_kernels(teacher)).to(memory_format=torch.channels_last)
            self._teachers.append(teacher.requires_grad_(False))
        self.scorers: dict[str, Scorer] = {}

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Mean loss over the fused output and the levels' own."""
        images, masks = batch
        images = images.contiguous(memory_format=torch.channels_last)
        warm = self.global_step < self.recipe.loss.warmup_steps
        criterion = self.warmup_loss if warm else self.loss
        fused, *sides = self.network.forward_pyramid(images)
        losses = [self._loss(criterion, fused, masks)]
        for level, side in enumerate(sides):
            truth = F.max_pool2d(masks, 2**level, ceil_mode=True) if level else masks
            losses.append(self._loss(criterion, side, truth))
        loss = torch.stack(losses).mean()
        if self.recipe.distill is not None:
            taught = self._teachers[0].to(images.device)(images).sigmoid()
            distance = F.binary_cross_entropy_with_logits(fused.float(), taught.float())
            loss = loss + self.recipe.distill.weight * distance
        self.log("train/loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.scorers = {}

    def validation_step(self, batch: ValidationFrame, _: int) -> None:
        """Score one frame."""
        name, frame, mask = batch
        backend = TorchBackend(self.trained_network)
        # In use there is no bfloat16, whatever training computes in.
        with torch.autocast(self.device.type, enabled=False):
            probability = predict_probability(backend, frame, self.recipe.input_rule)
        scorer = self.scorers.setdefault(name, Scorer(PROTOCOLS["strict"]))
        scorer.update(probability, mask)

    def report(self) -> dict[str, Report]:
        """The strict protocol's report of each data set."""
        return {name: scorer.compute() for name, scorer in self.scorers.items()}

    def _loss(self, criterion: nn.Module, logits: Tensor, masks: Tensor) -> Tensor:
        loss: Tensor = criterion(logits, masks)
        if self.recipe.loss.bce_weight:
            weight = target_weights(masks) if self.recipe.loss.bce_per_target else None
            bce = F.binary_cross_entropy_with_logits(logits.float(), masks, weight)
            loss = loss + self.recipe.loss.bce_weight * bce
        return loss


def _learning_rate_factor(section: OptimizerSection, steps: int) -> Any:
    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (section.warmup_steps + 1))
        if section.schedule == "constant":
            return warm
        done = max(0, step - section.warmup_steps) / max(1, steps - section.warmup_steps)
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def _moving_average(decay: float) -> Any:
    """Exponential moving average that follows closely at the start, then at ``decay``."""

    @torch.no_grad()
    def update(averages: list[Tensor], currents: list[Tensor], count: Tensor | int) -> None:
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, 1 - keep)
        else:  # BatchNorm's counters
            torch._foreach_copy_(averages, currents)

    return update
