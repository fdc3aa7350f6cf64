"""pinglow compare: methods on the same frames, with intervals of their differences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pinglow.cli.output_file import check_output_folder, echo
from pinglow.cli.predict import Device
from pinglow.cli.scoring import (
    Boxes,
    BoxTask,
    Flips,
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
from pinglow.errors import DataError, MissingExtraError, OptionError, PinglowError

if TYPE_CHECKING:
    from pinglow.cli.scoring import AnyPredictor
    from pinglow.evaluation.compare import Comparison
    from pinglow.evaluation.results import Results
    from pinglow.evaluation.saved import SavedMaps
    from pinglow.metrics import Protocol

_ASSIGNED: Final = re.compile(r"([^=/\\]+)=(.+)", re.DOTALL)


@dataclass
class _Method:
    """One that was named.

    Attributes:
        what: A model, a folder or pattern of maps, or a results file.
        name: What tables call it.
        method: The model, or the maps; None for a results file.
        origin: Where its results come from.
        results: Its results, once they are there.
        path: Where DIR keeps them.
    """

    what: str
    name: str
    method: AnyPredictor | SavedMaps | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    results: Results | None = None
    path: Path = Path()


def compare(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="A B ...",
            help="Two or more: a bundled model, a run folder, weights, an exported model, a folder "
            "of saved maps or their pattern, or a results file; NAME=... says what tables call it.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Gets tables, curves and panels.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds images/, masks/ and lists, or a pack of one; results files "
            "need it for panels only.",
            show_default="for panels that of the results files",
        ),
    ] = None,
    split: Split = "test",
    device: Device = "auto",
    flips: Flips = False,
    scale: Scale = None,
    resize: Resize = None,
    score: Score = None,
    boxes: Boxes = None,
    protocol: Annotated[
        str, typer.Option(help="strict, greedy, for pixels of models also mshnet256 or basicirstd.")
    ] = "strict",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="A pixel is predicted if its probability is above this, a box if its score is.",
            show_default="0.5; for boxes each model's own",
        ),
    ] = None,
) -> None:
    """Compare methods on the same frames: scores, differences and whether they are shown.

    Methods are compared by pixels; by boxes where one is a detector, the data have no masks, or
    --score says so.

    DIR gets table.csv, table.md, table.tex, roc.png, panels/ of the frames in which the methods
    differ most, and a results file for each method. From results files a table is made again
    without models: pinglow compare DIR/results/*.json --out DIR2. A comparison that was stopped
    goes on where it was: what is in DIR/results and still fits is not scored again.

    Example: pinglow compare pinglow-base runs/mine 'theirs=maps/*_Pred.png' --data sirst --out t
    """
    [rules] = choose_protocols([protocol])
    reading = choose_reading(scale, resize)
    if threshold is not None and not 0 <= threshold < 1:
        raise OptionError(f"--threshold {threshold} is out of range: give at least 0 and below 1")
    check_output_folder("--out", out)
    named = _name_methods(methods, out / "results")
    fresh = [each for each in named if each.results is None]
    if fresh and data is None:
        raise OptionError(f"{fresh[0].what} is to be scored: say on what, with --data")
    (out / "results").mkdir(parents=True, exist_ok=True)  # not after hours
    broken: dict[str, None] = {}
    if fresh and data is not None:
        where, how = (data, split, boxes), {"device": device, "flips": flips}
        task = _open_task(named, where, score, rules, threshold, reading, **how)
        broken = task.broken
        _score(named, task)
    from pinglow.cli.score_tables import print_comparison
    from pinglow.evaluation.compare import compare_results
    from pinglow.evaluation.results_file import write_results

    comparison = compare_results([each.results for each in named if each.results is not None])
    for row in comparison.rows:  # of results files, too
        broken |= dict.fromkeys(row.results.reasons)
    for each in named:
        if each.method is None and each.results is not None:  # DIR has all that it was made from
            write_results(each.results, each.path)
    total = len(comparison.first.results.names)
    with told_broken(broken, len(comparison.names), total):
        print_comparison(comparison)
        _write(comparison, out, data)


def _name_methods(given: Sequence[str], folder: Path) -> list[_Method]:
    """The methods with their names and where the folder keeps their results, results files read.

    Raises:
        OptionError: There are fewer than two, or one twice.
        DataError: A results file cannot be read.
    """
    from pinglow.data.folder import name_folders
    from pinglow.evaluation.results_file import read_results
    from pinglow.models.card import bundled_models

    found: list[_Method] = []
    for what in given:
        assigned = None if Path(what).exists() else _ASSIGNED.fullmatch(what)
        name, what = assigned.groups() if assigned else ("", what)
        if what in (each.what for each in found):
            raise OptionError(f"{what} is named twice: name two different methods")
        results = None
        if what not in bundled_models() and what.lower().endswith(".json"):
            results = read_results(Path(what))
        found.append(_Method(what, name or _title(what, results), results=results))
    if len(found) < 2:
        raise OptionError("name two methods at least, such as pinglow-base runs/mine")
    taken: set[str] = set()
    for each, name in zip(found, name_folders(each.name for each in found), strict=True):
        each.name = name
        each.path = folder / f"{_file_name(name, taken)}.json"
        if each.results is not None:
            each.results = each.results.model_copy(update={"method": name})
    return found


def _title(what: str, results: Results | None) -> str:
    """What a table calls a method that nobody has named."""
    if results is not None:
        return results.method
    path = Path(what).absolute()
    if "*" in what:
        return next(part for part in reversed(path.parts) if "*" not in part)
    return path.parent.name if path.stem == "weights" else path.stem if path.suffix else path.name


def _open_task(
    named: Sequence[_Method],
    where: tuple[Path, str, str | None],
    score: str | None,
    rules: Protocol,
    threshold: float | None,
    reading: dict[str, Any],
    **how: Any,
) -> PixelTask | BoxTask:
    """Get the methods ready that have no results yet, and what they are scored on.

    Args:
        named: The methods.
        where: ``--data``, ``--split`` and ``--boxes``.
        score: ``--score``.
        rules: The protocol.
        threshold: ``--threshold``.
        reading: How saved maps are read.
        how: How models are loaded.

    Raises:
        ModelError: A method is no model, nor a folder.
        OptionError: The methods have no score in common.
        DataError: Data or maps are missing.
    """
    from pinglow.evaluation.origin import hash_model
    from pinglow.inference.predictor import Predictor
    from pinglow.models.card import WEIGHTS, bundled_models

    kinds = {each.results.kind for each in named if each.results is not None}
    for each in named:
        place = Path(each.what)
        if each.results is not None:
            continue
        models = each.what in bundled_models() or (place / WEIGHTS).is_file()
        if not models and (place.is_dir() or "*" in each.what):
            kinds.add("saved")
            continue
        each.origin = {"model": each.what, "sha256": hash_model(each.what), **how}
        each.method = Predictor.load(each.what, **how)
        kinds.add(each.method.kind)
    data, split, boxes = where
    kind = choose_score(score, kinds, data, boxes)
    for each in named:
        if each.results is not None and each.results.kind != kind:
            raise OptionError(
                f"{each.what} has scores of {each.results.kind}, and the others are scored by "
                f"{kind}: compare what has the same scores, see --score"
            )
    if kind == "boxes":
        return BoxTask(data, split, boxes, ([rules], threshold))
    task = PixelTask(data, split, [rules], 0.5 if threshold is None else threshold)
    for each in named:
        if each.results is None and each.method is None:
            place = Path(each.what)
            each.method = maps = task.open_saved(place, reading)
            each.origin = {"predictions": str(place.absolute()), "sha256": maps.hash(), **reading}
    return task


def _score(named: Sequence[_Method], task: PixelTask | BoxTask) -> None:
    """Give each method its results: those at its path where they fit, else new ones.

    A method that cannot be scored loses no other, as long as two are left.

    Raises:
        PinglowError: One cannot be loaded, or scored.
    """
    from pinglow.data.digests import digest_frame
    from pinglow.evaluation.results_file import digest_truth, read_results, write_results
    from pinglow.evaluation.saved import SavedMaps

    digests: dict[str, str] = {}
    of_frames: list[str] = []
    for name, frame, truth in task.pairs(task.read):
        of_frames.append(digest_frame(frame))
        digests[name] = digest_truth(of_frames[-1], truth)
    unreadable = dict(task.broken)
    failed: set[str] = set()
    for each in named:
        method, origin = each.method, each.origin
        if method is None:
            continue
        known = 0 if isinstance(method, SavedMaps) else method.card.count_known(of_frames)
        if known:
            echo(
                f"warning: {each.name} was trained on {known} of the {len(of_frames)} frames: its "
                "scores are too good",
                err=True,
            )
        try:
            kept = read_results(each.path) if each.path.is_file() else None
        except DataError:  # of another version, or torn: made anew
            kept = None
        how = task.rules[0], task.threshold_of(method)
        if kept is not None and kept.kind == task.kind and kept.fits(origin, how, digests):
            each.results = kept.model_copy(update={"method": each.name})
            echo(f"{each.name}: the results in {each.path} are taken", err=True)
            continue
        task.broken = dict(unreadable)
        try:
            each.results = _score_all(each.name, method, origin, task, digests)
        except PinglowError as error:
            unreadable[str(error)] = None
            left = [other for other in named if other is not each and other.name not in failed]
            if len(left) < 2:
                raise
            failed.add(each.name)
            continue
        write_results(each.results, each.path)
        scored = f"{len(each.results.frames)} frames scored"
        echo(f"{each.name}: {scored}, kept in {each.path}", err=True)
    task.broken = unreadable


def _score_all(
    name: str,
    method: AnyPredictor | SavedMaps,
    origin: dict[str, Any],
    task: PixelTask | BoxTask,
    digests: dict[str, str],
) -> Results:
    """The results of a method on all frames, and why some have none."""
    from pinglow.evaluation.results import RESULTS

    found = task.collect(method, digests)
    return RESULTS[task.kind](
        method=name,
        origin=origin,
        data=str(task.frames.folder.absolute()),
        list=task.frames.split,
        protocol=task.rules[0].name,
        threshold=task.threshold_of(method),
        left_out=tuple(each for each in task.frames.names if each not in found["frames"]),
        reasons=tuple(task.broken),
        **found,
    )


def _file_name(name: str, taken: set[str]) -> str:
    """A file name for a method, told apart from those that are taken."""
    from pinglow.evaluation.panels import plain_name

    plain = plain_name(name)
    number, unique = 1, plain
    while unique in taken:
        number += 1
        unique = f"{plain}-{number}"
    taken.add(unique)
    return unique


def _write(comparison: Comparison, out: Path, data: Path | None) -> None:
    """Tables, curves and panels into the folder."""
    from pinglow.evaluation.compare_files import draw_roc, write_tables
    from pinglow.evaluation.compare_panels import write_differences

    write_tables(comparison, out)
    written = ["table.csv", "table.md", "table.tex"]
    try:
        draw_roc(comparison, out / "roc.png")
        written.append("roc.png")
    except MissingExtraError as error:
        echo(f"warning: {error}", err=True)
    try:
        written.append(f"{write_differences(comparison, out / 'panels', data)} panels")
    except PinglowError as error:
        echo(f"warning: no panels: {error}", err=True)
    echo(f"{out}: {', '.join(written)}", err=True)
