"""The last line of a run that started from weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pinglow.training.gain import Gain, Reached


def test_the_line_says_before_after_interval_and_verdict() -> None:
    random = np.random.default_rng(0)
    hard = random.normal(0, 0.1, 2000)  # what draws of hard frames do to both
    before = Reached(0.5, torch.from_numpy(0.5 + hard))
    after = Reached(0.6, torch.from_numpy(0.6 + hard + random.normal(0, 0.01, 2000)))
    gain = Gain.between("iou", before, after, 200, 40)
    assert gain.difference is not None
    assert gain.difference.interval == pytest.approx((0.08, 0.12), abs=0.003)  # 0.1 ± 1.96 σ
    assert gain.describe().startswith("before -> after: IoU 0.500 -> 0.600, +0.100 [+0.08")
    assert gain.describe().endswith("] over 40 validation frames: better")
    same = Gain.between("iou", before, before, 200, 40)
    assert same.describe().endswith(
        "+0.000 [+0.000, +0.000] over 40 validation frames: no difference shown"
    )


def test_a_start_that_stays_best_and_scores_without_draws_are_said() -> None:
    gain = Gain.between("ap50", Reached(0.5, None), Reached(0.5, None), 0, 40)
    assert gain.describe() == (
        "before -> after: mAP50 0.500 -> 0.500: no validation was better than the start, whose "
        "weights are kept"
    )
    gain = Gain.between("ap50", Reached(0.5, None), Reached(0.75, None), 9, 40)
    assert gain.describe() == "before -> after: mAP50 0.500 -> 0.750"
