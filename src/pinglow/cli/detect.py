"""pinglow detect: train, use and score box detectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pinglow.cli.evaluate import TARGET_LINES, score_table, told_broken
from pinglow.cli.output_file import check_output_file, write_json
from pinglow.cli.predict import Device, End, Every, Out, ResumeJob, Sources, Start, Tile, Track
from pinglow.cli.train import Changes, Data, Minutes, Resume, Run
from pinglow.extras import need_torch

if TYPE_CHECKING:
    from pinglow.metrics.boxes import BoxReport

app = typer.Typer(no_args_is_help=True)


@app.callback()
def detect() -> None:
    """Box detectors (YOLOv8, RetinaNet): train, predict, evaluate.

    They need ultralytics or torchvision: pip install '.\\[detect]'. ultralytics is AGPL-3.0.
    """
    import os

    # ultralytics looks for the network when it is imported, and speaks of its settings.
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe file, or the bundled recipe detect.", show_default="detect"),
    ] = None,
    data: Data = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="yolov8n, yolov8n-p2, yolov8s-p2, retinanet-small or retinanet-resnet50.",
            show_default="the recipe's, yolov8n-p2",
        ),
    ] = None,
    gaussian: Annotated[
        bool,
        typer.Option("--gaussian", help="Put Gaussian convolutions into the first layers."),
    ] = False,
    boxes: Annotated[
        str | None,
        typer.Option(
            help="Where --data has its boxes: masks, voc, yolo or coco.",
            show_default="the first that a folder has",
        ),
    ] = None,
    changes: Changes = None,
    run: Run = None,
    resume: Resume = None,
    device: Device = "auto",
    minutes: Minutes = None,
) -> None:
    """Train a detector; the run folder gets weights, curves and lists.

    Boxes come from masks/, else from boxes/*.xml (VOC), labels/*.txt (YOLO) or
    annotations (COCO); all their classes are targets. Ctrl-C saves and stops
    (exit code 130), SIGTERM too (143).

    Example: pinglow detect train --data my-frames:train --detector retinanet-small
    """
    need_torch("pinglow detect", "detect")
    from pinglow.cli.train import fit_run
    from pinglow.training.detection import train_detector
    from pinglow.training.detection_recipe import DetectorRecipe
    from pinglow.training.fit import Machine

    changes = list(changes or [])
    if detector is not None:
        changes.append(f'detector.type="{detector}"')
    if gaussian:
        changes.append("detector.gaussian=true")
    fit_run(
        DetectorRecipe,
        train_detector,
        recipe or (None if resume else "detect"),
        data,
        changes,
        run,
        resume,
        Machine(device, minutes=minutes),
        boxes,
    )


@app.command()
def predict(
    sources: Sources,
    model: Annotated[
        str, typer.Option(help="The run folder of pinglow detect train, or its weights file.")
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
    need_torch("pinglow detect", "detect")
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

    need_torch("pinglow detect", "detect")
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


_LINES = (
    ("ap50", "mAP50", 100, "%", 2),
    ("ap", "mAP50:95", 100, "%", 2),
    ("pd", "Pd", 100, "%", 2),
    ("fa", "Fa (boxes)", 1e6, "1e-6", 2),
    *TARGET_LINES,
)


def _print_report(console: Any, report: BoxReport, source: str) -> None:
    console.print(
        f"images: {report.images}, targets: {report.targets}, {source}, "
        f"threshold: {report.threshold:g}",
        highlight=False,
    )
    console.print(score_table(report, _LINES))
