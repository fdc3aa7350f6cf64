"""pinglow evaluate: score a model of any kind, or saved probability maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pinglow.cli.output_file import check_output_file, echo, write_json
from pinglow.cli.predict import Device, Precision
from pinglow.errors import DataError, FrameError, OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.table import Table

    from pinglow.data.folder import FrameFolder
    from pinglow.inference.boxes import BoxPredictor
    from pinglow.inference.predictor import Predictor
    from pinglow.metrics import Protocol, Report
    from pinglow.metrics.boxes import BoxReport

_Truth = TypeVar("_Truth")  # a mask, or boxes


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder that holds images/, masks/ or boxes, and lists; or a pack of one."
        ),
    ],
    split: Annotated[
        str, typer.Option(help="List to score: its name in the folder, or the path of a .txt file.")
    ] = "test",
    model: Annotated[
        str | None,
        typer.Option(
            help="A bundled model (see `pinglow models`), a run folder, a weights file, or an "
            "exported model."
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(help="auto (the fastest installed), torch, onnxruntime or openvino."),
    ] = "auto",
    device: Device = "auto",
    precision: Precision = "float32",
    flips: Annotated[
        bool, typer.Option("--flips", help="Score the mean over mirror images, as in predict.")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Folder of saved probability maps <name>.png at original size: value / 255, "
            "16-bit value / 65535."
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="pixels or boxes.",
            show_default="pixels; boxes for a detector, for data without masks/ and with --boxes",
        ),
    ] = None,
    boxes: Annotated[
        str | None,
        typer.Option(
            help="Where the true boxes are: masks, voc, yolo or coco.",
            show_default="the first that the folder has",
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="For pixels: strict, greedy, mshnet256 or basicirstd; may be given several times.",
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
        typer.Option(help="Also write the scores to this file, as fractions.", metavar="FILE"),
    ] = None,
) -> None:
    """Score a model or saved probability maps on frames with known targets.

    Pixels are scored by protocols, whose scores cannot be compared with each other; boxes by
    average precision (COCO's rules), and by Pd and Fa: a target is found if a box's center is
    less than 3 px from its box's center, and Fa counts the area of false boxes. The tables say
    how they were made, and give a bootstrap 95 % interval over images. A frame or label that
    cannot be used is listed at the end, the others are scored, and the exit code is 2.

    Example: pinglow evaluate --data sirst --split test --model pinglow-fast --json scores.json

    Example: pinglow evaluate --data my-frames --model runs/detector --boxes voc
    """
    rules = _choose_protocols(protocol)
    if (model is None) == (predictions is None):
        raise OptionError("give either --model or --predictions: one of the two is scored")
    if model is None:
        _check_saved(backend, device, precision, flips)
    if score not in (None, "pixels", "boxes"):
        raise OptionError(f"--score {score!r} is unknown: choose pixels or boxes")
    if threshold is not None and not 0 <= threshold < 1:
        raise OptionError(f"--threshold {threshold} is out of range: give at least 0 and below 1")
    check_output_file("--json", json)
    scored: Any = predictions
    if model is not None:
        from pinglow.inference.predictor import Predictor

        scored = Predictor.load(
            model,
            backend=backend,
            device=device,
            precision=precision,
            threshold=threshold,
            flips=flips,
        )
    if _choose_score(score, scored, data, boxes, protocol) == "boxes":
        _score_boxes(data, split, boxes, scored, json)
    else:
        _score_pixels(data, split, scored, rules, threshold, json)


def _choose_protocols(names: list[str] | None) -> list[Protocol]:
    """The protocols of ``--protocol``, each once.

    Raises:
        OptionError: One is unknown.
    """
    from pinglow.metrics import PROTOCOLS

    for name in names or []:
        if name not in PROTOCOLS:
            raise OptionError(f"--protocol {name!r} is unknown: choose from {', '.join(PROTOCOLS)}")
    return [PROTOCOLS[name] for name in dict.fromkeys(names or ["strict"])]


def _check_saved(backend: str, device: str, precision: str, flips: bool) -> None:
    """Refuse what is for a model, where saved maps are scored.

    Raises:
        OptionError: An option does not fit.
    """
    if backend != "auto":
        raise OptionError(f"--backend {backend} is for a model: saved predictions need none")
    if (device, precision) != ("auto", "float32"):
        raise OptionError("--device and --precision are for a model: saved predictions need none")
    if flips:
        raise OptionError("--flips is for a model: saved predictions are what they are")


def _choose_score(
    wanted: str | None,
    scored: Predictor | BoxPredictor | Path,
    data: Path,
    boxes: str | None,
    protocol: list[str] | None,
) -> str:
    """What is scored, "pixels" or "boxes": ``--score``, or by the model, the data and options.

    Raises:
        OptionError: Options do not fit what is scored.
    """
    from pinglow.data.pack.cache import open_data

    if isinstance(scored, Path):
        if wanted == "boxes" or boxes is not None:
            raise OptionError("--score boxes and --boxes are for a model: saved maps are pixels")
        return "pixels"
    if wanted is None:
        without_masks = open_data(data).is_dir() and not (open_data(data) / "masks").is_dir()
        by_boxes = boxes is not None or without_masks
        wanted = "boxes" if by_boxes else scored.kind
    if wanted == "pixels" and scored.kind == "boxes":
        raise OptionError("--score pixels is not for a detector: it finds boxes, leave it out")
    if wanted == "pixels" and boxes is not None:
        raise OptionError("--boxes is for --score boxes: leave one of the two out")
    if wanted == "boxes" and protocol:
        raise OptionError("--protocol is for pixels, and boxes are scored: leave it out")
    return wanted


def _score_pixels(
    data: Path,
    split: str,
    scored: Predictor | Path,
    rules: list[Protocol],
    threshold: float | None,
    json: Path | None,
) -> None:
    """Score a model, or a folder of saved maps, by pixels, and show it."""
    from pinglow.console import Console
    from pinglow.data.folder import FrameFolder
    from pinglow.evaluation.pixels import evaluate_model, evaluate_saved
    from pinglow.metrics import PROTOCOLS

    frames = FrameFolder(data, split)
    broken: list[str] = []
    pairs = _with_progress(frames, frames.pair, broken)
    threshold = 0.5 if threshold is None else threshold
    if isinstance(scored, Path):
        reports = evaluate_saved(pairs, scored, rules, threshold)
    else:
        reports = evaluate_model(pairs, scored.probabilities, rules, threshold, broken.append)
    with told_broken(broken, len(frames)):
        scores = [report.to_dict() for report in reports]
        write_json(json, scores[0] if len(scores) == 1 else scores)
        console = Console()  # last: whoever reads the tables may stop
        for report in reports:
            _print_report(console, report, PROTOCOLS[report.protocol].summary)


def _score_boxes(
    data: Path,
    split: str,
    source: str | None,
    predictor: Predictor | BoxPredictor,
    json: Path | None,
) -> None:
    """Score a model by boxes, and show it."""
    from functools import partial

    from pinglow.console import Console
    from pinglow.data.boxes import BoxFolder
    from pinglow.evaluation.boxes import evaluate_boxes, target_boxes
    from pinglow.inference.predictor import Predictor

    frames = BoxFolder(data, split, source)
    broken: list[str] = []
    pairs = _with_progress(frames, frames.boxed, broken)
    find = (
        partial(target_boxes, predictor)
        if isinstance(predictor, Predictor)
        else predictor.candidates
    )
    report = evaluate_boxes(pairs, find, predictor.threshold, broken.append)
    with told_broken(broken, len(frames)):
        write_json(json, report.to_dict())
        console = Console()
        console.print(
            f"images: {report.images}, targets: {report.targets}, boxes from {frames.source}, "
            f"threshold: {report.threshold:g}",
            highlight=False,
        )
        console.print(score_table(report, ("ap50", "ap", "pd", "fa", *TARGET_SCORES)))


def _with_progress(
    frames: FrameFolder,
    read: Callable[[int], tuple[NDArray[Any], _Truth]],
    broken: list[str],
) -> Iterator[tuple[str, NDArray[Any], _Truth]]:
    """Go through a list, with a bar on stderr if a person is looking at it.

    Why a frame cannot be used goes into ``broken``.
    """
    from pinglow.cli.progress import frame_progress

    with frame_progress() as progress:
        for index in progress.track(range(len(frames)), total=len(frames)):
            try:
                frame, truth = read(index)
            except (FrameError, DataError) as error:
                broken.append(str(error))
            else:
                yield frames.names[index], frame, truth


@contextmanager
def told_broken(broken: list[str], total: int) -> Iterator[None]:
    """Around what shows scores: say what they lack.

    Args:
        broken: Why each frame that could not be used was left out.
        total: Frames in the list.

    Raises:
        DataError: All frames were left out, so that there are no scores.
        typer.Exit: With code 2, after the scores, if some were.
    """
    for reason in broken:
        echo(f"warning: left out: {reason}", err=True)
    if len(broken) == total:
        raise DataError(f"none of the {total} frames could be scored: see above why")
    yield
    if broken:
        echo(
            f"warning: these are scores of {total - len(broken)} of the list's {total} frames",
            err=True,
        )
        raise typer.Exit(2)


TARGET_SCORES = ("precision", "recall", "f1", "false_alarms_per_image")
"""Those that count whole targets."""


def _print_report(console: Any, report: Report, summary: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pinglow.metrics.scores import SCORES

    table = score_table(report, ("iou", "niou", "pd", "fa", *TARGET_SCORES))
    sizes = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    sizes.add_column("true area, px")
    for column in ("targets", "detected", "Pd, %", "IoU where detected, %"):
        sizes.add_column(column, justify="right")
    for row in report.per_size:
        sizes.add_row(
            row.size,
            str(row.targets),
            str(row.detected),
            SCORES["pd"].show(row.pd),
            SCORES["iou"].show(row.iou),
        )
    roc = report.roc
    area = "-" if roc.area is None else f"{roc.area:.4f}"
    area = f"area under Pd against Fa, up to Fa {roc.limit * 1e6:g}e-6: {area}"
    console.print()
    console.print(Text.assemble((f"protocol {report.protocol}", "bold"), f": {summary}"))
    console.print(
        f"images: {report.images}, targets: {report.targets}, threshold: {report.threshold:g}"
        + ("" if report.threshold == 0.5 else " (not the protocol's 0.5)"),
        highlight=False,
    )
    for block in ("", table, "", sizes, "", Text(area)):
        console.print(block)


def score_table(report: Report | BoxReport, keys: Sequence[str]) -> Table:
    """A row for each of these scores, with its interval."""
    from rich import box
    from rich.table import Table

    from pinglow.metrics.scores import SCORES

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    table.add_column("score", justify="right", style="bold")
    table.add_column("")
    table.add_column("95 % interval", justify="right")
    for key in keys:
        score, interval = SCORES[key], report.ci95.get(key)
        ends = "-" if interval is None else f"[{', '.join(map(score.show, interval))}]"
        table.add_row(score.name, score.show(getattr(report, key)), score.unit, ends)
    return table
