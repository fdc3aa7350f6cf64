"""Link targets over time with the library `trackers`. docs/decisions/tracking.md says why so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from pinglow.extras import import_extra
from pinglow.structures import Target

_REACH: Final = 24.0  # pixels around a target in which it is looked for in the next frame
_KEPT: Final = 0.5  # seconds that a track lives on without a target
_CONFIRMED: Final = 3  # targets that make a track; at the start of a sequence, one less


class TargetTracker:
    """A tracker of boxes, on targets that are widened: tiny boxes hardly overlap in time.

    Args:
        tracker: One of the library's trackers.
        reach: Pixels that a target's box is widened by on each side.

    Raises:
        MissingExtraError: The library is not installed.
    """

    def __init__(self, tracker: Any, reach: float = _REACH) -> None:
        self._detections = import_extra("supervision", "video", "tracking").Detections
        self._tracker = tracker
        self._reach = reach
        self._numbers: dict[int, int] = {}

    def update(self, targets: Sequence[Target]) -> tuple[int | None, ...]:
        """Number the track of each target of the next frame, from 1; None: of none yet."""
        boxes = np.array([target.bbox for target in targets], dtype=np.float32).reshape(-1, 4)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        linked = self._tracker.update(
            self._detections(
                xyxy=corners + np.array([-1, -1, 1, 1], dtype=np.float32) * self._reach,
                confidence=np.array([target.score for target in targets], dtype=np.float32),
                class_id=np.zeros(len(targets), dtype=int),
                data={"place": np.arange(len(targets))},
            )
        )
        found: list[int | None] = [None] * len(targets)
        if len(linked) and linked.tracker_id is not None:
            for place, track in zip(linked.data["place"], linked.tracker_id, strict=True):
                if track >= 0:
                    number = self._numbers.setdefault(int(track), len(self._numbers) + 1)
                    found[int(place)] = number
        return tuple(found)


def make_tracker(rate: float) -> TargetTracker:
    """A tracker for frames at a rate, in frames a second: SORT (arXiv 1602.00763).

    Raises:
        MissingExtraError: The library is not installed.
    """
    trackers = import_extra("trackers", "video", "tracking")
    return TargetTracker(
        trackers.SORTTracker(
            lost_track_buffer=max(1, round(_KEPT * rate)),
            frame_rate=30.0,  # at which the buffer counts frames
            track_activation_threshold=0.0,  # what is a target has been decided already
            minimum_consecutive_frames=_CONFIRMED,
            minimum_iou_threshold=0.05,
        )
    )
