"""Link targets over time with the library `trackers`. docs/decisions/tracking.md says why so."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import OptionError
from pinglow.extras import import_extra
from pinglow.inference.camera_motion import CameraMotion
from pinglow.structures import Detections, Prediction

_REACH: Final = 24.0  # pixels around a target in which it is looked for in the next frame
_KEPT: Final = 0.5  # seconds that a track lives on without a target
_CONFIRMED: Final = 3  # targets that make a track; at the start of a sequence, one less


class Tracker:
    """Numbers the targets of a sequence of frames that belong together: SORT (arXiv 1602.00763).

    Boxes are widened before they are compared: tiny ones hardly overlap in time. Where the camera
    moves, targets are linked by their places in the scene.

        tracker = pinglow.Tracker(rate=30)
        for frame in frames:
            prediction = predictor(frame)
            tracks = tracker.update(prediction, frame)

    Args:
        rate: Frames a second.
        compensate: Take the camera's own motion out, where frames say clearly what it is.
        reach: Pixels that a target's box is widened by on each side.
        links: One of the library's trackers, in the place of SORT.

    Raises:
        OptionError: The rate is not above 0.
        MissingExtraError: The library is not installed.
    """

    def __init__(
        self,
        rate: float,
        *,
        compensate: bool = True,
        reach: float = _REACH,
        links: Any = None,
    ) -> None:
        if not rate > 0:
            raise OptionError(f"rate is {rate}; use frames a second, above 0")
        self._detections = import_extra("supervision", "video", "tracking").Detections
        self._links = _make_sort(rate) if links is None else links
        self._reach = reach
        self._numbers: dict[int, int] = {}
        self._camera = CameraMotion() if compensate else None
        self._moved = np.zeros(2)  # x, y in pixels since the first frame

    def update(
        self, prediction: Prediction | Detections, frame: NDArray[Any] | None = None
    ) -> tuple[int | None, ...]:
        """Number the track of each of the prediction's targets, in their order.

        Args:
            prediction: What was found in the next frame; nothing, where it could not be read.
            frame: (H, W) counts, of which the camera's motion is told; None: it stands still.

        Returns:
            Numbers from 1; None: a target of no track yet, which takes three in a row.
        """
        targets = prediction.targets
        if self._camera is not None and frame is not None:
            self._moved += self._camera.update(frame, targets)
        boxes = np.array([target.bbox for target in targets], dtype=np.float32).reshape(-1, 4)
        boxes[:, :2] -= self._moved.astype(np.float32)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        linked = self._links.update(
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


def _make_sort(rate: float) -> Any:
    trackers = import_extra("trackers", "video", "tracking")
    return trackers.SORTTracker(
        lost_track_buffer=max(1, round(_KEPT * rate)),
        frame_rate=30.0,  # at which the buffer counts frames
        track_activation_threshold=0.0,  # what is a target has been decided already
        minimum_consecutive_frames=_CONFIRMED,
        minimum_iou_threshold=0.05,
    )
