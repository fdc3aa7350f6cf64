"""Whether a job's alarms still come as rarely as the model's operating point says.

After each frame the evidence against "the rate is at most the bound" is the mean of likelihood
ratios of some higher rates. It is a nonnegative supermartingale as long as the bound holds, so that
it ever exceeds 1 / a with probability a at most, however long the job is (Ville's inequality).

Sources: Wald, Sequential tests of statistical hypotheses (1945); Ramdas et al., Game-theoretic
statistics and safe anytime-valid inference, arXiv 2210.01948, sections 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from pinglow.errors import OptionError
from pinglow.io.source import Source
from pinglow.models.card import ModelCard, OperatingPoint
from pinglow.output.sink import FrameRecord, Sink

FALSE_WARNINGS: Final = 0.01
"""The share of jobs, of any length, that are warned about although the bound holds; at most."""

_RATIOS: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Times the bound: the rates that are compared with it."""


class AlarmMonitor(Sink):
    """Counts a job's alarms, and warns once when the operating point's bound no longer holds.

    Args:
        point: The model's operating point.
        warn: Is told of it, in one sentence.

    Attributes:
        alarms: Tracks where rates are per hour, else targets.
        exposure: Hours, or frames.
        warned: Whether the bound was left.
    """

    def __init__(self, point: OperatingPoint, warn: Callable[[str], None]) -> None:
        self.point = point
        self.alarms = 0
        self.exposure = 0.0
        self.warned = False
        self._warn = warn
        self._tracks = 0
        self._before: tuple[str | None, float] = (None, 0.0)

    def write(self, record: FrameRecord) -> None:
        """Count a frame and its alarms."""
        targets = record.prediction.targets
        if self.point.unit == "frame":
            self.update(1.0, len(targets))
            return
        assert record.clip is not None  # `make_monitor` has seen to it
        interval = 1 / record.clip.rate
        if record.source == self._before[0] and record.time is not None:
            # Of a camera, that drops frames, the clock tells; time without any frame is none.
            interval = min(max(0.0, record.time - self._before[1]), max(1.0, interval))
        self._before = record.source, record.time or 0.0
        last = max((track for track in record.tracks or () if track is not None), default=0)
        new = max(0, last - self._tracks)  # tracks are numbered on and on
        self._tracks += new
        self.update(interval / 3600, new)

    def update(self, exposure: float, alarms: int) -> None:
        """Count hours, or frames, and the alarms in them."""
        self.exposure += exposure
        self.alarms += alarms
        if self.evidence >= 1 / FALSE_WARNINGS and not self.warned:
            self.warned = True
            self._warn(
                f"alarms come more often than the operating point says: {self.describe()}. What is "
                "filmed has changed, or it holds targets: look at the alarms, or calibrate anew"
            )

    @property
    def evidence(self) -> float:
        """How many times likelier the alarms are under higher rates than under the bound."""
        expected = self.point.bound * self.exposure
        logs = [self.alarms * math.log(ratio) - (ratio - 1) * expected for ratio in _RATIOS]
        # What overflows is far beyond any doubt.
        return math.fsum(math.exp(min(700.0, value)) for value in logs) / len(logs)

    def describe(self) -> str:
        """What was seen, beside the bound."""
        unit = self.point.unit
        span = f"{self.exposure:.3g} hours" if unit == "hour" else f"{self.exposure:,.0f} frames"
        rate = self.alarms / self.exposure if self.exposure else 0.0
        a = "an hour" if unit == "hour" else "a frame"
        return (
            f"{self.alarms} alarm{'s' * (self.alarms != 1)} in {span}, {rate:.3g} {a} (bound "
            f"{self.point.bound:.3g})"
        )


def make_monitor(
    card: ModelCard, min_score: float, sources: Sequence[Source], warn: Callable[[str], None]
) -> AlarmMonitor:
    """A monitor for a job.

    Args:
        card: The model's.
        min_score: Above which the job has targets.
        sources: Of the job.
        warn: See `AlarmMonitor`.

    Raises:
        OptionError: The model has no operating point, or it says nothing about such a job.
    """
    point = card.operating_point
    if point is None:
        raise OptionError(
            f"--monitor needs an operating point, and {card.name} has none: make a model that has "
            "one with pinglow calibrate --clear"
        )
    if min_score < point.min_score:
        raise OptionError(
            f"--monitor counts what scores above {point.min_score:.6g}, and this job asks for "
            f"{min_score:.6g}: leave the sensitivity to the model"
        )
    # A live source, which has no number of frames, says its rate when it is open.
    ends = [source for source in sources if source.frames is not None]
    silent = next((source.name for source in ends if source.rate is None), None)
    if point.unit == "hour" and silent is not None:
        raise OptionError(
            f"--monitor counts alarms an hour, and {silent} has no times: give videos, or "
            "calibrate the model with --alarms-per-frame"
        )
    return AlarmMonitor(point, warn)
