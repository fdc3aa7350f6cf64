"""A run folder: what a training run leaves behind, and keeps up to date while it goes.

recipe.toml            the recipe with all changes applied
splits/NAME.training.txt, NAME.validation.txt
metrics.csv            a row per validation
curves.png             the same, drawn
weights.safetensors    the best network so far, with its card
last.ckpt              to go on from
validation.png         frames that validate, their truth and what is found: early, and at the end
tensorboard/           or what other loggers write
"""

from __future__ import annotations

import math
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
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
from pinglow.training.curves import draw_curves, read_rows, write_rows
from pinglow.training.gain import Gain, Reached
from pinglow.training.loggers import Log, open_logs
from pinglow.training.pictures import draw_validation
from pinglow.training.progress import StepsBar
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe
from pinglow.training.splits import Cut
from pinglow.training.task import TrainingTask, ValidationFrame

CHECKPOINT: Final = "last.ckpt"
"""The file in a run folder to resume from."""

PICTURE: Final = "validation.png"
"""The file in a run folder that shows frames that validate."""

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
        for folder in ("splits", "tensorboard", "wandb", "mlruns"):
            shutil.rmtree(run / folder, ignore_errors=True)
        for name in ("metrics.csv", "curves.png", PICTURE, WEIGHTS, "recipe.toml"):
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
        loggers: What gets losses and scores, by name; see `pinglow.training.loggers`.

    Attributes:
        before: What the weights reach that the run started from; None: it started from none.
    """

    def __init__(
        self,
        run: Path,
        card: ModelCard,
        main: bool = True,
        progress: bool = False,
        loggers: Sequence[str] = (),
    ) -> None:
        self.run = run
        self.card = card
        self.best = -1.0
        self.best_step = 0
        self.before: Reached | None = None
        self._reached: Reached | None = None  # at the best validation
        self.minutes = 0.0
        self.stop_signal: int | None = None
        self._main = main
        self._bar = StepsBar() if progress and main else None
        self._loggers = loggers
        self._logs: list[Log] = []
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
                self._logs = open_logs(self._loggers, self.run, recipe.model_dump(mode="json"))
            if self._bar:
                self._bar.start(step, recipe.steps)
            yield
        finally:
            if self._bar:
                self._bar.stop()
            for log in self._logs:
                log.close()
            if _in_main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def note(self, step: int, loss: float, norm: float, rate: float) -> None:
        """Collect the loss and the gradient's norm of a step, and tell them and the learning rate.

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
        if step % self._log_every == 0:
            self._add_points({"train/loss": loss, "train/learning_rate": rate}, step)
        if self._bar:
            self._bar.advance(step, loss, rate)

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
            self._keep_best(task, step)
        self._losses, self._norms = [], []
        if self._main:
            draw_curves(self.run, task.figures[0])
        self.save(task, optimizer, step)  # last: with it a run may be finished

    def keep_start(self, task: TrainingTask) -> None:
        """Keep what the weights reach that a run starts from: until something is better."""
        if self._main:
            self._append_row(task, 0, None)
        if self._bar:
            self._bar.tell(task, 0)
        self.before = Reached.by(task)
        self._keep_best(task, 0)

    def gain(self, key: str, frames: int) -> Gain | None:
        """What training has changed of a score on so many frames; None: it started from nothing."""
        if self.before is None or self._reached is None:
            return None
        return Gain.between(key, self.before, self._reached, self.best_step, frames)

    def draw(
        self, task: TrainingTask, frames: Sequence[ValidationFrame], *, last: bool = False
    ) -> None:
        """Draw validation.png after the first validation of a run, and after the last."""
        path = self.run / PICTURE
        if self._main and frames and (last or not path.exists()):
            self.say("drawing")
            draw_validation(task, frames, path)
            task.network.train()
            self.say("training")

    def _keep_best(self, task: TrainingTask, step: int) -> None:
        self.best, self.best_step = task.score, step
        if self.before is not None:  # only a run from weights compares itself with anything
            self._reached = Reached.by(task)
        if self._main:
            save_model(self.run / WEIGHTS, task.trained_network, self._finished_card(task, step))

    def _add_points(self, points: Mapping[str, float], step: int) -> None:
        for log in self._logs:
            log.add(points, step)

    def save(self, task: TrainingTask, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Write the checkpoint."""
        if not self._main:
            return
        keeper = {
            "best": self.best,
            "best_step": self.best_step,
            "before": self.before,
            "reached": self._reached,
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
        # A run of an earlier version has none of these.
        self.best_step = state.get("best_step", 0)
        kept = (state.get("before"), state.get("reached"))
        self.before, self._reached = (None if each is None else Reached(*each) for each in kept)
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

    def _append_row(self, task: TrainingTask, step: int, rate: float | None) -> None:
        """Add a validation to metrics.csv; before the first step there is no rate and no loss."""
        row: dict[str, Any] = {
            "step": step,
            "minutes": round(self._elapsed(), 2),
            "learning_rate": rate,
            "train_loss": _mean(self._losses),
            "gradient_norm": _mean(self._norms),
            "largest_gradient_norm": max(self._norms, default=None),
            "val_score": task.score,
        }
        points = {"val/score": task.score}
        for name, report in task.reports.items():
            for key in task.figures:
                row[f"{name}_{key}"] = value = getattr(report, key)
                points[f"val/{name}/{key}"] = math.nan if value is None else value
        self._add_points(points, step)
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


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
