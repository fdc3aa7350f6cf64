"""The part of pinglow calibrate that takes frames with known targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from pinglow.cli.output_file import echo
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.terminal import escape_controls

if TYPE_CHECKING:
    from pinglow.data.folder import FrameFolder
    from pinglow.evaluation.pixels import Pair
    from pinglow.inference.boxes import BoxPredictor
    from pinglow.inference.predictor import Predictor
    from pinglow.models.score import ScoreCalibration


def refuse_beside_data(**options: object) -> None:
    """Refuse options of --clear, which would do nothing beside --data; None: it is not given.

    Raises:
        OptionError: One is given.
    """
    for name, value in options.items():
        if value is not None:
            raise OptionError(
                f"--{name.replace('_', '-')} is for --clear: leave it out with --data"
            )


def calibrate_by_targets(
    predictor: Predictor | BoxPredictor,
    model: str,
    data: list[Path],
    split: list[str],
    out: Path | None,
) -> None:
    """Print what scores are worth on frames with known targets; with ``out``, make them so.

    Args:
        predictor: The model, loaded.
        model: Its name or path.
        data: Folders with frames and masks.
        split: The list in each of them, or one for all.
        out: The folder for the model with the scores that these frames give; None: the model's own
            scores are measured.

    Raises:
        OptionError: The model is a detector, there are not as many lists as folders, or the card
            has no calibration that could be measured.
        DataError: A folder or list is missing, or the frames say too little.
        typer.Exit: With code 2, after the tables, if a frame could not be used.
    """
    from pinglow.data.folder import FrameFolder, name_folders
    from pinglow.evaluation.calibration import CandidateCounter, collect_candidates
    from pinglow.models.card import find_model
    from pinglow.models.recard import save_with_card

    if predictor.kind == "boxes":
        raise OptionError(f"{model} is a detector, whose scores stay as they are: leave --data out")
    if len(split) not in (1, len(data)):
        raise OptionError(
            f"there are {len(data)} --data and {len(split)} --split: give one list for all "
            "folders, or one for each"
        )
    pixels, card = cast("Predictor", predictor), predictor.card
    if out is None and card.calibration is None:
        raise OptionError(f"the scores of {model} are not calibrated yet: give --out, to do so")
    lists = split * (len(data) // len(split))
    folders = [FrameFolder(*each) for each in zip(data, lists, strict=True)]
    counter = CandidateCounter(card.threshold)
    broken: list[str] = []
    for name, frames in zip(name_folders(each.folder for each in folders), folders, strict=True):
        label = f"{name}, {frames.split}"
        collect_candidates(_read(frames, broken), pixels, counter, label, broken.append)
    for reason in broken:
        echo(f"warning: left out: {reason}", err=True)
    if out is None:
        assert card.calibration is not None
        found = counter.measure(card.calibration)
    else:
        found = counter.fit()
    _show(found)
    if out is not None:
        # An operating point is a score of the calibration that it was found with.
        changed = card.model_copy(update={"calibration": found, "operating_point": None})
        if card.operating_point is not None:
            echo(
                "note: scores are others now, so the operating point is left out: find it again "
                "with pinglow calibrate --clear",
                err=True,
            )
        echo(f"The model with these scores: {save_with_card(find_model(model), changed, out)}")
    if broken:
        raise typer.Exit(2)


def _read(frames: FrameFolder, broken: list[str]) -> Iterator[Pair]:
    """The frames and masks of a list, with a bar on stderr if a person is looking at it."""
    from pinglow.cli.progress import frame_progress

    with frame_progress() as progress:
        for index in progress.track(range(len(frames)), total=len(frames)):
            try:
                frame, mask = frames.pair(index)
            except (FrameError, DataError) as error:
                broken.append(str(error))
            else:
                yield frames.names[index], frame, mask


def _show(found: ScoreCalibration) -> None:
    from rich.markdown import Markdown

    from pinglow.console import Console
    from pinglow.models.card_page import calibration_page

    lines = map(escape_controls, calibration_page(found).split("\n"))
    Console().print(Markdown("\n".join(lines)))
