"""What a comparison is written as: tables for people, for programs and for papers, and curves."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np

from pinglow.evaluation.compare import Comparison, Row
from pinglow.extras import import_extra
from pinglow.files import write_whole
from pinglow.metrics.report import ROC_LIMIT, Report
from pinglow.metrics.scores import SCORES
from pinglow.terminal import escape_controls
from pinglow.training.curves import save_figure

SIZES_TITLE: Final = "Pd, %, by the target's true area (number of targets):"

_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Those of Okabe and Ito, which the color-blind can tell apart."""

_DASHES: Final = ("-", "--", "-.", ":")
_TEX: Final = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
}


def write_tables(comparison: Comparison, folder: Path) -> None:
    """Write table.csv, table.md and table.tex into a folder.

    Raises:
        OSError: One cannot be written.
    """
    for name, make in (
        ("table.csv", _to_csv),
        ("table.md", _to_markdown),
        ("table.tex", _to_tex),
    ):
        write_whole(folder / name, make(comparison).encode())


def describe(comparison: Comparison) -> str:
    """What was compared on what, in a sentence or two."""
    first = comparison.first
    results, report = first.results, first.report
    text = (
        f"List {results.list} of {Path(results.data).name}, {report.images} frames with "
        f"{report.targets} targets, protocol {report.protocol}, {_thresholds(comparison)}, "
        f"pinglow {results.pinglow}."
    )
    if comparison.left_out:
        text += f" Left out of all, because one method has no scores: {len(comparison.left_out)}."
    return text


def _thresholds(comparison: Comparison) -> str:
    if len({row.results.threshold for row in comparison.rows}) == 1:
        return f"threshold {comparison.first.results.threshold:g}"
    own = (f"{row.name} {row.results.threshold:g}" for row in comparison.rows)
    return f"thresholds {', '.join(own)}"


def explain(comparison: Comparison) -> str:
    """How intervals and differences are to be read."""
    return (
        "In brackets: bootstrap 95 % intervals over frames. Differences are to "
        f"{comparison.first.name}, frame by frame; no difference is shown where the interval "
        "holds 0. Each stands for itself: of twenty, one may miss by chance."
    )


def score_cells(row: Row) -> list[tuple[str, str]]:
    """A method's scores and their intervals, as text."""
    return [
        (_show(key, getattr(row.report, key)), _ends(key, row.report.ci95[key]))
        for key in row.results.shown
    ]


def difference_cells(row: Row) -> list[tuple[str, str, str]]:
    """A method's differences to the first, their intervals and verdicts, as text."""
    cells = []
    for key in row.results.shown:
        found = row.differences.get(key)
        if found is None:
            cells.append(("-", "-", "-"))
        else:
            ends = _ends(key, found.interval, "+")
            cells.append((_show(key, found.value, "+"), ends, found.verdict))
    return cells


def size_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of Pd by the true area; sizes without any target are left out."""
    found = [row.results.find_sizes(comparison.names) for row in comparison.rows]
    sizes = {size: targets for size, (targets, _) in found[0].items() if targets}
    head = ["", *(f"{size} px ({targets})" for size, targets in sizes.items())]
    rows = []
    for row, own in zip(comparison.rows, found, strict=True):
        rows.append([row.name, *(_show("pd", own[size][1] / sizes[size]) for size in sizes)])
    return head, rows


def _show(key: str, value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value * SCORES[key].factor:{sign}.1f}"


def _ends(key: str, interval: tuple[float, float] | None, sign: str = "") -> str:
    return "-" if interval is None else f"[{', '.join(_show(key, e, sign) for e in interval)}]"


# --- tables --------------------------------------------------------------------------------------


def _to_csv(comparison: Comparison) -> str:
    """A row for each method, all numbers as fractions in full precision."""
    rows = []
    for row in comparison.rows:
        report = row.report
        line: dict[str, Any] = {
            "method": row.name,
            "protocol": report.protocol,
            "threshold": report.threshold,
            "frames": report.images,
            "targets": report.targets,
        }
        for key in row.results.compared:
            low, high = report.ci95[key] or (None, None)
            line |= {key: getattr(report, key), f"{key}_low": low, f"{key}_high": high}
        if isinstance(report, Report):
            line["roc_area"] = report.roc.area
        for size, (targets, found) in row.results.find_sizes(comparison.names).items():
            pd = found / targets if targets else None
            line |= {f"targets_{size}": targets, f"pd_{size}": pd}
        line["compared_with"] = "" if row is comparison.first else comparison.first.name
        for key in row.results.compared:
            change = row.differences.get(key)
            low, high = (None, None) if change is None else change.interval
            line |= {
                f"{key}_difference": None if change is None else change.value,
                f"{key}_difference_low": low,
                f"{key}_difference_high": high,
                f"{key}_verdict": None if change is None else change.verdict,
            }
        rows.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _to_markdown(comparison: Comparison) -> str:
    head = ["method", *(SCORES[key].heading for key in comparison.first.results.shown)]
    rows = []
    for row in comparison.rows:
        rows.append([row.name, *(" ".join(cell) for cell in score_cells(row))])
        if row.differences:
            cells = (f"{v} {e} {words}" for v, e, words in difference_cells(row))
            rows.append([f"difference to {comparison.first.name}", *cells])
    sizes, by_size = size_rows(comparison)
    blocks = [
        describe(comparison),
        _markdown_table(head, rows),
        explain(comparison),
        SIZES_TITLE,
        _markdown_table(["method", *sizes[1:]], by_size),
    ]
    return "\n\n".join(blocks) + "\n"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    cells = ([_plain(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _to_tex(comparison: Comparison) -> str:
    """A table of booktabs."""
    head = [_to_latex(SCORES[key].heading) for key in comparison.first.results.shown]
    lines = [
        r"% needs \usepackage{booktabs}",
        f"% {_plain(describe(comparison))}",
        f"% {_plain(explain(comparison))}",
        rf"\begin{{tabular}}{{l{'r' * len(head)}}}",
        r"\toprule",
        " & ".join(["method", *head]) + r" \\",
        r"\midrule",
    ]
    for row in comparison.rows:
        lines.append(_tex_row(_to_latex(row.name), [value for value, _ in score_cells(row)]))
        lines.append(_tex_row("", [_small(ends) for _, ends in score_cells(row)]))
        if row.differences:
            found = difference_cells(row)
            name = rf"\quad difference to {_to_latex(comparison.first.name)}"
            lines.append(_tex_row(name, [_math(value) for value, _, _ in found]))
            lines.append(_tex_row("", [_small(_math(ends)) for _, ends, _ in found]))
            lines.append(_tex_row("", [_small(words) for _, _, words in found]))
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def _tex_row(name: str, cells: Sequence[str]) -> str:
    return " & ".join([name, *cells]) + r" \\"


def _small(text: str) -> str:
    return rf"{{\scriptsize {text}}}"


def _math(text: str) -> str:
    return text if text == "-" else f"${text}$"


def _to_latex(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda found: _TEX[found[0]], _plain(text))


def _plain(text: str) -> str:
    """A name that stays in its line, and on a terminal harmless."""
    return escape_controls(text)


# --- curves --------------------------------------------------------------------------------------


def draw_roc(comparison: Comparison, path: Path) -> None:
    """Draw Pd against Fa, and precision against recall, of all methods; dots: at the threshold.

    Neither need rise or fall with the threshold. So the lines are the best Pd that is reached with
    no more Fa, see `Roc.area`, and the best precision with no less recall.

    Raises:
        MissingExtraError: Matplotlib is not installed.
        OSError: The file cannot be written.
    """
    figure_of: Callable[..., Any] = import_extra("matplotlib.figure", "train", "roc.png").Figure
    figure = figure_of(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    lowest = 1.0
    for place, (row, color) in enumerate(zip(comparison.rows, cycle(_COLORS))):
        report = row.report
        style = {"color": color, "linestyle": _DASHES[place // len(_COLORS) % len(_DASHES)]}
        found = row.results.trade_off(comparison.names)
        recall = found.matches / max(1, found.targets)
        fa = found.false_area / max(1, found.pixels)
        label = escape_controls(row.name)
        order = np.argsort(fa, kind="stable")
        best = np.maximum.accumulate(recall[order])
        left.step(1e6 * fa[order], 100 * best, where="post", label=label, **style)
        some = found.found > 0  # elsewhere there is no precision
        order = np.argsort(-recall[some], kind="stable")
        best = np.maximum.accumulate((found.matches[some] / found.found[some])[order])
        right.step(100 * recall[some][order], 100 * best, where="post", **style)
        if report.fa is not None and report.pd is not None:
            left.plot(1e6 * report.fa, 100 * report.pd, "o", color=color)
            lowest = min(lowest, report.pd)
        if report.precision is not None and report.pd is not None:
            right.plot(100 * report.pd, 100 * report.precision, "o", color=color)
    limit = 1e6 * ROC_LIMIT
    left.set_xscale("symlog", linthresh=1)
    left.set(xlabel="Fa, false pixels a million", ylabel="Pd, %", xlim=(0, 10 * limit))
    right.set(xlabel="recall (Pd), %", ylabel="precision, %", xlim=(0, 101), ylim=(0, 101))
    left.set_ylim(max(0.0, 100 * lowest - 30), 101)
    left.set_title(f"dots: at {_thresholds(comparison)}", fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    for text in left.legend(fontsize=9, loc="lower right").get_texts():
        text.set_parse_math(False)  # a name with $ in it
    save_figure(figure, path, 120)
