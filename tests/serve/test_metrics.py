"""Drift of the input, and sums over an hour."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from pinglow.serve import metrics
from pinglow.serve.metrics import Drift


def test_drift_is_the_kolmogorov_smirnov_distance() -> None:
    rng = np.random.default_rng(0)
    first, last = rng.normal(0, 1, 200), rng.normal(0.5, 2, 200)
    drift = Drift(200)
    for value in (*first, *rng.normal(9, 1, 50), *last):
        drift.add(float(value))
    assert drift.distance() == pytest.approx(ks_2samp(first, last).statistic)
    assert drift.middle() == pytest.approx(np.median(last))


def test_there_is_no_drift_before_it_can_be_known() -> None:
    drift = Drift(3)
    assert math.isnan(drift.middle())
    for value in (1.0, 2.0):
        drift.add(value)
        assert drift.distance() == 0
    for _ in range(3):
        drift.add(7.0)
    assert drift.distance() == pytest.approx(2 / 3)  # 1, 2, 7 against 7, 7, 7
    for _ in range(3):
        drift.add(1.0)
    assert drift.distance() == pytest.approx(2 / 3)


def test_an_hour_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    alarms = metrics._LastHour()
    for now[0], count in ((0.0, 1), (0.5, 2), (1800.0, 4)):
        alarms.add(count)
    assert alarms.total() == 7
    now[0] = 3601.5
    assert alarms.total() == 4
    now[0] = 5500.0
    assert alarms.total() == 0
