"""pinglow evaluate: score a model of any kind, or saved probability maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pinglow._version import __version__
from pinglow.cli.output_file import (
    check_output_file,
    check_output_folder,
    echo,
    is_standard_output,
    write_json,
)
from pinglow.cli.predict import Device, Precision
from pinglow.cli.scoring import (
    Boxes,
    BoxTask,
    Flips,
    Large,
    PixelTask,
    Resize,
    Scale,
    Score,
    Split,
    choose_protocols,
    choose_reading,
    choose_score,
    told_broken,
)
from pinglow.errors import OptionError, PinglowError

if TYPE_CHECKING:
    from pinglow.cli.score_tables import Scored
    from pinglow.data.folder import FrameFolder
    from pinglow.evaluation.panels import PanelCollector
    from pinglow.inference.boxes import BoxPredictor
    from pinglow.inference.predictor import Predictor
    from pinglow.metrics import BoxReport, Protocol, Report

_PANELS: Final = 20

_Job = tuple[str, dict[str, Any], Callable[[], "Sequence[Report | BoxReport]"]]
"""What a table calls it, what a report says of it, and what scores it."""


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder that holds images/, masks/ or boxes, and lists; or a pack of one."
        ),
    ],
    split: Split = "test",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A bundled model (see `pinglow models`), a run folder, a weights file, or an "
            "exported model; several times to compare several."
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(help="auto (the fastest installed), torch, onnxruntime or openvino."),
    ] = "auto",
    device: Device = "auto",
    precision: Precision = "float32",
    flips: Flips = False,
    large: Large = False,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of saved probability maps, <name>.png, <name>_mask.npy or the like, "
            "images or .mat; or their pattern, 'found/*_Pred.png'. May be given several times."
        ),
    ] = None,
    scale: Scale = None,
    resize: Resize = None,
    score: Score = None,
    boxes: Boxes = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="strict, greedy, for pixels also mshnet256 or basicirstd; may be given several "
            "times.",
            show_default="strict",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="A pixel is predicted if its probability is above this, in [0, 1), a box if its "
            "score is. Published numbers of pixels use 0.5.",
            show_default="0.5; for boxes the model's own",
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            help="Also write the scores to this file, as fractions; - is stdout.", metavar="FILE"
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            help="panels: pictures of the worst frames, image | truth | model, with hits, misses "
            "and false alarms in color. Of several models those first in which they differ most.",
            metavar="panels",
            show_default="nothing",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what --save writes, made if need be.", show_default="pinglow-out"
        ),
    ] = None,
    panels: Annotated[
        int | None,
        typer.Option(
            help="With --save panels: how many at most.", metavar="N", min=1, show_default="20"
        ),
    ] = None,
) -> None:
    """Score a model or saved probability maps on frames with known targets.

    Pixels are scored by protocols, whose scores cannot be compared with each other; boxes by
    average precision (COCO's rules), and by Pd and Fa: a target is found if a box's center is
    less than 3 px from its box's center, and Fa counts the area of false boxes. The tables say
    how they were made, and give a bootstrap 95 % interval over images; of several models, a row
    for each. A frame or label that cannot be used is listed at the end, the others are scored,
    and the exit code is 2.

    Example: pinglow evaluate --data sirst --split test --model pinglow-fast --json scores.json

    Example: pinglow evaluate --data sirst --model pinglow-fast --save panels --out looked-at

    Example: pinglow evaluate --data my-frames --model runs/detector --boxes voc

    Example: pinglow evaluate --data sirst --model pinglow-fast --predictions 'theirs/*_Pred.png'
    """
    rules = choose_protocols(protocol)
    if not model:
        _check_saved(predictions, backend, device, precision, {"flips": flips, "large": large})
    elif not predictions and (scale, resize) != (None, None):
        raise OptionError("--scale and --resize are for saved maps: give them with --predictions")
    if score not in (None, "pixels", "boxes"):
        raise OptionError(f"--score {score!r} is unknown: choose pixels or boxes")
    if threshold is not None and not 0 <= threshold < 1:
        raise OptionError(f"--threshold {threshold} is out of range: give at least 0 and below 1")
    reading = choose_reading(scale, resize)
    check_output_file("--json", json)
    predictors: dict[str, Predictor | BoxPredictor] = {}
    for name in model or []:
        from pinglow.inference.predictor import Predictor

        predictors[name] = Predictor.load(
            name,
            backend=backend,
            device=device,
            precision=precision,
            flips=flips,
            large=large,
        )
    kinds = {each.kind for each in predictors.values()} | ({"saved"} if predictions else set())
    task: PixelTask | BoxTask
    if choose_score(score, kinds, data, boxes) == "boxes":
        task = BoxTask(data, split, boxes, (rules, threshold))
    else:
        task = PixelTask(data, split, rules, 0.5 if threshold is None else threshold)
    if save is None and (out, panels) != (None, None):
        raise OptionError("--out and --panels are for pictures: give them with --save panels")
    out = out or Path("pinglow-out")
    collector = _open_panels(save, out, task, rules)
    from pinglow.cli.score_tables import print_scores
    from pinglow.evaluation.origin import hash_model

    common = {"data": str(data.absolute()), "list": split, "pinglow": __version__}
    jobs: list[_Job] = []
    for name, predictor in predictors.items():
        origin: dict[str, Any] = {"model": name, "sha256": hash_model(name), "flips": flips}
        origin |= {"large": True} if large else {}
        watching = _watching(collector, name)
        jobs.append((name, origin | common, partial(task.score, predictor, **watching)))
    for place in dict.fromkeys(predictions or []):
        assert isinstance(task, PixelTask)
        origin = {"predictions": str(place.absolute()), **reading}
        maps = task.open_saved(place, reading)
        watching = _watching(collector, str(place))
        jobs.append((str(place), origin | common, partial(task.score, maps, **watching)))
    scored = list(_run(jobs, task.leave_out))
    images = min((report.images for each in scored for report in each.reports), default=0)
    with told_broken(task.broken, images, len(task.frames)):
        try:
            print_scores(scored, f"data {data}, list {split}{task.truth}", is_standard_output(json))
        finally:  # whoever reads the tables may stop
            rows = [row for each in scored for row in each.to_list()]
            write_json(json, rows[0] if len(rows) == 1 else rows)
        _write_panels(collector, out / "panels", task.frames, panels or _PANELS)


def _open_panels(
    save: str | None, out: Path, task: PixelTask | BoxTask, rules: Sequence[Protocol]
) -> PanelCollector | None:
    """What collects panels, if ``--save`` asks for them.

    Raises:
        OptionError: It asks for something else, or there are none to be had.
    """
    from pinglow.evaluation.panels import PROTOCOL, PanelCollector

    if save is None:
        return None
    if save != "panels":
        raise OptionError(f"--save {save!r} is unknown: evaluate saves panels")
    if not isinstance(task, PixelTask):
        raise OptionError("--save panels shows pixels, and boxes are scored: leave it out")
    if PROTOCOL not in (rule.name for rule in rules):
        raise OptionError(f"--save panels shows what {PROTOCOL} counts: add --protocol {PROTOCOL}")
    check_output_folder("--out", out)
    return PanelCollector()


def _watching(collector: PanelCollector | None, title: str) -> dict[str, Any]:
    """What a `PixelTask` is scored with, so that a model's panels can be drawn."""
    return {} if collector is None else {"watch": partial(collector.watch, title)}


def _write_panels(
    collector: PanelCollector | None, folder: Path, frames: FrameFolder, most: int
) -> None:
    from pinglow.output.sinks import unwritable

    if collector is None:
        return
    try:
        count = collector.write(folder, frames, most)
    except OSError as error:
        raise unwritable(folder, error) from error
    echo(f"{count} panels, {collector.order} first, are in {folder}", err=True)


def _run(jobs: list[_Job], leave_out: Callable[[str], object]) -> Iterator[Scored]:
    """Score one after the other; of several, one that cannot be scored loses no other.

    Args:
        jobs: What to score.
        leave_out: Called with the reason why one of several has no scores.
    """
    from pinglow.cli.score_tables import Scored

    for title, origin, score in jobs:
        try:
            reports = score()
        except PinglowError as error:
            if len(jobs) == 1:
                raise
            leave_out(str(error))
        else:
            yield Scored(title, origin, reports)


def _check_saved(
    predictions: list[Path] | None,
    backend: str,
    device: str,
    precision: str,
    looks: dict[str, bool],
) -> None:
    """Refuse what is for a model, where saved maps alone are scored.

    Raises:
        OptionError: There are none, or an option does not fit.
    """
    if not predictions:
        raise OptionError("give --model or --predictions: what is to be scored")
    if backend != "auto":
        raise OptionError(f"--backend {backend} is for a model: saved predictions need none")
    if (device, precision) != ("auto", "float32"):
        raise OptionError("--device and --precision are for a model: saved predictions need none")
    for option in (name for name, wanted in looks.items() if wanted):
        raise OptionError(f"--{option} is for a model: saved predictions are what they are")
