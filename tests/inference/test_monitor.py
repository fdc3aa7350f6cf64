from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pinglow.errors import OptionError
from pinglow.inference.monitor import FALSE_WARNINGS, AlarmMonitor, make_monitor
from pinglow.io.source import Source
from pinglow.models.card import ModelCard, OperatingPoint
from pinglow.output.sink import FrameRecord
from pinglow.structures import Clip, Detections

POINT = OperatingPoint(
    min_score=0.6,
    unit="hour",
    wished=2.0,
    alarms=1,
    rate=0.5,
    bound=2.0,
    confidence=0.95,
    hours=2.0,
    frames=100,
    clips=4,
)
CARD = ModelCard(name="m", network={"type": "PinwheelUNet"}, parameters=1)


def watch(rate: float, hours: int, seed: int) -> bool:
    """Whether a job with alarms at a rate is warned about."""
    monitor = AlarmMonitor(POINT, lambda text: None)
    for alarms in np.random.default_rng(seed).poisson(rate / 5, 5 * hours):
        monitor.update(1 / 5, int(alarms))
        if monitor.warned:
            return True
    return False


def test_at_the_bound_one_job_in_100_is_warned_about_however_long() -> None:
    warned = sum(watch(2.0, 40, seed) for seed in range(150))
    assert warned <= FALSE_WARNINGS * 150 + 2.6 * (FALSE_WARNINGS * 150) ** 0.5


def test_beyond_the_bound_every_job_is() -> None:
    assert all(watch(6.0, 20, seed) for seed in range(15))


def test_the_evidence_is_a_mean_of_likelihood_ratios() -> None:
    from scipy.stats import poisson

    monitor = AlarmMonitor(POINT, lambda text: None)
    monitor.update(1.5, 4)
    ratios = [poisson.pmf(4, 3.0 * r) / poisson.pmf(4, 3.0) for r in (1.25, 1.5, 2, 3, 5, 10)]
    assert monitor.evidence == pytest.approx(float(np.mean(ratios)))
    monitor.update(0.0, 10**6)
    assert np.isfinite(monitor.evidence)


def record(tracks: tuple[int | None, ...], time: float = 0.0) -> FrameRecord:
    boxes = np.tile([3.0, 3.0, 2.0, 2.0], (len(tracks), 1)).reshape(-1, 4)
    found = Detections(boxes, np.ones(len(tracks)))
    frame = np.zeros((8, 8))
    return FrameRecord("a.mp4", 0, "a", frame, found, time, Clip("a", 10.0), tracks)


def test_each_track_is_one_alarm_and_is_told_of_once() -> None:
    said: list[str] = []
    monitor = AlarmMonitor(POINT, said.append)
    for place, tracks in enumerate([(), (None,), (1,), (1, None), (1, 2), (2,), (2,)]):
        monitor.write(record(tracks, place / 10))
    assert monitor.alarms == 2
    assert monitor.exposure == pytest.approx(7 / 10 / 3600)
    monitor.write(record((2,), 0.8))  # one was dropped
    monitor.write(record((2,), 60.8))  # a minute without a frame is no footage
    assert monitor.exposure == pytest.approx(1.9 / 3600)
    assert said == []
    for number in range(3, 9):
        monitor.write(record((number,)))
    assert len(said) == 1
    assert "an hour (bound 2)" in said[0]


def test_targets_are_the_alarms_where_rates_are_per_frame() -> None:
    per_frame = POINT.model_copy(update={"unit": "frame", "bound": 0.1})
    monitor = AlarmMonitor(per_frame, lambda text: None)
    monitor.write(record((None, None, None)))
    assert (monitor.alarms, monitor.exposure) == (3, 1.0)
    assert monitor.describe() == "3 alarms in 1 frames, 3 a frame (bound 0.1)"


def test_what_cannot_be_monitored() -> None:
    video, still = Source(Path("a.mp4"), 10, rate=25.0), Source(Path("a.png"), 1)
    calibrated = CARD.model_copy(update={"operating_point": POINT})
    with pytest.raises(OptionError, match="m has none"):
        make_monitor(CARD, 0.6, [video], print)
    with pytest.raises(OptionError, match=r"scores above 0\.6"):
        make_monitor(calibrated, 0.5, [video], print)
    with pytest.raises(OptionError, match=r"a\.png has no times"):
        make_monitor(calibrated, 0.6, [video, still], print)
    live = Source("rtsp://camera", None)  # says its rate when it is open
    assert make_monitor(calibrated, 0.7, [video, live], print).point is POINT
