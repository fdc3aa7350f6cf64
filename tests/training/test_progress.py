from __future__ import annotations

import re
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
    bar.advance(1500, 0.25, 3e-4)
    bar.say("validating")
    report: Any = SimpleNamespace(iou=0.5, pd=None, fa=2e-6)
    task.reports = {"clouds": report}
    bar.tell(task, 1500)
    bar.stop()
    shown = capsys.readouterr()
    assert shown.out == ""
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown.err)
    assert "1500/2000" in plain
    assert "loss 0.25, learning rate 3.0e-04" in plain
    assert "step 1500: clouds IoU 0.500 Pd - Fa 2e-6" in shown.err
    assert shown.err.endswith("\x1b[2K")  # the bar is taken away


def test_a_log_file_gets_lines_and_no_bar(
    make_recipe: Callable[..., Recipe],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = SegmentationTask(make_recipe())
    bar = StepsBar()
    clock = iter([0.0, 29.0, 60.0, 61.0])
    monkeypatch.setattr("pinglow.training.progress.time", SimpleNamespace(monotonic=clock.__next__))
    bar.start(10, 20)
    bar.advance(11, 0.5, 1e-3)
    bar.advance(12, 0.25, 3e-4)  # 60 s for two steps, eight are left
    bar.advance(13, 0.125, 3e-4)
    task.reports = {"sea": SimpleNamespace(iou=1.0, pd=1.0, fa=0.0)}
    bar.tell(task, 10)
    bar.stop()
    shown = " ".join(capsys.readouterr().err.split())
    assert shown == (
        "step 12 of 20: loss 0.25, learning rate 3.0e-04, 4 min left "
        "step 10: sea IoU 1.000 Pd 1.000 Fa 0e-6"
    )
