"""pinglow calibrate: the score above which a model gives no more alarms than are wished."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pinglow.cli.output_file import check_output_folder, echo
from pinglow.cli.predict import Device, Precision
from pinglow.cli.sources import Crop, Ignore
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.terminal import escape_controls

if TYPE_CHECKING:
    from pinglow.evaluation.clear_footage import Alarm, ClearClip, ClearFootage
    from pinglow.evaluation.operating_point import LevelRate, Wish
    from pinglow.inference.boxes import BoxPredictor
    from pinglow.inference.predictor import Predictor
    from pinglow.io.source import Selection, Source
    from pinglow.models.card import OperatingPoint
    from pinglow.output.job_log import JobLog
    from pinglow.output.tables import JsonlSink

_LISTED: Final = 10  # alarms
_CANDIDATES: Final = "candidates"
_UNITS: Final = {"hour": "an hour", "frame": "a frame"}


def calibrate(
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Footage without targets: a file, folder, pack or quoted pattern, as for predict. "
            "Repeat for several.",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Instead of --clear: a folder with images/ and masks/, to calibrate scores on. "
            "Repeat for several.",
            metavar="DIR",
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="The list in --data: one for all folders, or one for each.", metavar="LIST"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the model and what it rests on; made if need be. With --data it may "
            "be left out, to measure the scores that the model has."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A bundled model (see `pinglow models`), a run folder, a weights file, or an "
            "exported model."
        ),
    ] = "pinglow-fast",
    alarms_per_hour: Annotated[
        float | None,
        typer.Option(help="False tracks an hour, at most: of clips, or with --rate.", metavar="N"),
    ] = None,
    alarms_per_frame: Annotated[
        float | None,
        typer.Option(help="False targets a frame, at most: of single frames.", metavar="N"),
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="How sure that is to be, from 0.5 to below 1.", metavar="P")
    ] = 0.95,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Frames a second of folders and files that do not say theirs.", metavar="FPS"
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(help="Take each N-th frame, as predict will.", metavar="N")
    ] = 1,
    ignore: Ignore = None,
    crop: Crop = None,
    backend: Annotated[
        str, typer.Option(help="auto (the fastest installed), torch, onnxruntime or openvino.")
    ] = "auto",
    device: Device = "auto",
    precision: Precision = "float32",
    tile: Annotated[int, typer.Option(help="As predict will.")] = 1024,
    flips: Annotated[bool, typer.Option("--flips", help="As predict will.")] = False,
    large: Annotated[bool, typer.Option("--large", help="As predict will.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the frames in --out: those that are done are not computed again. "
            "More footage, another rate or confidence may be asked for.",
        ),
    ] = False,
) -> None:
    """Find the score that keeps false alarms as rare as you wish, from footage without targets.

    Writes the model with that score into --out, and on what it rests: predict --model OUT uses
    it, and predict --monitor warns when alarms come more often. An alarm is a track where there
    are times, and a single target where there are none. docs/guides/calibrate.md says what the
    bound means and how much footage it takes.

    Where there is too little footage, or alarms at every score, nothing is certified: the alarms
    are shown all the same, no model is written, and the exit code is 2.

    With --data instead, scores become the share of such detections that are true in frames that
    were not trained on; and tables show what each smallest score costs, and how far scores and
    shares are apart.

    Example: pinglow calibrate --data sirst --split val --model runs/mine --out mine

    Example: pinglow calibrate --clear sky/ --alarms-per-hour 1 --out mine

    Example: pinglow calibrate --clear "frames/*.tif" --alarms-per-frame 0.05 --out mine
    """
    from pinglow.inference.predictor import Predictor

    if data is not None:
        from pinglow.cli.score_calibration import calibrate_by_targets, refuse_beside_data

        if clear is not None or split is None:
            raise OptionError("--data takes --split, the list of its frames, and no --clear")
        refuse_beside_data(
            **{"alarms_per_hour": alarms_per_hour, "alarms_per_frame": alarms_per_frame},
            **{"rate": rate, "ignore": ignore, "crop": crop, "resume": resume or None},
            every=None if every == 1 else every,
        )
        if out is not None:
            check_output_folder("--out", out)
            _earlier_model(out)
        loaded = Predictor.load(
            model,
            backend=backend,
            device=device,
            precision=precision,
            tile=tile or None,
            flips=flips,
            large=large,
        )
        calibrate_by_targets(loaded, model, data, split, out)
        return
    if clear is None or out is None:
        raise OptionError("give --clear and --out, for alarms; or --data and --split, for scores")
    from pinglow.cli.sources import open_files
    from pinglow.evaluation.clear_footage import CandidateSink, read_clips
    from pinglow.evaluation.operating_point import LEVELS, check_wish
    from pinglow.inference.ignored import Ignored
    from pinglow.io.source import Selection
    from pinglow.models.card import find_model
    from pinglow.models.recard import save_with_card
    from pinglow.output.job_log import JobLog
    from pinglow.output.tables import JsonlSink

    wish = check_wish(alarms_per_hour, alarms_per_frame, confidence)
    check_output_folder("--out", out)
    earlier = _earlier_model(out)
    selection = Selection(every)
    ignored = Ignored.parse(ignore or [], crop)
    sources = open_files(clear, out)
    if wish.unit == "hour":
        _check_times(sources, rate)
    predictor = Predictor.load(
        model,
        backend=backend,
        device=device,
        precision=precision,
        min_score=LEVELS[-1],
        tile=tile or None,
        flips=flips,
        large=large,
        ignore=ignored,
    )
    settings = {
        **{"model": model, "tile": tile, "flips": flips, "large": large},
        **{"every": every, "ignore": ignore or [], "crop": crop, "unit": wish.unit},
    }
    folder = out / _CANDIDATES
    folder.mkdir(parents=True, exist_ok=True)
    log = JobLog(folder, ["jsonl"], settings, resume)
    in_time = wish.unit == "hour"
    sink = CandidateSink(folder, sources) if in_time else JsonlSink(folder)
    with closing(sink):
        _run(sources, predictor, sink, log, selection)
    clips = read_clips(folder / "targets.jsonl", sources, every, rate, in_time=in_time)
    point = _choose(clips, sources, wish, out, earlier)
    card = predictor.card.model_copy(update={"operating_point": point})
    path = save_with_card(find_model(model), card, out)
    a = _UNITS[wish.unit]
    echo(
        f"{path}: above score {point.min_score:.6g}, at most {wish.alarms:g} alarms {a} "
        f"({point.rate:.3g} seen, below {point.bound:.3g} with {100 * confidence:g} % "
        f"confidence). predict --model {out} uses it."
    )


def _earlier_model(out: Path) -> Path | None:
    """The model of an earlier calibration in --out.

    Raises:
        OptionError: There is a model, and it is not of one: it would be replaced.
    """
    from pinglow.models.card import WEIGHTS

    for name in (WEIGHTS, "model.onnx", "model.xml"):
        path = out / name
        if path.is_file():
            if not (out / _CANDIDATES).is_dir():
                raise OptionError(
                    f"--out {out} holds another model, {name}, which would be replaced: name "
                    "another folder"
                )
            return path
    return None


def _check_times(sources: list[Source], rate: float | None) -> None:
    """See that it is known how long the footage is, and what tracks it.

    Raises:
        OptionError: It is not.
        MissingExtraError: What tracks is not installed.
    """
    from pinglow.inference.tracking import Tracker

    Tracker(1.0)
    if rate is not None and not 0 < rate < float("inf"):
        raise OptionError(f"--rate is {rate}; use a number above 0")
    silent = next((source.name for source in sources if source.rate is None), None)
    if silent is not None and rate is None:
        raise OptionError(
            f"{silent} does not say when its frames were taken: give --rate, the frames a second, "
            "or for frames that do not follow each other --alarms-per-frame"
        )


def _run(
    sources: list[Source],
    predictor: Predictor | BoxPredictor,
    sink: JsonlSink,
    log: JobLog,
    selection: Selection,
) -> None:
    """Find the candidates of all frames; a broken frame is listed.

    Raises:
        FrameError: No frame could be read.
    """
    from pinglow.cli.progress import frame_progress
    from pinglow.inference.pipeline import run

    done = set(log.done) if log.resumed else set()
    if done:
        sink.go_on(done)
        echo(f"note: {len(done)} files were done before", err=True)
    with frame_progress() as bar:
        task = bar.add_task("", total=len(sources))
        summary = run(
            sources,
            predictor,
            [sink],
            resume=log,
            selection=selection,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for _, reason in summary.broken:
        echo(f"warning: left out: {reason}", err=True)
    if not summary.frames and not done:
        raise FrameError("no frame of --clear could be read: see above why")


def _choose(
    clips: list[ClearClip],
    sources: list[Source],
    wish: Wish,
    out: Path,
    earlier: Path | None,
) -> OperatingPoint:
    """Test the scores, write and say what was seen, and make the operating point.

    Raises:
        DataError: No score keeps the wish.
    """
    from pinglow.evaluation.clear_footage import ClearFootage
    from pinglow.evaluation.clear_report import write_alarms, write_levels
    from pinglow.evaluation.operating_point import try_levels, why_none
    from pinglow.inference.tracking import Tracker
    from pinglow.models.card import OperatingPoint

    footage = ClearFootage(clips, Tracker)
    rates = try_levels(footage.count, footage.exposure, wish)
    alarms = footage.alarms
    write_levels(out, rates, wish)
    write_alarms(out, alarms, sources)
    _tell(footage, rates, wish, out)
    certified = [each for each in rates if each.certified]
    if not certified:
        kept = f" ({earlier} is of an earlier calibration)" if earlier else ""
        reason = why_none(rates[0], footage.exposure, wish)
        raise DataError(f"nothing is certified and no model is written{kept}: {reason}")
    best = certified[-1]
    return OperatingPoint(
        min_score=best.level,
        unit=wish.unit,
        wished=wish.alarms,
        alarms=best.alarms,
        rate=best.rate,
        bound=best.bound,
        confidence=wish.confidence,
        hours=float(footage.exposure.sum()) if wish.unit == "hour" else None,
        frames=footage.frames,
        clips=len(clips),
        command=shlex.join(["pinglow", *sys.argv[1:]]),
    )


def _tell(footage: ClearFootage, rates: list[LevelRate], wish: Wish, out: Path) -> None:
    """Say what was seen: the rates, the surest alarms, and what to doubt."""
    from rich.table import Table

    from pinglow.console import Console
    from pinglow.evaluation.operating_point import FEWEST_CLIPS

    console = Console()
    hours = f", {footage.exposure.sum():.3g} hours" if wish.unit == "hour" else ""
    clips = len(footage.clips)
    console.print(
        f"{clips} {'clip' if wish.unit == 'hour' else 'still'}{'s' * (clips != 1)}, "
        f"{footage.frames:,} frames{hours}",
        highlight=False,
    )
    table = Table("above score", "alarms", f"alarms {_UNITS[wish.unit]}", "upper bound", "")
    for rate, following in zip(rates, [*rates[1:], None], strict=True):
        last = following is None or following.certified != rate.certified
        if last or following is None or following.alarms != rate.alarms:  # runs: the loosest
            table.add_row(
                f"{rate.level:.6g}",
                str(rate.alarms),
                f"{rate.rate:.3g}",
                f"{rate.bound:.3g}",
                "chosen" if last and rate.certified else "" if rate.certified else "too many",
            )
    console.print(table)
    alarms = footage.alarms
    if alarms:
        listed = Table("", "score", "source", "frame", "x", "y", "seconds")
        listed.columns[2].overflow = "fold"
        for rank, alarm in enumerate(alarms[:_LISTED], start=1):
            listed.add_row(*_alarm_row(rank, alarm))
        console.print(listed)
        are = "alarm is" if len(alarms) == 1 else "alarms are"
        places = f"{out / 'alarms.csv'}, surest first; pictures in {out / 'alarms'}"
        echo(f"{len(alarms)} {are} in {places}.")
    if clips < FEWEST_CLIPS:
        echo(
            f"note: {clips} clip{'s' * (clips != 1)}: the bound takes alarms as independent; that "
            f"those of one clip come together shows only from some {FEWEST_CLIPS} clips on",
            err=True,
        )
    doubtful = sum(alarm.like_a_target for alarm in alarms)
    if doubtful:
        echo(
            f"warning: {doubtful} alarm{'s' * (doubtful != 1)} of a score of 0.5 or more "
            f"last{'s' * (doubtful == 1)} a second or longer: see in {out / 'alarms'} that no "
            "target is in the footage; if one is, leave the clip out",
            err=True,
        )


def _alarm_row(rank: int, alarm: Alarm) -> list[str]:
    best = alarm.best
    return [
        str(rank),
        f"{alarm.score:.6g}",
        escape_controls(best.source),
        str(best.page) + ("" if best.time is None else f" ({best.time:.2f} s)"),
        f"{best.target.x:.1f}",
        f"{best.target.y:.1f}",
        f"{alarm.seconds:.2f}" if alarm.seconds else "",
    ]
