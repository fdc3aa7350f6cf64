"""What the runs of a study left: a JSON file each, and results.csv made from them.

studies/NAME/runs/ARM-SEED.json    scores, counts of every validation frame, learning curve
studies/NAME/results.csv           a row a run, failed ones too
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.metrics import ImageCounts

FIGURES: Final = ("iou", "niou", "pd", "fa")
TARGET_FREE: Final = ("fa",)
"""Those that say something of frames without targets: there one false pixel makes the IoU 0."""


class SetResult(BaseModel):
    """How a run does on the validation frames of one data set.

    Attributes:
        frames: Their names.
        counts: (n, 7), an `ImageCounts` of each.
        report: A `Report` as plain values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: tuple[str, ...]
    counts: tuple[tuple[int, int, int, int, int, int, int], ...]
    report: dict[str, Any]

    @model_validator(mode="after")
    def _check_whole(self) -> SetResult:
        if len(self.counts) != len(self.frames):
            raise ValueError("frames and counts differ in number")
        if not {*FIGURES, "targets", "roc"} <= set(self.report):
            raise ValueError("the report lacks figures")
        return self

    def table(self) -> NDArray[np.int64]:
        """(n, 7) counts."""
        width = len(ImageCounts._fields)
        return np.array(self.counts, dtype=np.int64).reshape(-1, width)


class RunResult(BaseModel):
    """One run of a study: its scores after its last step, or why it failed.

    Attributes:
        failure: Empty where the run came to its end.
        curve: Rows of the run's metrics.csv.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    seed: int
    loss: str
    attention: str
    convolution: str
    steps: int
    digest: str
    failure: str = ""
    minutes: float = 0.0
    parameters: int = 0
    sets: dict[str, SetResult] = {}
    curve: tuple[dict[str, str], ...] = ()

    def figure(self, key: str) -> float:
        """Mean of a score over the data sets that it says something of; NaN where none has it."""
        reports = [each.report for each in self.sets.values()]
        values = [report[key] for report in reports if report["targets"] or key in TARGET_FREE]
        defined = [value for value in values if value is not None]
        return float(np.mean(defined)) if defined else float("nan")

    def on(self, name: str) -> RunResult:
        """The run as scored on one data set alone; without scores where it was not scored on it."""
        alone = {name: self.sets[name]} if name in self.sets else {}
        return self.model_copy(update={"sets": alone})

    def row(self) -> dict[str, Any]:
        """One row of results.csv; scores are means over the data sets, then of each."""
        row: dict[str, Any] = {
            "arm": self.arm,
            "loss": self.loss,
            "attention": self.attention,
            "convolution": self.convolution,
            "seed": self.seed,
            "steps": self.steps,
            "status": "failed" if self.failure else "done",
        }
        row |= {key: "" if self.failure else _short(self.figure(key)) for key in FIGURES}
        row["minutes"] = round(self.minutes, 2)
        for name, each in self.sets.items():
            row |= {f"{name}_{key}": _short(each.report[key]) for key in FIGURES}
        row["failure"] = self.failure
        return row


def read_results(folder: Path) -> list[RunResult]:
    """All results in a study's folder, by name.

    Raises:
        DataError: A file is damaged.
    """
    results = []
    for path in sorted((folder / "runs").glob("*.json")):
        try:
            results.append(RunResult.model_validate_json(path.read_text(encoding="utf-8")))
        except (ValidationError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is damaged; delete it, and its run is made again") from error
    return results


def result_path(folder: Path, name: str) -> Path:
    """Where a study's folder keeps the result of a run, by its name."""
    return folder / "runs" / f"{name}.json"


def write_result(folder: Path, result: RunResult) -> None:
    """Keep a result; a file appears only when it is whole."""
    path = result_path(folder, f"{result.arm}-{result.seed}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(result.model_dump(mode="json")).encode() + b"\n")


def write_table(folder: Path, results: Sequence[RunResult]) -> None:
    """Write results.csv anew, in the order given."""
    rows = [result.row() for result in results]
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "failure"))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "failure"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / "results.csv", text.getvalue().encode())


def _short(value: float | None) -> float | str:
    return "" if value is None or np.isnan(value) else float(f"{value:.6g}")
