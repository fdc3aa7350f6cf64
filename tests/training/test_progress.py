from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pinglow.training.progress import StepsBar
from pinglow.training.recipe import Recipe
from pinglow.training.segmentation import SegmentationTask


def test_it_counts_steps_and_prints_each_validation(
    make_recipe: Callable[..., Recipe],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    task = SegmentationTask(make_recipe())
    bar = StepsBar()
    bar.start(1000, 2000)
    bar.advance(1500)
    bar.say("validating")
    report: Any = SimpleNamespace(iou=0.5, pd=None, fa=2e-6)
    task.reports = {"clouds": report}
    bar.tell(task, 1500)
    bar.stop()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "1500/2000" in shown.err.replace("\x1b[32m", "").replace("\x1b[0m", "")
    assert "step 1500: clouds IoU 0.500 Pd - Fa 2e-6" in shown.err
    assert shown.err.endswith("\x1b[2K")  # the bar is taken away


def test_a_log_file_gets_the_scores_and_no_bar(
    make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    task = SegmentationTask(make_recipe())
    bar = StepsBar()
    bar.start(10, 20)
    task.reports = {"sea": SimpleNamespace(iou=1.0, pd=1.0, fa=0.0)}
    bar.tell(task, 10)
    bar.stop()
    shown = " ".join(capsys.readouterr().err.split())
    assert shown == "step 10: sea IoU 1.000 Pd 1.000 Fa 0e-6"
