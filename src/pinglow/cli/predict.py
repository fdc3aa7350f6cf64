"""pinglow predict: find the targets in files, folders and patterns, with a model of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pinglow.cli.monitor import Monitor, open_monitor
from pinglow.cli.output_file import check_output_folder, echo
from pinglow.cli.sensitivity import (
    AlarmsPerFrame,
    MinScore,
    check_sensitivity,
    set_sensitivity,
)
from pinglow.cli.sources import Crop, Ignore, Raw, describe_live, open_sources, tell_live
from pinglow.errors import FrameError, OptionError

if TYPE_CHECKING:
    from pinglow.inference.boxes import BoxPredictor
    from pinglow.inference.pipeline import JobSummary
    from pinglow.inference.pipeline import Tracker as AnyTracker
    from pinglow.inference.predictor import Predictor
    from pinglow.io.source import Selection, Source
    from pinglow.output.job_log import JobLog
    from pinglow.output.sink import Sink

_STDOUT: Final = Path("-")

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
        "installed. Less exact, for speed: see docs/guides/gpu.md."
    ),
]
"""What the commands that run models have in common."""


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Images and videos: files, folders, packs or quoted patterns. Or what is live: a "
            "camera (0, 1, ...), an address (rtsp://, udp://, http://, ...), a pipe or - with "
            "--raw.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A bundled model (see `pinglow models`), a run folder, a weights file, or an "
            "exported model."
        ),
    ] = "pinglow-fast",
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the results, made if need be; - writes one table to standard output."
        ),
    ] = Path("pinglow-out"),
    min_score: MinScore = None,
    alarms_per_frame: AlarmsPerFrame = None,
    save: Annotated[
        str | None,
        typer.Option(
            help="What to write: any of mask, probability (not of detectors), overlay, html (a "
            "page to look through), csv, jsonl, coco, parquet, crops, counts, with commas; "
            "docs/guides/results.md tells what is in each.",
            show_default="csv,jsonl,overlay; jsonl to standard output",
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="auto (the fastest installed), torch, onnxruntime or openvino.")
    ] = "auto",
    device: Device = "auto",
    precision: Precision = "float32",
    tile: Annotated[
        int,
        typer.Option(
            help="Frames of more than four tiles' area are computed in tiles of this side, pixels; "
            "0: never."
        ),
    ] = 1024,
    flips: Annotated[
        bool,
        typer.Option(
            "--flips",
            help="Average over mirror images: four times the work (twice, if the model was "
            "trained on upright frames); what it gains differs from model to model.",
        ),
    ] = False,
    large: Annotated[
        bool,
        typer.Option(
            "--large",
            help="Look again at a half and a quarter of the scale, for targets of about 40 to 80 "
            "pixels; a third more time, and more false alarms.",
        ),
    ] = False,
    track: Annotated[
        bool, typer.Option("--track", help="Number targets that belong together over time.")
    ] = False,
    monitor: Monitor = False,
    every: Annotated[
        int, typer.Option(help="Take each N-th frame of a video, file or folder.", metavar="N")
    ] = 1,
    start: Annotated[
        float, typer.Option(help="Skip what is before this second of a video.", metavar="S")
    ] = 0.0,
    end: Annotated[
        float | None, typer.Option(help="Stop at this second of a video.", metavar="S")
    ] = None,
    video_stream: Annotated[
        int | None,
        typer.Option(
            help="Of videos with several video streams take this one, from 0.",
            metavar="N",
            show_default="the first",
        ),
    ] = None,
    ignore: Ignore = None,
    crop: Crop = None,
    raw: Raw = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the interrupted job in --out, given the same sources and options. "
            "Files that it was done with are passed over; one that it had begun is begun again.",
        ),
    ] = False,
) -> None:
    """Find targets in infrared images and videos and write what was found.

    The model may find pixels or, a detector, boxes: --backend, --precision, --flips and
    --large are for pixels.

    Reads PNG, TIFF (every page), NPY, PGM, BMP and JPEG at 8, 16 or 32 bits; raw counts of
    FLIR (radiometric JPEG, FFF, SEQ), ENVI, FITS and HDF5; and MP4, AVI, MKV, MOV, WebM, WMV,
    MXF, Y4M and MPEG (TS, M2TS, MPG) at 8 to 16 bits. The overlay of a video is a video.
    A frame that cannot be used is listed at the end, the others go on, and the exit
    code is 2.

    Example: pinglow predict flight/ "night/*.tif" --out found --save csv,overlay

    Example: pinglow predict clip.mp4 --track --save overlay,jsonl

    Example: pinglow predict clip.ts --ignore 0,0,200,24 --out -

    Example: pinglow predict rtsp://10.0.0.5/ir --track --out - | mosquitto_pub -l -t targets
    """
    from pinglow.inference.ignored import Ignored
    from pinglow.inference.predictor import Predictor
    from pinglow.inference.tracking import Tracker
    from pinglow.io.source import Selection
    from pinglow.output.job_log import JobLog
    from pinglow.output.sinks import check_sinks

    names = _choose_sinks(save, out)
    check_sensitivity(min_score, alarms_per_frame)
    selection = Selection(every, start, end)
    if out != _STDOUT:
        check_output_folder("--out", out)
    if track and resume:
        raise OptionError("--track numbers tracks through all files: start anew, without --resume")
    if resume and out == _STDOUT:
        raise OptionError("--out - keeps nothing to resume: name a folder")
    if track:
        Tracker(1.0)  # says now if its library is not installed
    ignored = Ignored.parse(ignore or [], crop)
    found = open_sources(sources, out, raw, video_stream)
    if resume and found[0].frames is None:
        raise OptionError("--resume: a live source cannot be gone on with: start anew")
    predictor = Predictor.load(
        model,
        backend=backend,
        device=device,
        precision=precision,
        min_score=min_score,
        tile=tile or None,
        flips=flips,
        large=large,
        ignore=ignored,
    )
    check_sinks(names, predictor.kind)
    set_sensitivity(predictor, alarms_per_frame)
    watch = open_monitor(predictor, found, resume) if monitor else None
    track = track or (watch is not None and watch.point.unit == "hour")
    settings = {
        **{"model": model, "min_score": min_score, "alarms_per_frame": alarms_per_frame},
        **{"tile": tile, "flips": flips, "large": large, "track": track},
        "selection": [every, start, end],
        "video_stream": video_stream,
        "ignore": ignore or [],
        "crop": crop,
        "raw": raw,
        "sources": [source.name for source in found],
    }
    log = None if out == _STDOUT else JobLog(out, names, settings, resume)
    done_before = 0 if log is None else len(log.done)
    extra: list[Sink] = [] if watch is None else [watch]
    try:
        summary = _run(
            found, predictor, out, names, log, selection, Tracker if track else None, extra
        )
    finally:
        if watch is not None:
            echo(f"monitor: {watch.describe()}", err=True)
    tell_live(found)
    _tell(summary, done_before, out, names)


def _choose_sinks(save: str | None, out: Path) -> list[str]:
    """The names in ``--save``.

    Raises:
        OptionError: They are not one table, for standard output.
    """
    from pinglow.output.sinks import split_names

    if out != _STDOUT:
        return split_names("csv,jsonl,overlay" if save is None else save)
    names = split_names("jsonl" if save is None else save)
    if names not in (["jsonl"], ["csv"]):
        raise OptionError("--out - is standard output, for one table: use --save jsonl or csv")
    return names


def _run(
    sources: list[Source],
    predictor: Predictor | BoxPredictor,
    out: Path,
    names: list[str],
    log: JobLog | None,
    selection: Selection,
    make_tracker: Callable[[float], AnyTracker] | None,
    extra: list[Sink],
) -> JobSummary:
    """Run the job with a bar on stderr, and say what is in the folder of the results."""
    from pinglow.cli.progress import frame_progress
    from pinglow.inference.pipeline import run
    from pinglow.output.sinks import SINKS, open_sinks, open_stream

    earlier = log is not None and any((out / sink.place).exists() for sink in SINKS.values())
    done = log.done if log is not None and log.resumed else None
    try:
        with (
            open_stream(names) if log is None else open_sinks(names, out, done) as sinks,
            frame_progress() as bar,
        ):
            if log is not None and log.resumed:
                echo(f"note: {_count(len(log.done), 'file')} done before", err=True)
            elif earlier:
                echo(
                    f"note: {out} holds results of an earlier job; its tables, and pictures of the "
                    "same names, are replaced with the first frame (name another --out to keep "
                    "them)",
                    err=True,
                )
            live = sources[0].frames is None
            task = bar.add_task("", total=None if live else len(sources))
            return run(
                sources,
                predictor,
                [*sinks, *extra],
                resume=log,
                selection=selection,
                make_tracker=make_tracker,
                on_progress=lambda done, total: bar.update(
                    task,
                    completed=done,
                    total=None if live else total,
                    description="" if bar.disable else describe_live(sources[0]),
                ),
            )
    except KeyboardInterrupt:
        tell_live(sources)
        if log is None:
            raise
        more = f"; --resume goes on after {_count(len(log.done), 'file')}"
        more = "" if make_tracker or not log.done else more
        echo(f"The results so far are in {out}{more}.", err=True)
        raise


def _tell(summary: JobSummary, done_before: int, out: Path, names: list[str]) -> None:
    """Say what a job did.

    Raises:
        OptionError: No frame was taken.
        FrameError: No frame could be read.
        typer.Exit: With code 2, some frames could not be.
    """
    reasons: dict[str, list[str]] = {}  # of each file
    for file, reason in summary.broken:
        reasons.setdefault(file, []).append(reason)
    for first, *others in reasons.values():
        more = f" (and {_count(len(others), 'frame')} more of this file)" if others else ""
        echo(f"warning: left out: {first}{more}", err=True)
    if not summary.frames:
        _tell_none(len(summary.broken), done_before, out)
        return
    left_out = f"{len(summary.broken)} left out, " if summary.broken else ""
    tracks = "" if summary.tracks is None else f" in {_count(summary.tracks, 'track')}"
    if summary.holed:
        echo(
            f"note: {_count(summary.holed, 'frame')} with NaN or infinite pixels, taken as the "
            "frame's median",
            err=True,
        )
    echo(
        f"{_count(summary.frames, 'frame')}, {left_out}"
        f"{_count(summary.targets, 'target')}{tracks}, "
        f"{summary.seconds / summary.frames:.3f} s a frame."
        + ("" if out == _STDOUT else f" Results are in {out}.")
        + (f" Open {out / 'html' / 'index.html'} in a browser." if "html" in names else ""),
        err=out == _STDOUT,
    )
    if summary.broken:
        raise typer.Exit(2)


def _tell_none(broken: int, done_before: int, out: Path) -> None:
    """Say why a job predicted no frame."""
    if done_before and broken:
        raise FrameError("nothing else was left to do: mend what was left out, then --resume")
    if broken:
        raise FrameError("no frame could be read: see above why")
    if not done_before:
        raise OptionError(
            "no frame was taken: the videos have none between --start and --end that --every "
            "takes; widen them"
        )
    echo(f"Nothing was left to do. Results are in {out}.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
