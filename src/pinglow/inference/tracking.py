"""Link targets over time with the library `trackers`. docs/decisions/tracking.md says why so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from pinglow.extras import import_extra
from pinglow.structures import Target

_REACH: Final = 12.0  # pixels around a target in which it is looked for in the next frame
_KEPT: Final = 0.5  # seconds that a track lives on without a target
_CONFIRMED: Final = 3  # targets in a row that make a track


class OcSortTracker:
    """OC-SORT (arXiv 2203.14360) on boxes that are widened, because tiny ones hardly overlap.

    Args:
        rate: Frames a second.

    Raises:
        MissingExtraError: The library is not installed.
    """

    def __init__(self, rate: float) -> None:
        trackers = import_extra("trackers", "video", "tracking")
        self._detections = import_extra("supervision", "video", "tracking").Detections
        self._tracker = trackers.OCSORTTracker(
            lost_track_buffer=max(1, round(_KEPT * rate)),
            frame_rate=30.0,  # the buffer is given in frames
            minimum_consecutive_frames=_CONFIRMED,
            minimum_iou_threshold=0.05,
            high_conf_det_threshold=0.5,
        )
        self._numbers: dict[int, int] = {}

    def update(self, targets: Sequence[Target]) -> tuple[int | None, ...]:
        """Number the track of each target of the next frame, from 1; None: of none yet."""
        boxes = [
            (left - _REACH, top - _REACH, left + width + _REACH, top + height + _REACH)
            for left, top, width, height in (target.bbox for target in targets)
        ]
        linked = self._tracker.update(
            self._detections(
                xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
                confidence=np.array([target.score for target in targets], dtype=np.float32),
                class_id=np.zeros(len(targets), dtype=int),
                data={"place": np.arange(len(targets))},
            )
        )
        found: list[int | None] = [None] * len(targets)
        if linked.tracker_id is None or not len(linked):
            return tuple(found)
        for place, track in zip(linked.data["place"], linked.tracker_id, strict=True):
            if track >= 0:
                number = self._numbers.setdefault(int(track), len(self._numbers) + 1)
                found[int(place)] = number
        return tuple(found)
