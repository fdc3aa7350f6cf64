"""pinglow compare: methods on the same frames, with intervals of their differences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pinglow.cli.output_file import check_output_folder, echo
from pinglow.cli.predict import Device
from pinglow.cli.scoring import (
    Flips,
    PixelTask,
    Resize,
    Scale,
    Split,
    choose_protocols,
    choose_reading,
    told_broken,
)
from pinglow.errors import DataError, MissingExtraError, OptionError, PinglowError

if TYPE_CHECKING:
    from pinglow.evaluation.compare import Comparison
    from pinglow.evaluation.results import Results
    from pinglow.evaluation.saved import SavedMaps
    from pinglow.inference.predictor import Predictor

_PANELS: Final = 12  # frames that are drawn, at most
_ASSIGNED: Final = re.compile(r"([^=/\\]+)=(.+)", re.DOTALL)


@dataclass
class _Method:
    """One that was named.

    Attributes:
        what: A model, a folder or pattern of maps, or a results file.
        name: What tables call it.
        open: Gets it ready, and says where it comes from; None for a results file.
        results: Its results, once they are there.
    """

    what: str
    name: str
    open: Callable[[], tuple[Predictor | SavedMaps, dict[str, Any]]] | None = None
    results: Results | None = None


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
    protocol: Annotated[
        str, typer.Option(help="strict, greedy, for models also mshnet256 or basicirstd.")
    ] = "strict",
    threshold: Annotated[
        float, typer.Option(help="A pixel is predicted if its probability is above this.")
    ] = 0.5,
) -> None:
    """Compare methods on the same frames: scores, differences and whether they are shown.

    DIR gets table.csv, table.md, table.tex, roc.png, panels/ of the frames in which the methods
    differ most, and a results file for each method. From results files a table is made again
    without models: pinglow compare DIR/results/*.json --out DIR2. A comparison that was stopped
    goes on where it was: what is in DIR/results and still fits is not scored again.

    Example: pinglow compare pinglow-base runs/mine 'theirs=maps/*_Pred.png' --data sirst --out t
    """
    [rules] = choose_protocols([protocol])
    reading = choose_reading(scale, resize)
    if not 0 <= threshold < 1:
        raise OptionError(f"--threshold {threshold} is out of range: give at least 0 and below 1")
    check_output_folder("--out", out)
    named = _name_methods(methods)
    fresh = [each for each in named if each.results is None]
    if fresh and data is None:
        raise OptionError(f"{fresh[0].what} is to be scored: say on what, with --data")
    (out / "results").mkdir(parents=True, exist_ok=True)  # not after hours
    broken: dict[str, None] = {}
    if fresh and data is not None:
        task = PixelTask(data, split, [rules], threshold)
        broken = task.broken
        for each in fresh:
            each.open = _opener(each.what, task, reading, device=device, flips=flips)
        _score(named, task, out / "results")
    from pinglow.evaluation.compare import compare_results

    comparison = compare_results([each.results for each in named if each.results is not None])
    for row in comparison.rows:  # of results files, too
        broken |= dict.fromkeys(row.results.reasons)
    total = len(comparison.first.results.names)
    with told_broken(broken, len(comparison.names), total):
        _print(comparison)
        _write(comparison, out, data)


def _name_methods(given: Sequence[str]) -> list[_Method]:
    """The methods with their names, results files read.

    Raises:
        OptionError: There are fewer than two, or one twice.
        DataError: A results file cannot be read.
    """
    from pinglow.data.folder import name_folders
    from pinglow.evaluation.results import read_results
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
    for each, name in zip(found, name_folders(each.name for each in found), strict=True):
        each.name = name
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


def _opener(
    what: str, task: PixelTask, reading: dict[str, Any], **how: Any
) -> Callable[[], tuple[Predictor | SavedMaps, dict[str, Any]]]:
    """What gets a method ready; where it is not there, that is said now.

    Raises:
        ModelError: It is no model, nor a folder.
        OptionError: It is a detector.
        DataError: Maps are missing.
    """
    from pinglow.evaluation.origin import hash_model
    from pinglow.inference.predictor import Predictor
    from pinglow.models.card import WEIGHTS, bundled_models

    place = Path(what)
    models = what in bundled_models() or (place / WEIGHTS).is_file()
    if not models and (place.is_dir() or "*" in what):
        maps = task.open_saved(place, reading)
        return lambda: (
            maps,
            {"predictions": str(place.absolute()), "sha256": maps.hash(), **reading},
        )
    origin = {"model": what, "sha256": hash_model(what), **how}

    def open_model() -> tuple[Predictor, dict[str, Any]]:
        predictor = Predictor.load(what, **how)
        if not isinstance(predictor, Predictor):
            raise OptionError(
                f"{what} finds boxes, and compare compares pixels: pinglow evaluate scores boxes"
            )
        return predictor, origin

    return open_model


def _score(named: Sequence[_Method], task: PixelTask, folder: Path) -> None:
    """Give each method its results: those in the folder where they fit, else new ones.

    A method that cannot be scored loses no other, as long as two are left.

    Raises:
        PinglowError: One cannot be loaded, or scored.
    """
    from pinglow.data.digests import digest_frame
    from pinglow.evaluation.results import digest_pair, read_results, write_results
    from pinglow.inference.predictor import Predictor

    ready = [(each, *each.open()) for each in named if each.open is not None]
    digests: dict[str, str] = {}
    of_frames: list[str] = []
    for name, frame, mask in task.pairs(task.frames.pair):
        of_frames.append(digest_frame(frame))
        digests[name] = digest_pair(of_frames[-1], mask)
    unreadable = dict(task.broken)
    how = task.how[0][0], task.how[1]
    names, failed = set[str](), set[str]()
    for each, method, origin in ready:
        known = method.card.count_known(of_frames) if isinstance(method, Predictor) else 0
        if known:
            echo(
                f"warning: {each.name} was trained on {known} of the {len(of_frames)} frames: its "
                "scores are too good",
                err=True,
            )
        path = folder / f"{_file_name(each.name, names)}.json"
        try:
            kept = read_results(path) if path.is_file() else None
        except DataError:  # of another version, or torn: made anew
            kept = None
        if kept is not None and kept.fits(origin, how, digests):
            each.results = kept.model_copy(update={"method": each.name})
            echo(f"{each.name}: the results in {path} are taken", err=True)
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
        write_results(each.results, path)
        echo(f"{each.name}: {len(each.results.frames)} frames scored, kept in {path}", err=True)
    task.broken = unreadable


def _score_all(
    name: str,
    method: Predictor | SavedMaps,
    origin: dict[str, Any],
    task: PixelTask,
    digests: dict[str, str],
) -> Results:
    """The results of a method on all frames, and why some have none."""
    from pinglow.evaluation.results import Results, collect_results

    [rules], threshold = task.how
    found = collect_results(task.score_each(method), (rules, threshold), digests)
    return Results(
        method=name,
        origin=origin,
        data=str(task.frames.folder.absolute()),
        list=task.frames.split,
        protocol=rules.name,
        threshold=threshold,
        left_out=tuple(each for each in task.frames.names if each not in found["frames"]),
        reasons=tuple(task.broken),
        **found,
    )


def _file_name(name: str, taken: set[str]) -> str:
    """A file name for a method or a frame, told apart from those that are taken."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip(".")[:100] or "_"
    number, unique = 1, plain
    while unique in taken:
        number += 1
        unique = f"{plain}-{number}"
    taken.add(unique)
    return unique


# --- what is shown -------------------------------------------------------------------------------


def _print(comparison: Comparison) -> None:
    """The table on standard output."""
    from rich import box
    from rich.table import Table

    from pinglow.console import Console
    from pinglow.evaluation.compare_files import (
        SHOWN,
        describe,
        difference_cells,
        explain,
        score_cells,
        size_rows,
    )
    from pinglow.metrics.scores import SCORES

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(describe(comparison))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    for key in SHOWN:
        table.add_column(SCORES[key].heading, justify="right")
    for row in comparison.rows:
        # A line of its own for each: the values stand below each other.
        for title, cells in zip((row.name, ""), zip(*score_cells(row), strict=True), strict=True):
            table.add_row(title, *cells)
        if row.differences:
            titles = ("  difference", "", "")
            for title, cells in zip(titles, zip(*difference_cells(row), strict=True), strict=True):
                table.add_row(title, *cells)
    sizes = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    head, rows = size_rows(comparison)
    for column in head:
        sizes.add_column(column, justify="right" if column else "left")
    for cells_of_sizes in rows:
        sizes.add_row(*cells_of_sizes)
    for block in ("", table, "", explain(comparison), "", "Pd, %, by true area:", sizes):
        console.print(block)


def _write(comparison: Comparison, out: Path, data: Path | None) -> None:
    """Tables, curves and panels into the folder."""
    from pinglow.evaluation.compare_files import draw_roc, write_tables

    write_tables(comparison, out)
    written = ["table.csv", "table.md", "table.tex"]
    try:
        draw_roc(comparison, out / "roc.png")
        written.append("roc.png")
    except MissingExtraError as error:
        echo(f"warning: {error}", err=True)
    try:
        drawn = sum(1 for _ in _draw_panels(comparison, out / "panels", data))
        written.append(f"{drawn} panels")
    except PinglowError as error:
        echo(f"warning: no panels: {error}", err=True)
    echo(f"{out}: {', '.join(written)}", err=True)


def _draw_panels(comparison: Comparison, folder: Path, data: Path | None) -> Iterator[Path]:
    """Draw the frames in which methods differ most, the first as 01-NAME.png.

    Raises:
        DataError: The data are not there, or are others now.
    """
    import io

    from pinglow.data.digests import digest_frame
    from pinglow.data.folder import FrameFolder
    from pinglow.evaluation.compare import rank_frames
    from pinglow.evaluation.pixels import view
    from pinglow.evaluation.results import digest_pair
    from pinglow.files import write_whole
    from pinglow.metrics import PROTOCOLS
    from pinglow.output.panels import draw_panels

    first = comparison.first.results
    frames = FrameFolder(data or first.data, first.list)
    places = {name: place for place, name in enumerate(frames.names)}
    for old in folder.glob("[0-9][0-9]-*.png"):  # of another comparison
        old.unlink()
    drawn = 0
    for name in rank_frames(comparison):
        masks = {row.name: row.results.frames[name].mask() for row in comparison.rows}
        found = {title: mask for title, mask in masks.items() if mask is not None}
        if len(found) < len(masks):
            continue
        if name not in places:
            raise DataError(f"{frames.folder} has no frame {name} in list {first.list}")
        frame, truth = frames.pair(places[name])
        if digest_pair(digest_frame(frame), truth) != first.frames[name].digest:
            raise DataError(f"frame {name} of {frames.folder} is not the one that was scored")
        shown, truth = view(frame, truth, PROTOCOLS[first.protocol])
        drawn += 1
        content = io.BytesIO()
        draw_panels(shown, truth, found, title=name).save(content, "png")
        path = folder / f"{drawn:02d}-{_file_name(name, set())}.png"
        write_whole(path, content.getvalue(), durable=False)
        yield path
        if drawn == _PANELS:
            return
