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

import math
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import torch

from pinglow.errors import DataError, PinglowError, RecipeError
from pinglow.files import claim, read_whole, remove_parts, write_whole
from pinglow.models.card import WEIGHTS, ModelCard
from pinglow.models.weights import save_model
from pinglow.training.checkpoint import save_checkpoint
from pinglow.training.curves import EventLog, draw_curves, read_rows, write_rows
from pinglow.training.progress import StepsBar
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe
from pinglow.training.splits import Cut
from pinglow.training.task import TrainingTask

CHECKPOINT: Final = "last.ckpt"
"""The file in a run folder to resume from."""

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_LOG_EVERY: Final = 50  # steps between the losses that TensorBoard gets, at most


class TrainingInterruptedError(PinglowError):
    """Training was asked to stop by a signal, whose number is kept; everything is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def check_run(run: Path, recipe: Recipe, resume: bool) -> None:
    """See whether a run folder can be begun, or gone on with by this recipe.

    Raises:
        RecipeError: A new run would overwrite one, there is nothing to resume, or the recipe to
            resume is another.
    """
    stored, checkpoint = run / "recipe.toml", run / CHECKPOINT
    if not resume:
        if checkpoint.exists():
            raise RecipeError(
                f"{run} holds a run already; add --resume {run}, or name another folder with --run"
            )
        if run.exists() and not run.is_dir():
            raise RecipeError(f"{run} is a file; name a folder for the run")
        return
    if not (stored.is_file() and checkpoint.is_file()):
        raise RecipeError(f"{run} has no saved run to go on with; delete it and train anew")
    if load_recipe(stored) != recipe:
        raise RecipeError(f"{stored} differs from the recipe given; resume with {stored} itself")


@contextmanager
def claim_run(run: Path) -> Iterator[None]:
    """Hold a run folder, so that no other process trains into it.

    Raises:
        RecipeError: Another one does.
    """
    with claim(run / ".lock") as ours:
        if not ours:
            raise RecipeError(
                f"another process is training into {run}; wait for it, or name another folder"
            )
        remove_parts(run)
        yield


def describe_run(run: Path, recipe: Recipe, cuts: list[Cut], resume: bool) -> None:
    """Write the recipe and the lists of training and validation frames, a pair per data set.

    What a run has left that was killed before it had saved anything is removed.

    Raises:
        DataError: A resumed run's lists are not what the data gives now.
    """
    if not resume and (run / "recipe.toml").exists():
        for folder in ("splits", "tensorboard"):
            shutil.rmtree(run / folder, ignore_errors=True)
        for name in ("metrics.csv", "curves.png", WEIGHTS, "recipe.toml"):
            (run / name).unlink(missing_ok=True)
    (run / "splits").mkdir(parents=True, exist_ok=True)
    for cut in cuts:
        parts = {
            "training": [cut.frames.names[index] for index in cut.training],
            "validation": [cut.validation_frames.names[index] for index in cut.validation],
        }
        for part, listed in parts.items():
            names = "".join(f"{name}\n" for name in listed)
            path = run / "splits" / f"{cut.name}.{part}.txt"
            if resume and path.is_file() and read_whole(path).decode(errors="replace") != names:
                raise DataError(
                    f"{cut.frames.folder} has changed since the run began ({path} is another "
                    "list); bring the frames back, or start a new run"
                )
            if not (resume and path.is_file()):
                write_whole(path, names.encode())
    if not resume:
        write_whole(run / "recipe.toml", recipe.to_toml().encode())


class RunKeeper:
    """Writes rows, curves, weights and checkpoints; turns SIGINT and SIGTERM into a clean stop.

    Args:
        run: The run folder.
        card: Of the weights, but for what only the run can say.
        main: Whether this process writes; of several, one does.
        progress: Show a bar.
    """

    def __init__(
        self,
        run: Path,
        card: ModelCard,
        main: bool = True,
        progress: bool = False,
    ) -> None:
        self.run = run
        self.card = card
        self.best = -1.0
        self.minutes = 0.0
        self.stop_signal: int | None = None
        self._main = main
        self._bar = StepsBar() if progress and main else None
        self._log: EventLog | None = None
        self._log_every = _LOG_EVERY
        self._started = time.monotonic()
        self._losses: list[float] = []
        self._norms: list[float] = []

    @property
    def stop_asked(self) -> bool:
        """Whether a signal came."""
        return self.stop_signal is not None

    @contextmanager
    def watching(self, step: int, recipe: Recipe) -> Iterator[None]:
        """Start the clock and the bar at a step, and listen to signals while this lasts.

        What was written after that step is forgotten.
        """
        before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
        if _in_main_thread():  # only that one may listen
            for number in _STOP_SIGNALS:
                signal.signal(number, self._remember)
        self._started = time.monotonic()
        self._log_every = min(_LOG_EVERY, recipe.validate_every)
        try:
            if self._main:
                self._drop_rows_after(step)
                self._log = EventLog(self.run / "tensorboard")
            if self._bar:
                self._bar.start(step, recipe.steps)
            yield
        finally:
            if self._bar:
                self._bar.stop()
            if self._log:
                self._log.close()
            if _in_main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def note(self, step: int, loss: float, norm: float) -> None:
        """Collect the loss and the gradient's norm of a step.

        Raises:
            RecipeError: One of them is no number any more.
        """
        self._losses.append(loss)
        self._norms.append(norm)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise RecipeError(
                f"training has come apart at step {step} (loss {loss}, gradient norm {norm}); "
                "lower optimizer.learning_rate or optimizer.gradient_clip (0 is none), and begin "
                "a new run"
            )
        if self._log and step % self._log_every == 0:
            self._log.add("train/loss", loss, step)
        if self._bar:
            self._bar.advance(step)

    def say(self, what: str) -> None:
        """Show what the run is at."""
        if self._bar:
            self._bar.say(what)

    def keep(
        self, task: TrainingTask, optimizer: torch.optim.Optimizer, step: int, rate: float
    ) -> None:
        """Write everything that a validation changes."""
        if self._main:
            self._append_row(task, step, rate)
        if self._bar:
            self._bar.tell(task, step)
        if task.score >= self.best:  # of equal ones the later, as without any targets
            self.best = task.score
            if self._main:
                card = self._finished_card(task, step)
                save_model(self.run / WEIGHTS, task.trained_network, card)
        self._losses, self._norms = [], []
        if self._main:
            draw_curves(self.run, task.figures[0])
        self.save(task, optimizer, step)  # last: with it a run may be finished

    def save(self, task: TrainingTask, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Write the checkpoint."""
        if not self._main:
            return
        keeper = {
            "best": self.best,
            "minutes": self._elapsed(),
            "losses": self._losses,
            "norms": self._norms,
            "command": self.card.command,
            "started_from": self.card.training.get("started_from"),
        }
        content = {
            "global_step": step,
            "task": task.state_dict(),
            "optimizer": optimizer.state_dict(),
            "keeper": keeper,
        }
        save_checkpoint(content, self.run / CHECKPOINT)

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint holds of the keeper."""
        self.best = state["best"]
        self.minutes = state["minutes"]
        self._losses, self._norms = list(state["losses"]), list(state["norms"])
        training = dict(self.card.training)
        if state["started_from"] is not None:
            training["started_from"] = state["started_from"]
        update = {"command": state["command"], "training": training}
        self.card = self.card.model_copy(update=update)

    def stop(self, step: int, number: int | None = None) -> NoReturn:
        """End the run because of a signal.

        Raises:
            TrainingInterruptedError: Always.
        """
        raise TrainingInterruptedError(
            f"stopped at step {step}, everything is saved; "
            f"go on with: pinglow train --resume {shlex.quote(str(self.run))}",
            number or self.stop_signal or signal.SIGTERM,
        )

    def _remember(self, number: int, _: FrameType | None) -> None:
        """First signal: finish the step. A second one ends the process at once."""
        self.stop_signal = number
        for each in _STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def _elapsed(self) -> float:
        return self.minutes + (time.monotonic() - self._started) / 60

    def _append_row(self, task: TrainingTask, step: int, rate: float) -> None:
        row: dict[str, Any] = {
            "step": step,
            "minutes": round(self._elapsed(), 2),
            "learning_rate": rate,
            "train_loss": sum(self._losses) / max(1, len(self._losses)),
            "gradient_norm": sum(self._norms) / max(1, len(self._norms)),
            "largest_gradient_norm": max(self._norms, default=0.0),
            "val_score": task.score,
        }
        points = {"val/score": task.score}
        for name, report in task.reports.items():
            for key in task.figures:
                row[f"{name}_{key}"] = value = getattr(report, key)
                points[f"val/{name}/{key}"] = math.nan if value is None else value
        if self._log:
            for tag, value in points.items():
                self._log.add(tag, value, step)
        path = self.run / "metrics.csv"
        columns, rows = read_rows(path)
        # A run that an older version began keeps its columns.
        write_rows(path, columns or list(row), [*rows, row])

    def _drop_rows_after(self, step: int) -> None:
        """A run that goes on from an older step writes these rows again."""
        path = self.run / "metrics.csv"
        columns, rows = read_rows(path)
        write_rows(path, columns, [row for row in rows if int(row["step"]) <= step])

    def _finished_card(self, task: TrainingTask, step: int) -> ModelCard:
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
            "best_step": step,
            "minutes": round(self._elapsed(), 1),
        }
        update = {"scores": scores, "training": training, **task.card_changes}
        return self.card.model_copy(update=update)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
