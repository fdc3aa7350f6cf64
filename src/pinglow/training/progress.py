"""What the terminal shows while a run goes on."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pinglow.training.task import LABELS, TrainingTask


class StepsBar(Callback):
    """A bar of steps with the time left, and a line for each validation."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("left"),
            console=Console(stderr=True),
            transient=True,
            speed_estimate_period=300,  # validations included
        )
        self._bar = self._progress.add_task("training")

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin where the run begins."""
        self._progress.update(self._bar, total=trainer.max_steps, completed=trainer.global_step)
        self._progress.start()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """One step on."""
        self._progress.update(self._bar, completed=trainer.global_step)

    def on_validation_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Say why the steps stand still."""
        self._progress.update(self._bar, description="validating")

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Print the scores."""
        assert isinstance(pl_module, TrainingTask)
        self._progress.update(self._bar, description="training")
        figure = pl_module.figures[0]
        scores = ", ".join(
            f"{name} {LABELS[figure]} {_show(getattr(report, figure))} Pd {_show(report.pd)} "
            f"Fa {1e6 * (report.fa or 0):.0f}e-6"
            for name, report in pl_module.reports.items()
        )
        self._progress.console.print(f"step {trainer.global_step}: {scores}", highlight=False)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Take the bar away."""
        self._progress.stop()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Take the bar away."""
        self._progress.stop()


def _show(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"
