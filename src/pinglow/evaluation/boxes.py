"""Scores of boxes, of a detector or of a segmentation model under the same rule."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.extras import import_extra
from pinglow.inference.predictor import Predictor
from pinglow.io.labels.boxes import BoxArray
from pinglow.metrics import BoxReport, BoxScorer, Protocol
from pinglow.structures import Detections, find_targets

Frame = NDArray[Any]
BoxPair = tuple[str, Frame, BoxArray]
"""Name of a frame, its (H, W) counts, the (n, 4) boxes of its targets."""


def evaluate_boxes(
    pairs: Iterable[BoxPair],
    predict: Callable[[Iterable[Frame]], Iterable[Detections | FrameError]],
    protocols: Sequence[Protocol],
    threshold: float = 0.5,
    on_broken: Callable[[str], object] | None = None,
) -> list[BoxReport]:
    """Run a model over frames and score its boxes, in one pass for all protocols.

    Args:
        pairs: Names, frames and boxes.
        predict: Maps frames of (H, W) counts, of any size, to their boxes of every score, or why
            there are none, in their order: `BoxPredictor.candidates`, `target_boxes`.
        protocols: What to match centers by: strict or greedy.
        threshold: Of the scores, above which a box is a target.
        on_broken: Called with the reason for each frame that cannot be predicted and is left out;
            None: such a frame raises.

    Returns:
        One report per protocol, in their order.

    Raises:
        FrameError: A frame cannot be predicted.
        OptionError: A protocol is for pixels.
        MissingExtraError: The library that counts average precision is not installed.
    """
    import_extra("faster_coco_eval", "detect", "Box average precision")  # not after hours
    scorers = [BoxScorer(protocol) for protocol in protocols]
    shown: deque[tuple[str, BoxArray, tuple[int, ...]]] = deque()  # and not yet scored

    def show() -> Iterator[Frame]:
        for name, frame, boxes in pairs:
            shown.append((name, boxes, frame.shape))
            yield frame

    for found in predict(show()):
        name, boxes, shape = shown.popleft()
        if not isinstance(found, FrameError):
            for scorer in scorers:
                scorer.update(found.boxes, found.scores, boxes, shape)
        elif on_broken is None:
            raise FrameError(f"{name}: {found}") from found
        else:
            on_broken(f"{name}: {found}")
    return [scorer.compute(threshold) for scorer in scorers]


def target_boxes(
    predictor: Predictor, threshold: float, frames: Iterable[Frame]
) -> Iterator[Detections | FrameError]:
    """The boxes around what a segmentation model finds in frames, or why there are none.

    Pixels above the threshold make the targets; their largest probabilities only rank them.
    """
    for found in predictor.probabilities(frames):
        if isinstance(found, FrameError):
            yield found
        else:
            targets = find_targets(found > threshold, found)
            boxes = np.array([target.bbox for target in targets], dtype=np.float64)
            scores = np.array([target.score for target in targets])
            yield Detections(boxes.reshape(-1, 4), scores)
