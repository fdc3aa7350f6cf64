"""pinglow detect: use and score box detectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pinglow.cli.evaluate import TARGET_SCORES, score_table, told_broken
from pinglow.cli.output_file import check_output_file, write_json
from pinglow.cli.predict import Device, End, Every, Out, ResumeJob, Sources, Start, Tile, Track
from pinglow.errors import OptionError

if TYPE_CHECKING:
    from pinglow.metrics.boxes import BoxReport

app = typer.Typer(no_args_is_help=True)


@app.callback()
def detect() -> None:
    """Box detectors (YOLOv8, RetinaNet): predict, evaluate.

    They need ultralytics or torchvision: the extra detect. ultralytics is AGPL-3.0.
    """


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def train() -> None:
    """This is pinglow train now."""
    raise OptionError(
        "pinglow detect train is pinglow train now: pinglow train detect --data DIR "
        "--set network.type=retinanet-small --set network.gaussian=true"
    )


@app.command()
def predict(
    sources: Sources,
    model: Annotated[
        str, typer.Option(help="The run folder of pinglow train, or its weights file.")
    ],
    out: Out = Path("pinglow-out"),
    threshold: Annotated[
        float | None,
        typer.Option(
            help="A box is a target if its score is above this, in [0, 1).",
            show_default="the model's own",
        ),
    ] = None,
    save: Annotated[
        str, typer.Option(help="What to write: any of overlay, csv, jsonl, with commas.")
    ] = "csv,jsonl,overlay",
    device: Device = "auto",
    tile: Tile = 1024,
    track: Track = False,
    every: Every = 1,
    start: Start = 0.0,
    end: End = None,
    resume: ResumeJob = False,
) -> None:
    """Find targets with a detector; the output is that of pinglow predict.

    A frame that cannot be used is listed at the end, the others go on, and the exit
    code is 2.

    Example: pinglow detect predict flight/ --model runs/detector/weights.safetensors
    """
    from pinglow.cli.predict import choose_sinks, run_job
    from pinglow.inference.detector import DetectorPredictor
    from pinglow.inference.pipeline import Selection
    from pinglow.output.sinks import PIXEL_SINKS, SINKS

    run_job(
        sources,
        lambda: DetectorPredictor.load(
            model, device=device, threshold=threshold, tile=tile or None
        ),
        out,
        choose_sinks(save, [name for name in SINKS if name not in PIXEL_SINKS]),
        Selection(every, start, end),
        track=track,
        settings={"model": model, "threshold": threshold, "tile": tile},
        resume=resume,
    )


@app.command()
def evaluate(
    data: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Holds images/, boxes or masks/, SPLIT.txt; or a pack."),
    ],
    split: Annotated[str, typer.Option(help="Name of a list in the folder, or a .txt file.")],
    model: Annotated[
        str,
        typer.Option(
            help="A detector's weights, or a segmentation model, whose targets have boxes too."
        ),
    ],
    boxes: Annotated[
        str | None,
        typer.Option(
            help="masks, voc, yolo or coco.", show_default="the first that the folder has"
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Of the scores, for Pd and Fa.", show_default="the model's own"),
    ] = None,
    device: Device = "auto",
    json: Annotated[
        Path | None,
        typer.Option(help="Also write the scores to this file, as fractions.", metavar="FILE"),
    ] = None,
) -> None:
    """Score boxes: average precision by COCO's rules, and Pd and Fa by their centers.

    A target is found if a box's center is less than 3 px from its box's center. Fa counts the area
    of false boxes, so it cannot be compared with that of pixels. A frame or label that cannot be
    read is listed at the end, the others are scored, and the exit code is 2.

    Example: pinglow detect evaluate --data sirst --split test --model detector.safetensors
    """
    from rich.console import Console

    from pinglow.cli.progress import frame_progress
    from pinglow.data.boxes import BoxFolder
    from pinglow.evaluation.boxes import evaluate_boxes, load_finder

    check_output_file("--json", json)
    frames = BoxFolder(data, split, boxes)
    finder = load_finder(model, threshold, device)
    broken: list[str] = []
    with frame_progress() as bar:
        report = evaluate_boxes(frames, finder, bar.track(range(len(frames))), broken.append)
    with told_broken(broken, len(frames)):
        write_json(json, report.to_dict())  # first: whoever reads the table may stop
        _print_report(Console(), report, f"boxes from {frames.source}")


def _print_report(console: Any, report: BoxReport, source: str) -> None:
    console.print(
        f"images: {report.images}, targets: {report.targets}, {source}, "
        f"threshold: {report.threshold:g}",
        highlight=False,
    )
    console.print(score_table(report, ("ap50", "ap", "pd", "fa", *TARGET_SCORES)))
