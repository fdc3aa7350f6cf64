"""What the terminal shows while a run goes on."""

from __future__ import annotations

import time
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pinglow.console import Console
from pinglow.metrics.scores import SCORES
from pinglow.training.task import TrainingTask

_LINE_EVERY: Final = 30.0  # seconds, where there is no terminal for a bar


class StepsBar:
    """Steps, loss, learning rate and the time left, and a line for each validation.

    A terminal has a bar; a log file gets a line from time to time.
    """

    def __init__(self) -> None:
        self._begun = self._told = 0.0
        self._first = self._steps = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("left{task.fields[state]}"),
            console=Console(stderr=True),
            transient=True,
            speed_estimate_period=300,  # validations included
        )
        self._bar = self._progress.add_task("training", state="")

    def start(self, step: int, steps: int) -> None:
        """Begin where the run begins."""
        self._begun = self._told = time.monotonic()
        self._first, self._steps = step, steps
        self._progress.update(self._bar, total=steps, completed=step)
        self._progress.start()

    def advance(self, step: int, loss: float, rate: float) -> None:
        """Show a step that is done."""
        state = f"loss {loss:.3g}, learning rate {rate:.1e}"
        self._progress.update(self._bar, completed=step, state=f", {state}")
        now = time.monotonic()
        if self._progress.console.is_terminal or now - self._told < _LINE_EVERY:
            return
        self._told = now
        left = (now - self._begun) / (step - self._first) * (self._steps - step)
        line = f"step {step} of {self._steps}: {state}, {_show_time(left)} left"
        self._progress.console.print(line, highlight=False)

    def say(self, what: str) -> None:
        """Show what the run is at, as why the steps stand still."""
        self._progress.update(self._bar, description=what)

    def tell(self, task: TrainingTask, step: int) -> None:
        """Print the scores of a validation."""
        figure = task.figures[0]
        scores = ", ".join(
            f"{name} {SCORES[figure].name} {_show(getattr(report, figure))} Pd {_show(report.pd)} "
            f"Fa {1e6 * (report.fa or 0):.0f}e-6"
            for name, report in task.reports.items()
        )
        self._progress.console.print(f"step {step}: {scores}", highlight=False)

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def _show_time(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def _show(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"
