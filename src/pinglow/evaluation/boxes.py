"""Scores of boxes, of a detector or of a segmentation model under the same rule."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.inference.predictor import Predictor
from pinglow.io.labels.boxes import BoxArray
from pinglow.metrics import BoxReport, BoxScorer, Protocol
from pinglow.metrics.average_precision import need_average_precision
from pinglow.structures import Detections, find_targets

Frame = NDArray[Any]
BoxPair = tuple[str, Frame, BoxArray]
"""Name of a frame, its (H, W) counts, the (n, 4) boxes of its targets."""


class ScoredBoxes(NamedTuple):
    """What was found in a frame.

    Attributes:
        name: Of the frame.
        found: Boxes of every score.
        true: (n, 4) boxes.
        shape: (H, W) of the frame.
    """

    name: str
    found: Detections
    true: BoxArray
    shape: tuple[int, int]


def find_boxes(
    pairs: Iterable[BoxPair],
    predict: Callable[[Iterable[Frame]], Iterable[Detections | FrameError]],
    on_broken: Callable[[str], object] | None = None,
) -> Iterator[ScoredBoxes]:
    """Run a model over frames.

    Args:
        pairs: Names, frames and boxes.
        predict: Maps frames of (H, W) counts, of any size, to their boxes of every score, or why
            there are none, in their order: `BoxPredictor.candidates`, `target_boxes`.
        on_broken: Called with the reason for each frame that cannot be predicted and is left out;
            None: such a frame raises.

    Raises:
        FrameError: A frame cannot be predicted.
    """
    shown: deque[tuple[str, BoxArray, tuple[int, int]]] = deque()  # and not yet found

    def show() -> Iterator[Frame]:
        for name, frame, boxes in pairs:
            height, width = frame.shape
            shown.append((name, boxes, (height, width)))
            yield frame

    for found in predict(show()):
        name, boxes, shape = shown.popleft()
        if not isinstance(found, FrameError):
            yield ScoredBoxes(name, found, boxes, shape)
        elif on_broken is None:
            raise FrameError(f"{name}: {found}") from found
        else:
            on_broken(f"{name}: {found}")


def evaluate_boxes(
    pairs: Iterable[BoxPair],
    predict: Callable[[Iterable[Frame]], Iterable[Detections | FrameError]],
    protocols: Sequence[Protocol],
    threshold: float = 0.5,
    on_broken: Callable[[str], object] | None = None,
) -> list[BoxReport]:
    """Run a model over frames and score its boxes, in one pass for all protocols.

    Args:
        pairs: See `find_boxes`.
        predict: See `find_boxes`.
        protocols: What to match centers by: strict or greedy.
        threshold: Of the scores, above which a box is a target.
        on_broken: See `find_boxes`.

    Returns:
        One report per protocol, in their order.

    Raises:
        FrameError: A frame cannot be predicted.
        OptionError: A protocol is for pixels.
        MissingExtraError: The library that counts average precision is not installed.
    """
    need_average_precision()  # not after hours
    scorers = [BoxScorer(protocol) for protocol in protocols]
    for each in find_boxes(pairs, predict, on_broken):
        for scorer in scorers:
            scorer.update(each.found.boxes, each.found.scores, each.true, each.shape)
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
