"""The tables of scores: of one model, or a row for each of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import RenderableType
from rich.table import Table

from pinglow.console import Console
from pinglow.metrics import PROTOCOLS, BoxReport, Report
from pinglow.metrics.scores import SCORES

if TYPE_CHECKING:
    from pinglow.evaluation.compare import Comparison

_OF_TARGETS: Final = ("precision", "recall", "f1", "false_alarms_per_image")
_OF_PIXELS: Final = ("iou", "niou", "pd", "fa")
_OF_BOXES: Final = ("ap50", "ap", "pd", "fa")
_SUMMARIES: Final = {
    "boxes": "average precision by COCO's rules; centers by optimal one-to-one matching",
    "boxes-greedy": "average precision by COCO's rules; centers by first-come matching",
}


@dataclass(frozen=True)
class Scored:
    """Scores, and whose they are.

    Attributes:
        title: What a table calls it.
        origin: What is known of it, ready for JSON: its hashes, the data, the version.
        reports: Its scores, by protocol.
    """

    title: str
    origin: dict[str, Any]
    reports: Sequence[Report | BoxReport]

    def to_list(self) -> list[dict[str, Any]]:
        """A dictionary for each report, ready for JSON."""
        return [self.origin | report.to_dict() for report in self.reports]


def print_scores(scored: Sequence[Scored], truth: str, stderr: bool) -> None:
    """Print tables of scores, protocol by protocol.

    Args:
        scored: Reports by the same protocols.
        truth: What they were compared with: folder, list and kind.
        stderr: Print there, not to standard output.
    """
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    for each in scored:
        # The start of a hash is enough to tell files apart.
        kind = "model" if "model" in each.origin else "predictions"
        hashes = [f"{value[:12]} ({file})" for file, value in each.origin.get("sha256", {}).items()]
        console.print(f"{kind} {each.title}" + (f", SHA-256 {', '.join(hashes)}" if hashes else ""))
    console.print(f"{truth}; pinglow {scored[0].origin['pinglow']}")
    for reports in zip(*(each.reports for each in scored), strict=True):
        name = reports[0].protocol
        summary = _SUMMARIES.get(name) or PROTOCOLS[name].summary
        console.print()
        console.print(f"protocol {name}: {summary}")
        console.print(_describe(reports))
        blocks: list[RenderableType] = []
        if len(reports) > 1:
            blocks.append(_compare([each.title for each in scored], reports))
        else:
            blocks += _detail(reports[0])
        for block in blocks:
            console.print()
            console.print(block)


def _describe(reports: Sequence[Report | BoxReport]) -> str:
    """How many frames and targets, and the threshold where there is one for all."""
    images, targets, thresholds = (
        list(dict.fromkeys(values))
        for values in zip(*((r.images, r.targets, r.threshold) for r in reports), strict=True)
    )
    text = f"images: {', '.join(map(str, images))}, targets: {', '.join(map(str, targets))}"
    if len(thresholds) == 1:
        text += f", threshold: {thresholds[0]:.9g}"
        if reports[0].protocol in PROTOCOLS and thresholds[0] != 0.5:
            text += " (not the protocol's 0.5)"
    return text


def _keys(report: Report | BoxReport) -> tuple[str, ...]:
    return (*(_OF_PIXELS if isinstance(report, Report) else _OF_BOXES), *_OF_TARGETS)


def _compare(titles: Sequence[str], reports: Sequence[Report | BoxReport]) -> Table:
    """A row for each model, with the scores that fit into a line."""
    keys = [key for key in _keys(reports[0]) if key not in ("precision", "recall")]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    one_threshold = len({report.threshold for report in reports}) == 1  # which is said above
    for heading in (*(SCORES[key].heading for key in keys), *["threshold"] * (not one_threshold)):
        table.add_column(heading, justify="right")
    for title, report in zip(titles, reports, strict=True):
        cells = [SCORES[key].show(getattr(report, key)) for key in keys]
        table.add_row(title, *cells, *[f"{report.threshold:.9g}"] * (not one_threshold))
    return table


def _detail(report: Report | BoxReport) -> list[RenderableType]:
    """All of a model's scores, with their intervals."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    table.add_column("score", justify="right", style="bold")
    table.add_column("")
    table.add_column("95 % interval", justify="right")
    for key in _keys(report):
        score, interval = SCORES[key], report.ci95.get(key)
        ends = "-" if interval is None else f"[{', '.join(map(score.show, interval))}]"
        table.add_row(score.name, score.show(getattr(report, key)), score.unit, ends)
    if not isinstance(report, Report):
        return [table, _say(report)]
    sizes = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    sizes.add_column("true area, px")
    for column in ("targets", "detected", "Pd, %", "IoU where detected, %"):
        sizes.add_column(column, justify="right")
    for row in report.per_size:
        counts = (row.size, str(row.targets), str(row.detected))
        sizes.add_row(*counts, SCORES["pd"].show(row.pd), SCORES["iou"].show(row.iou))
    roc = report.roc
    area = "-" if roc.area is None else f"{roc.area:.4f}"
    curve = f"area under Pd against Fa, up to Fa {roc.limit * 1e6:g}e-6: {area}"
    return [table, sizes, curve, _say(report)]


def _say(report: Report | BoxReport) -> str:
    """The scores in words, for a person who does not know their names."""
    found = round((report.pd or 0) * report.targets)
    false = round((report.false_alarms_per_image or 0) * report.images)
    targets = f"{found} of {report.targets} targets were found (Pd)"
    alarms = f"{false} false alarm{'s' * (false != 1)} in {report.images} frames"
    area = f"covering {SCORES['fa'].show(report.fa, 1)} of a million pixels (Fa)"
    text = f"in words: {targets if report.targets else 'there are no targets'}; {alarms}"
    text += f", {area}" if false else ""
    if isinstance(report, Report) and found and report.iou is not None:
        text += f"; {report.iou:.0%} of all pixels drawn or true are both (IoU)"
    return text


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison on standard output."""
    from pinglow.evaluation.compare_files import (
        SIZES_TITLE,
        describe,
        difference_cells,
        explain,
        score_cells,
        size_rows,
    )

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(describe(comparison))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    for key in comparison.first.results.shown:
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
    for block in ("", table, "", explain(comparison), "", SIZES_TITLE, sizes):
        console.print(block)
