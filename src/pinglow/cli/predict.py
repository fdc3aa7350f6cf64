"""pinglow predict: find the targets in files, folders and patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pinglow.errors import FrameError, OptionError


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Frames: files, folders or quoted patterns."),
    ],
    model: Annotated[
        str, typer.Option(help="A bundled model (see `pinglow models`) or a weights file.")
    ] = "pinglow-fast",
    out: Annotated[Path, typer.Option(help="Folder for the results; made if need be.")] = Path(
        "pinglow-out"
    ),
    threshold: Annotated[
        float | None,
        typer.Option(
            help="A pixel belongs to a target if its probability is above this, in [0, 1).",
            show_default="the model's own",
        ),
    ] = None,
    save: Annotated[
        str,
        typer.Option(
            help="What to write: any of mask, probability, overlay, csv, jsonl, with commas."
        ),
    ] = "csv,jsonl,overlay",
) -> None:
    """Find targets in infrared frames and write what was found.

    Reads PNG, TIFF (every page), NPY, PGM, BMP and JPEG at 8, 16 or 32 bits.
    A frame that cannot be read is listed at the end; the others go on.

    Example: pinglow predict flight/ "night/*.tif" --out found --save csv,overlay
    """
    from pinglow.cli.progress import frame_progress
    from pinglow.data.io import find_frames
    from pinglow.inference.job import predict_frames
    from pinglow.inference.predictor import Predictor
    from pinglow.inference.sinks import SINKS, open_sinks

    names = list(dict.fromkeys(word.strip() for word in save.split(",")))
    for name in names:
        if name not in SINKS:
            raise OptionError(f"--save {name!r} is unknown: choose from {', '.join(SINKS)}")
    if out.exists() and not out.is_dir():
        raise OptionError(f"--out {out} is a file: name a folder")

    files = find_frames(sources)
    pictures = [out / folder for folder in ("masks", "probability", "overlays")]
    if any(folder.is_dir() and any(folder.iterdir()) for folder in pictures):
        typer.echo(f"note: {out} holds pictures of an earlier job; this one adds to them", err=True)
    predictor = Predictor.load(model, threshold=threshold)
    try:
        with open_sinks(names, out) as sinks, frame_progress() as bar:
            task = bar.add_task("", total=len(files))
            summary = predict_frames(
                predictor,
                files,
                sinks,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
    except KeyboardInterrupt:
        typer.echo(f"The results so far are in {out}.", err=True)
        raise

    for _, reason in summary.broken:
        typer.echo(f"warning: left out: {reason}", err=True)
    if not summary.frames:
        raise FrameError(f"none of the {len(summary.broken)} frames could be read: see above why")
    left_out = f"{len(summary.broken)} left out, " if summary.broken else ""
    typer.echo(
        f"{_count(summary.frames, 'frame')}, {left_out}{_count(summary.targets, 'target')}, "
        f"{summary.seconds / summary.frames:.3f} s a frame. Results are in {out}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
