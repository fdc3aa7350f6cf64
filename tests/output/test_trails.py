"""Where tracks were in the last second."""

from __future__ import annotations

import numpy as np
import pytest

from pinglow.output.sink import FrameRecord
from pinglow.output.trails import Trails
from pinglow.structures import Clip, Prediction


def make_record(number: int, x: int, *, rate: float | None, name: str = "c") -> FrameRecord:
    probability = np.zeros((20, 200), np.float32)
    probability[10, x] = 0.9
    return FrameRecord(
        source=name,
        page=number,
        name=name,
        frame=probability,
        prediction=Prediction(probability),
        time=None if rate is None else number / rate,
        clip=None if rate is None else Clip(name, rate),
        tracks=(7,),
    )


@pytest.mark.parametrize(("rate", "speed"), [(10.0, "20 px/s"), (None, "2.0 px/frame")])
def test_a_trail_is_a_second_or_some_frames_long(rate: float | None, speed: str) -> None:
    trails = Trails()
    for number in range(40):
        trail = trails.update(make_record(number, 2 * number, rate=rate))[7]
        assert trail.speed == (speed if number >= 2 else "")
    newest = [(2.0 * number, 10.0) for number in range(40)]
    assert list(trail.points) == newest[-11:] if rate else newest[-26:]


def test_another_clip_starts_without_trails_and_what_is_not_tracked_has_none() -> None:
    trails = Trails()
    for number in range(3):
        trails.update(make_record(number, number, rate=10.0))
    assert len(trails.update(make_record(0, 5, rate=10.0, name="d"))[7].points) == 1
    plain = FrameRecord("e", 0, "e", np.zeros((4, 4)), Prediction(np.zeros((4, 4), np.float32)))
    assert trails.update(plain) == {}
