"""The option that watches how often a job has alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pinglow.cli.output_file import echo
from pinglow.errors import OptionError

if TYPE_CHECKING:
    from pinglow.inference.boxes import BoxPredictor
    from pinglow.inference.monitor import AlarmMonitor
    from pinglow.inference.predictor import Predictor
    from pinglow.io.source import Source

Monitor = Annotated[
    bool,
    typer.Option(
        "--monitor",
        help="Warn, once, if alarms come more often than the operating point of the model says; "
        "see `pinglow calibrate`. Where that is per hour, targets are tracked.",
    ),
]


def open_monitor(
    predictor: Predictor | BoxPredictor, sources: list[Source], resume: bool
) -> AlarmMonitor:
    """What counts a job's alarms and warns on stderr.

    Raises:
        OptionError: The model has no operating point, or it says nothing about such a job.
        MissingExtraError: What tracks targets is not installed.
    """
    from pinglow.inference.monitor import make_monitor
    from pinglow.inference.tracking import Tracker

    if resume:
        raise OptionError("--monitor counts from a job's start: start anew, without --resume")
    found = make_monitor(
        predictor.card,
        predictor.min_score,
        sources,
        lambda text: echo(f"warning: {text}", err=True),
    )
    if found.point.unit == "hour":
        Tracker(1.0)  # says now if its library is not installed
    return found
