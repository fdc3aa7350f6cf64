"""What a run shows of itself while it goes: metrics.csv and curves.png."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pinglow.errors import DataError
from pinglow.files import read_whole, write_whole
from pinglow.metrics.scores import SCORES

_LARGEST: Final = 2**26  # bytes of metrics.csv
_NEEDED: Final = ("step", "minutes", "train_loss")

Row = dict[str, str]


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and whole rows of a metrics.csv; a killed writer may have left a part of one.

    Raises:
        DataError: It is no such table.
    """
    if not path.exists():
        return [], []
    try:
        lines = list(csv.reader(io.StringIO(read_whole(path, _LARGEST).decode(), newline="")))
        columns = lines[0] if lines else []
        rows = [dict(zip(columns, line, strict=True)) for line in lines[1:] if _fits(line, columns)]
        for row in rows:
            if not set(_NEEDED) <= row.keys() or not 0 <= int(row["step"]) < 2**63:
                raise ValueError("a column is missing or has no number")
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} is not a table that pinglow train has written ({error}); delete it, and the "
            "run goes on without its rows"
        ) from error
    return columns, rows


def _fits(line: list[str], columns: list[str]) -> bool:
    return len(line) == len(columns)


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a metrics.csv, whole or not at all; without rows, remove it."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def draw_curves(run: Path, figure_name: str) -> None:
    """Draw curves.png from metrics.csv: a validation figure and training loss against minutes."""
    from matplotlib.figure import Figure

    columns, rows = read_rows(run / "metrics.csv")
    minutes = [_number(row["minutes"]) for row in rows]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for column in columns:
        name = column.removesuffix(f"_{figure_name}")
        # A set without targets has no Pd, and no IoU worth a curve.
        if name != column and any(row.get(f"{name}_pd") for row in rows):
            values = [_number(row[column]) for row in rows]
            left.plot(minutes, values, marker=".", label=name)
    label = f"validation {SCORES[figure_name].name}"
    left.set(xlabel="minutes of training", ylabel=label, ylim=(0, 1))
    if left.lines:
        left.legend()
    right.plot(minutes, [_number(row["train_loss"]) for row in rows], marker=".")
    right.set(xlabel="minutes of training", ylabel="training loss")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save_figure(figure, run / "curves.png", 110)


def save_figure(figure: Any, path: Path, dpi: int) -> None:
    """Write a figure of matplotlib as a PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    write_whole(path, content.getvalue(), durable=False)  # can be drawn again


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # empty, where there is none
        return math.nan
