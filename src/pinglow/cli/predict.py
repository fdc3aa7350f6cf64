"""pinglow predict: find the targets in files, folders and patterns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pinglow.errors import FrameError, OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pinglow.inference.pipeline import Selection
    from pinglow.structures import Detections, Prediction


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE", help="Images and videos: files, folders, packs or quoted patterns."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for the results; made if need be.")]
Tile = Annotated[
    int,
    typer.Option(
        help="Frames of more than four tiles' area are computed in tiles of this side, pixels; "
        "0: never."
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:N (a card by its index); auto: the first card that can be used, "
        "else the CPU."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="float32, or tf32: on a card, products of 10-bit mantissas, and TensorRT if it is "
        "installed. Less exact, for speed: see docs/deploying.md."
    ),
]
Track = Annotated[
    bool, typer.Option("--track", help="Number targets that belong together over time.")
]
Every = Annotated[
    int, typer.Option(help="Take each N-th frame of a video, file or folder.", metavar="N")
]
Start = Annotated[
    float, typer.Option(help="Skip what is before this second of a video.", metavar="S")
]
End = Annotated[float | None, typer.Option(help="Stop at this second of a video.", metavar="S")]
ResumeJob = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the interrupted job in --out, given the same sources and options. Files "
        "that it was done with are passed over; one that it had begun is begun again.",
    ),
]
"""What the commands that predict have in common."""


def predict(
    sources: Sources,
    model: Annotated[
        str,
        typer.Option(
            help="A bundled model (see `pinglow models`), a run folder, a weights file, or an "
            "exported model."
        ),
    ] = "pinglow-fast",
    out: Out = Path("pinglow-out"),
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
    backend: Annotated[
        str, typer.Option(help="auto (the fastest installed), torch, onnxruntime or openvino.")
    ] = "auto",
    device: Device = "auto",
    precision: Precision = "float32",
    tile: Tile = 1024,
    flips: Annotated[
        bool,
        typer.Option(
            "--flips",
            help="Average over mirror images: four times the work (twice, if the model was "
            "trained on upright frames); what it gains differs from model to model.",
        ),
    ] = False,
    track: Track = False,
    every: Every = 1,
    start: Start = 0.0,
    end: End = None,
    resume: ResumeJob = False,
) -> None:
    """Find targets in infrared images and videos and write what was found.

    Reads PNG, TIFF (every page), NPY, PGM, BMP and JPEG at 8, 16 or 32 bits, and
    MP4, AVI, MKV and MOV at 8 to 16 bits. The overlay of a video is a video.
    A frame that cannot be used is listed at the end, the others go on, and the exit
    code is 2.

    Example: pinglow predict flight/ "night/*.tif" --out found --save csv,overlay

    Example: pinglow predict clip.mp4 --track --save overlay,jsonl
    """
    from pinglow.inference.pipeline import Selection
    from pinglow.inference.predictor import Predictor
    from pinglow.output.sinks import SINKS

    run_job(
        sources,
        lambda: Predictor.load(
            model,
            backend=backend,
            device=device,
            precision=precision,
            threshold=threshold,
            tile=tile or None,
            flips=flips,
        ),
        out,
        choose_sinks(save, list(SINKS)),
        Selection(every, start, end),
        track=track,
        settings={"model": model, "threshold": threshold, "tile": tile, "flips": flips},
        resume=resume,
    )


def choose_sinks(save: str, known: list[str]) -> list[str]:
    """The names in ``--save``.

    Raises:
        OptionError: One is unknown.
    """
    names = list(dict.fromkeys(word.strip() for word in save.split(",")))
    for name in names:
        if name not in known:
            raise OptionError(f"--save {name!r} is unknown: choose from {', '.join(known)}")
    return names


def run_job(
    sources: list[str],
    load: Callable[[], Callable[[NDArray[Any]], Prediction | Detections]],
    out: Path,
    sinks: list[str],
    selection: Selection,
    *,
    track: bool,
    settings: dict[str, Any],
    resume: bool,
) -> None:
    """Predict files, write what was found, say what happened: what the predict commands do.

    Args:
        sources: Files, folders, patterns.
        load: Loads the predictor, once all else is known to be in order.
        out: Folder for the results.
        sinks: Keys of `SINKS`.
        selection: Which frames of videos and multi-page files.
        track: Number targets over time.
        settings: What else the results depend on, ready for JSON.
        resume: Go on with the job whose results are in ``out``.

    Raises:
        OptionError: An option does not fit.
        FrameError: No frame could be read.
    """
    from pinglow.cli.progress import frame_progress
    from pinglow.data.pack.cache import open_images
    from pinglow.inference.pipeline import predict_frames
    from pinglow.inference.tracking import make_tracker
    from pinglow.io.frames import FRAME_SUFFIXES, find_frames
    from pinglow.io.video import VIDEO_SUFFIXES
    from pinglow.output.job_log import JobLog
    from pinglow.output.sinks import OverlaySink, open_sinks, printable

    if out.exists() and not out.is_dir():
        raise OptionError(f"--out {out} is a file: name a folder")
    if track:
        make_tracker(1.0)  # says now if its library is not installed
    pictures = [out / name for name in ("masks", "probability", "overlays")]
    files = find_frames(
        [open_images(source) for source in sources], FRAME_SUFFIXES | VIDEO_SUFFIXES, pictures
    )
    if track and resume:
        raise OptionError("--track numbers tracks through all files: start anew, without --resume")
    predictor = load()
    settings = {
        **settings,
        "track": track,
        "selection": [selection.every, selection.start, selection.end],
        "sources": [printable(file) for file in files],
    }
    tables = (out / "targets.csv", out / "targets.jsonl")
    earlier = any(path.exists() for path in (*pictures, *tables))
    log = JobLog(out, sinks, settings, resume)

    def end_file(source: Path) -> None:
        for sink in opened:
            if isinstance(sink, OverlaySink):
                sink.close()  # its video is whole only then
        log.add(source)

    done_before = frozenset(log.done)
    if log.resumed:
        typer.echo(f"note: {_count(len(done_before), 'file')} done before", err=True)
    elif earlier:
        typer.echo(
            f"note: {out} holds results of an earlier job; its tables, and pictures of the same "
            "names, are replaced with the first frame (name another --out to keep them)",
            err=True,
        )
    try:
        with open_sinks(sinks, out, log.resumed) as opened, frame_progress() as bar:
            task = bar.add_task("", total=len(files))
            summary = predict_frames(
                predictor,
                files,
                [log, *opened],
                lambda done, total: bar.update(task, completed=done, total=total),
                selection,
                make_tracker if track else None,
                done_before,
                end_file,
            )
    except KeyboardInterrupt:
        more = f"; --resume goes on after {_count(len(log.done), 'file')}"
        more = "" if track or not log.done else more
        typer.echo(f"The results so far are in {out}{more}.", err=True)
        raise

    for _, reason in summary.broken:
        typer.echo(f"warning: left out: {reason}", err=True)
    if done_before and not summary.frames and not summary.broken:
        typer.echo(f"Nothing was left to do. Results are in {out}.")
        return
    if not summary.frames and not summary.broken:
        raise OptionError(
            "no frame was taken: the videos have none between --start and --end that --every "
            "takes; widen them"
        )
    if done_before and not summary.frames:
        raise FrameError("nothing else was left to do: mend what was left out, then --resume")
    if not summary.frames:
        raise FrameError(f"none of the {len(summary.broken)} frames could be read: see above why")
    left_out = f"{len(summary.broken)} left out, " if summary.broken else ""
    tracks = "" if summary.tracks is None else f" in {_count(summary.tracks, 'track')}"
    if summary.holed:
        typer.echo(
            f"note: {_count(summary.holed, 'frame')} with NaN or infinite pixels, taken as the "
            "frame's median",
            err=True,
        )
    typer.echo(
        f"{_count(summary.frames, 'frame')}, {left_out}"
        f"{_count(summary.targets, 'target')}{tracks}, "
        f"{summary.seconds / summary.frames:.3f} s a frame. Results are in {out}."
    )
    if summary.broken:
        raise typer.Exit(2)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
