"""pinglow evaluate: score a model, or saved probability maps, against known targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pinglow.cli.output_file import check_output_file, write_json
from pinglow.cli.predict import Device, Precision
from pinglow.errors import DataError, FrameError, OptionError

if TYPE_CHECKING:
    from rich.table import Table

    from pinglow.data.folder import FrameFolder
    from pinglow.evaluation.pixels import Pair
    from pinglow.metrics import Report
    from pinglow.metrics.boxes import BoxReport


def evaluate(
    data: Annotated[
        Path, typer.Option(help="Folder that holds images/, masks/ and lists, or a pack of one.")
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
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="strict, greedy, mshnet256 or basicirstd; may be given several times.",
            show_default="strict",
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            help="A pixel is predicted if its probability is above this, in [0, 1). "
            "Published numbers use 0.5."
        ),
    ] = 0.5,
    json: Annotated[
        Path | None,
        typer.Option(help="Also write the scores to this file, as fractions.", metavar="FILE"),
    ] = None,
) -> None:
    """Score a model or saved probability maps on frames with known targets.

    Scores of different protocols cannot be compared: the tables say which one they used, and
    give a bootstrap 95 % interval over images. A frame or mask that cannot be used is listed at the
    end, the others are scored, and the exit code is 2.

    Example: pinglow evaluate --data sirst --split test --model pinglow-fast --json scores.json
    """
    from rich.console import Console

    from pinglow.data.folder import FrameFolder
    from pinglow.evaluation.pixels import evaluate_model, evaluate_saved
    from pinglow.metrics import PROTOCOLS

    names = list(dict.fromkeys(protocol or ["strict"]))
    for name in names:
        if name not in PROTOCOLS:
            raise OptionError(f"--protocol {name!r} is unknown: choose from {', '.join(PROTOCOLS)}")
    if (model is None) == (predictions is None):
        raise OptionError("give either --model or --predictions: one of the two is scored")
    if model is None and backend != "auto":
        raise OptionError(f"--backend {backend} is for a model: saved predictions need none")
    if model is None and (device, precision) != ("auto", "float32"):
        raise OptionError("--device and --precision are for a model: saved predictions need none")
    if model is None and flips:
        raise OptionError("--flips is for a model: saved predictions are what they are")
    if not 0 <= threshold < 1:
        raise OptionError(f"--threshold {threshold} is out of range: give at least 0 and below 1")
    check_output_file("--json", json)

    rules = [PROTOCOLS[name] for name in names]
    frames = FrameFolder(data, split)
    broken: list[str] = []
    pairs = _with_progress(frames, broken)
    if model is not None:
        from pinglow.inference.predictor import Predictor

        predictor = Predictor.load(
            model, backend=backend, device=device, precision=precision, flips=flips
        )
        reports = evaluate_model(pairs, predictor.probabilities, rules, threshold, broken.append)
    else:
        assert predictions is not None
        reports = evaluate_saved(pairs, predictions, rules, threshold)

    with told_broken(broken, len(frames)):
        scores = [report.to_dict() for report in reports]
        write_json(json, scores[0] if len(scores) == 1 else scores)
        console = Console()  # last: whoever reads the tables may stop
        for report in reports:
            _print_report(console, report, PROTOCOLS[report.protocol].summary)


def _with_progress(frames: FrameFolder, broken: list[str]) -> Iterator[Pair]:
    """Go through a list, with a bar on stderr if a person is looking at it.

    Why a frame cannot be used goes into ``broken``.
    """
    from pinglow.cli.progress import frame_progress

    with frame_progress() as progress:
        for index in progress.track(range(len(frames)), total=len(frames)):
            try:
                frame, mask = frames.pair(index)
            except (FrameError, DataError) as error:
                broken.append(str(error))
            else:
                yield frames.names[index], frame, mask


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
        typer.echo(f"warning: left out: {reason}", err=True)
    if len(broken) == total:
        raise DataError(f"none of the {total} frames could be scored: see above why")
    yield
    if broken:
        typer.echo(
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
