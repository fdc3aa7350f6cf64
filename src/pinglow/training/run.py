"""A run folder: what a training run leaves behind, and keeps up to date while it goes.

recipe.toml            the recipe with all changes applied
splits/NAME.training.txt, NAME.validation.txt
metrics.csv            a row per validation
curves.png             the same, drawn
weights.safetensors    the best network so far, with its card
last.ckpt              to go on from
tensorboard/
"""

from __future__ import annotations

import csv
import math
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import lightning
from lightning.pytorch.callbacks import Callback

from pinglow.errors import DataError, PinglowError, RecipeError
from pinglow.inference.weights import WEIGHTS, ModelCard, save_model, write_atomically
from pinglow.training.batches import Cut
from pinglow.training.recipe import RunRecipe, load_run_recipe
from pinglow.training.task import LABELS, TrainingTask

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class TrainingInterruptedError(PinglowError):
    """Training was asked to stop by a signal, whose number is kept; everything is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def check_run(run: Path, recipe: RunRecipe, resume: bool) -> None:
    """See whether a run folder can be begun, or gone on with by this recipe.

    Raises:
        RecipeError: A new run would overwrite one, there is nothing to resume, or the recipe to
            resume is another.
    """
    stored, checkpoint = run / "recipe.toml", run / "last.ckpt"
    if not resume:
        if checkpoint.exists():
            raise RecipeError(
                f"{run} holds a run already; add --resume {run}, or name another folder with --run"
            )
        if stored.exists():
            raise RecipeError(
                f"{run} holds a run that has saved nothing yet; wait, delete it if it was killed, "
                "or name another folder"
            )
        if run.exists() and not run.is_dir():
            raise RecipeError(f"{run} is a file; name a folder for the run")
        return
    if not (stored.is_file() and checkpoint.is_file()):
        raise RecipeError(f"{run} has no saved run to go on with; delete it and train anew")
    if load_run_recipe(type(recipe), stored) != recipe:
        raise RecipeError(f"{stored} differs from the recipe given; resume with {stored} itself")


def describe_run(run: Path, recipe: RunRecipe, cuts: list[Cut], resume: bool) -> None:
    """Write the recipe and the lists of training and validation frames, a pair per data set.

    Raises:
        DataError: A resumed run's lists are not what the data gives now.
    """
    (run / "splits").mkdir(parents=True, exist_ok=True)
    for cut in cuts:
        parts = {
            "training": [cut.frames.names[index] for index in cut.training],
            "validation": [cut.validation_frames.names[index] for index in cut.validation],
        }
        for part, listed in parts.items():
            names = "".join(f"{name}\n" for name in listed)
            path = run / "splits" / f"{cut.name}.{part}.txt"
            if resume and path.is_file() and path.read_text(encoding="utf-8") != names:
                raise DataError(
                    f"{cut.frames.folder} has changed since the run began ({path} is another "
                    "list); bring the frames back, or start a new run"
                )
            if not (resume and path.is_file()):
                write_atomically(path, names.encode())
    if not resume:
        write_atomically(run / "recipe.toml", recipe.to_toml().encode())


class RunKeeper(Callback):
    """Writes rows, curves, weights and checkpoints; turns SIGINT and SIGTERM into a clean stop."""

    def __init__(self, run: Path, card: ModelCard, command: str = "pinglow train") -> None:
        self.run = run
        self.card = card
        self._command = command
        self.best = -1.0
        self.minutes = 0.0
        self._started = time.monotonic()
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._signal: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know."""
        return {
            "best": self.best,
            "minutes": self._elapsed(),
            "losses": self._losses,
            "norms": self._norms,
            "command": self.card.command,
            "started_from": self.card.training.get("started_from"),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up from `state_dict`."""
        self.best = state_dict["best"]
        self.minutes = state_dict["minutes"]
        self._losses = list(state_dict["losses"])
        self._norms = list(state_dict.get("norms", []))  # older checkpoints have none
        training = dict(self.card.training)
        if state_dict["started_from"] is not None:
            training["started_from"] = state_dict["started_from"]
        update = {"command": state_dict["command"], "training": training}
        self.card = self.card.model_copy(update=update)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a clean stop while this lasts.

        It goes around the whole of Lightning's fit, which puts back at its end what it found.
        """
        before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
        self._listen()
        try:
            yield
        finally:
            if _in_main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the clock; forget what was written after the checkpoint; stop if asked to."""
        self._started = time.monotonic()
        self._drop_rows_after(trainer.global_step)
        if self._signal is not None:
            trainer.save_checkpoint(self.run / "last.ckpt")
            self._stop(trainer.global_step)
        self._listen()  # without Lightning's own handler, which would break off in the middle

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Collect the loss; stop if asked to, but never between a step and its validation."""
        assert isinstance(pl_module, TrainingTask)
        self._losses.append(float(outputs["loss"].detach()))
        self._norms.append(pl_module.gradient_norm)
        if not math.isfinite(self._losses[-1]) or not math.isfinite(self._norms[-1]):
            raise RecipeError(
                f"training has come apart at step {trainer.global_step} (loss {self._losses[-1]}, "
                f"gradient norm {self._norms[-1]}); lower optimizer.learning_rate or "
                "optimizer.gradient_clip (0 is none), and begin a new run"
            )
        if self._signal is not None and trainer.global_step % pl_module.recipe.validate_every:
            trainer.save_checkpoint(self.run / "last.ckpt")
            self._stop(trainer.global_step)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write everything that this validation changes; stop if asked to."""
        assert isinstance(pl_module, TrainingTask)
        self._append_row(trainer, pl_module)
        if pl_module.score >= self.best:  # of equal ones the later, as without any targets
            self.best = pl_module.score
            save_model(
                self.run / WEIGHTS,
                pl_module.trained_network,
                self._finished_card(trainer, pl_module),
            )
        self._losses, self._norms = [], []
        trainer.save_checkpoint(self.run / "last.ckpt")
        draw_curves(self.run, pl_module.figures[0])
        if trainer.global_step < pl_module.recipe.steps:
            self._stop(trainer.global_step)
        pl_module.stop_signal = self._signal  # all steps are done: for what comes after the run

    def _listen(self) -> None:
        if _in_main_thread():  # only that one may listen
            for number in _STOP_SIGNALS:
                signal.signal(number, self._remember)

    def _remember(self, number: int, _: FrameType | None) -> None:
        """First signal: finish the step. A second one ends the process at once."""
        self._signal = number
        for each in _STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def _stop(self, step: int) -> None:
        if self._signal is not None:
            raise TrainingInterruptedError(
                f"stopped at step {step}, everything is saved; "
                f"go on with: {self._command} --resume {shlex.quote(str(self.run))}",
                self._signal,
            )

    def _elapsed(self) -> float:
        return self.minutes + (time.monotonic() - self._started) / 60

    def _append_row(self, trainer: lightning.Trainer, task: TrainingTask) -> None:
        row: dict[str, Any] = {
            "step": trainer.global_step,
            "minutes": round(self._elapsed(), 2),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": sum(self._losses) / max(1, len(self._losses)),
            "gradient_norm": sum(self._norms) / max(1, len(self._norms)),
            "largest_gradient_norm": max(self._norms, default=0.0),
            "val_score": task.score,
        }
        for name, report in task.reports.items():
            row |= {f"{name}_{key}": getattr(report, key) for key in task.figures}
        path = self.run / "metrics.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            # A run that an older version began keeps its columns.
            lines = [] if new else path.read_text(encoding="utf-8").splitlines()
            columns = next(csv.reader(lines), list(row))
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _drop_rows_after(self, step: int) -> None:
        """A run that goes on from an older step writes these rows again."""
        path = self.run / "metrics.csv"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = list(csv.reader(lines))
        # A killed writer may leave a part of a line.
        kept = [
            line
            for line, row in zip(lines[1:], rows[1:], strict=True)
            if len(row) == len(rows[0]) and int(row[0]) <= step
        ]
        if kept:
            write_atomically(path, "".join(f"{line}\n" for line in [lines[0], *kept]).encode())
        else:
            path.unlink(missing_ok=True)

    def _finished_card(self, trainer: lightning.Trainer, task: TrainingTask) -> ModelCard:
        scores = [
            {
                "data": name,
                "split": "validation cut",
                "protocol": report.protocol,
                "images": report.images,
            }
            | {key: getattr(report, key) for key in task.figures}
            for name, report in task.reports.items()
        ]
        training = self.card.training | {
            "best_step": trainer.global_step,
            "minutes": round(self._elapsed(), 1),
        }
        update = {"scores": scores, "training": training, **task.card_changes}
        return self.card.model_copy(update=update)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def draw_curves(run: Path, figure_name: str) -> None:
    """Draw curves.png from metrics.csv: a validation figure and training loss against minutes."""
    from matplotlib.figure import Figure

    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    minutes = [float(row["minutes"]) for row in rows]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for column in rows[0]:
        name = column.removesuffix(f"_{figure_name}")
        # A set without targets has no Pd, and no IoU worth a curve.
        if name != column and any(row[f"{name}_pd"] for row in rows):
            values = [float(row[column] or "nan") for row in rows]
            left.plot(minutes, values, marker=".", label=name)
    left.set(xlabel="minutes of training", ylabel=f"validation {LABELS[figure_name]}", ylim=(0, 1))
    if left.lines:
        left.legend()
    right.plot(minutes, [float(row["train_loss"]) for row in rows], marker=".")
    right.set(xlabel="minutes of training", ylabel="training loss")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(run / "curves.png", dpi=110)
