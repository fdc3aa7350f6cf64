"""What the terminal shows while a run goes on."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pinglow.console import Console
from pinglow.metrics.scores import SCORES
from pinglow.training.task import TrainingTask


class StepsBar:
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

    def start(self, step: int, steps: int) -> None:
        """Begin where the run begins."""
        self._progress.update(self._bar, total=steps, completed=step)
        self._progress.start()

    def advance(self, step: int) -> None:
        """Show a step that is done."""
        self._progress.update(self._bar, completed=step)

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


def _show(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"
