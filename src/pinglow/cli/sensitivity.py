"""The options that say how sure a detection must be, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pinglow.cli.output_file import echo
from pinglow.errors import OptionError

if TYPE_CHECKING:
    from pinglow.inference.boxes import BoxPredictor
    from pinglow.inference.predictor import Predictor

MinScore = Annotated[
    float | None,
    typer.Option(
        help="A detection is a target if its score is above this, in [0, 1): the higher, the "
        "fewer.",
        metavar="S",
        show_default="the model's own",
    ),
]
AlarmsPerFrame = Annotated[
    float | None,
    typer.Option(
        help="Instead of --min-score: the lowest one that had at most so many false alarms a frame "
        "where the model was calibrated (see `pinglow models NAME`).",
        metavar="A",
    ),
]


def check_sensitivity(min_score: float | None, alarms_per_frame: float | None) -> None:
    """Refuse options that cannot be meant.

    Raises:
        OptionError: Both are given, or the number of alarms is below 0.
    """
    if min_score is not None and alarms_per_frame is not None:
        raise OptionError("--alarms-per-frame chooses --min-score: give one of the two")
    if alarms_per_frame is not None and not alarms_per_frame >= 0:
        raise OptionError(f"--alarms-per-frame is {alarms_per_frame}: give 0 or more, such as 0.05")


def set_sensitivity(predictor: Predictor | BoxPredictor, alarms_per_frame: float | None) -> None:
    """Choose a model's smallest score by its card, where that is asked, and say what it is.

    Raises:
        OptionError: The card cannot say, or no score has so few alarms.
    """
    calibration = predictor.card.calibration
    if alarms_per_frame is not None:
        predictor.min_score = predictor.card.score_for(alarms_per_frame)
        assert calibration is not None
        level = calibration.level_of(predictor.min_score)
        echo(
            f"note: --min-score {level.min_score:g}: where {predictor.card.name} was calibrated, "
            f"{level.alarms_per_frame:.2g} false alarms a frame and {100 * level.pd:.1f} % of the "
            "targets",
            err=True,
        )
    elif calibration is not None and predictor.min_score >= calibration.highest:
        echo(
            f"warning: nothing may be found: where {predictor.card.name} was calibrated, no "
            f"detection scored above {calibration.highest:.6g}, and the smallest score is "
            f"{predictor.min_score:g}",
            err=True,
        )
