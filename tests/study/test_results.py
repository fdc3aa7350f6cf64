"""Results as rows."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from pinglow.errors import DataError
from pinglow.metrics import PROTOCOLS, Scorer
from pinglow.study.results import RunResult, SetResult, read_results, write_result, write_table


def make(**fields: object) -> RunResult:
    content = {"arm": "x", "seed": 0, "loss": "diff", "attention": "free"}
    content |= {"convolution": "plain", "steps": 5, "digest": "d"}
    return RunResult.model_validate({**content, **fields})


def scored(iou: float | None, pd: float | None) -> SetResult:
    report = Scorer(PROTOCOLS["strict"]).compute().to_dict() | {"iou": iou, "pd": pd, "fa": 1e-5}
    report["targets"] = 0 if pd is None else 4
    return SetResult(frames=(), counts=(), report=report)


def test_a_set_without_targets_is_left_out_of_the_mean() -> None:
    result = make(sets={"a": scored(0.5, 0.25), "b": scored(0.0, None)})
    assert result.figure("iou") == 0.5
    assert result.figure("fa") == 1e-5
    assert result.figure("pd") == 0.25
    assert math.isnan(result.figure("niou"))


def test_results_come_back_and_a_table_has_all_columns(tmp_path: Path) -> None:
    results = [make(failure='no, "really"'), make(arm="y", sets={"a": scored(0.5, 0.25)})]
    for result in results:
        write_result(tmp_path, result)
    assert read_results(tmp_path) == results
    write_table(tmp_path, results)
    with (tmp_path / "results.csv").open(newline="") as file:
        failed, done = csv.DictReader(file)
    assert (failed["status"], failed["failure"], failed["iou"]) == ("failed", 'no, "really"', "")
    assert (done["status"], done["iou"], done["a_pd"], done["niou"]) == ("done", "0.5", "0.25", "")


def test_a_result_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path, make(sets={"a": scored(0.5, 0.25)}))
    path = tmp_path / "runs/x-0.json"
    path.write_text(path.read_text().replace('"frames": []', '"frames": ["f"]'))
    with pytest.raises(DataError, match=r"x-0\.json is damaged; delete it"):
        read_results(tmp_path)
