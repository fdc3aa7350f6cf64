"""Trails: where each track was lately, and how fast it goes."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from pinglow.output.sink import FrameRecord

_SECONDS: Final = 1.0
_FRAMES: Final = 25  # where there are no times
_FEWEST: Final = 3  # points that tell a speed


@dataclass(frozen=True)
class Trail:
    """The way of a track in the last second, or the last 25 frames of what has no times.

    Attributes:
        points: x and y of its target in each frame where it was found, the oldest first.
        speed: Along the straight line from the oldest to the newest point, in words such as
            ``62 px/s``; empty where too few points tell. It is that in the picture, so that a
            camera that moves adds to it.
    """

    points: tuple[tuple[float, float], ...]
    speed: str


class Trails:
    """Collects the targets of tracks, frame after frame."""

    def __init__(self) -> None:
        self._points: dict[int, deque[tuple[float, float, float]]] = {}
        self._clip: object = None
        self._frame = 0

    def update(self, record: FrameRecord) -> dict[int, Trail]:
        """Take a frame in, and return the trails of the tracks that were seen lately."""
        if record.tracks is None:
            return {}
        if record.clip != self._clip:
            self._points, self._clip = {}, record.clip
        self._frame += 1
        timed = record.time is not None
        now = float(self._frame) if record.time is None else record.time
        for target, track in zip(record.prediction.targets, record.tracks, strict=True):
            if track is not None:
                self._points.setdefault(track, deque()).append((now, target.x, target.y))
        oldest = now - (_SECONDS if timed else _FRAMES)
        for points in self._points.values():
            while points and not oldest <= points[0][0] <= now:
                points.popleft()
        self._points = {track: points for track, points in self._points.items() if points}
        unit = "px/s" if timed else "px/frame"
        return {track: _make_trail(points, unit) for track, points in self._points.items()}


def _make_trail(points: deque[tuple[float, float, float]], unit: str) -> Trail:
    (first, x0, y0), (last, x1, y1) = points[0], points[-1]
    speed = ""
    if len(points) >= _FEWEST and last > first:
        value = math.hypot(x1 - x0, y1 - y0) / (last - first)
        speed = f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return Trail(tuple((x, y) for _, x, y in points), speed)
