"""Average precision of boxes by COCO's rules, https://cocodataset.org/#detection-eval.

faster-coco-eval counts it, over all areas, of the 100 boxes with the highest scores of each frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.extras import import_extra
from pinglow.metrics.report import FloatArray, draw_images

MAX_DETECTIONS: Final = 100
"""Boxes of a frame that count for the average precision, the highest scores first."""

_OVERLAPS: Final = np.linspace(0.5, 0.95, 10)  # IoU from which on COCO takes a box for a match
_RECALLS: Final = np.linspace(0, 1, 101)  # where COCO reads the precision


@dataclass(frozen=True, eq=False)
class BoxFrame:
    """One frame's predicted (n, 4) boxes, highest (n,) score first, and (m, 4) true ones."""

    boxes: FloatArray
    scores: FloatArray
    true: FloatArray
    shape: tuple[int, int]

    @property
    def content(self) -> tuple[Any, ...]:
        """What frames are ordered by, so that no score depends on the order in which they came."""
        return self.shape, self.true.tobytes(), self.boxes.tobytes(), self.scores.tobytes()


def need_average_precision() -> Any:
    """The library that counts it.

    Raises:
        MissingExtraError: It is not installed.
    """
    return import_extra("faster_coco_eval", "detect", "Box average precision")


def average_precisions(frames: list[BoxFrame]) -> tuple[float, float]:
    """AP50 and AP of frames with at least one true box, counted by faster-coco-eval."""
    coco = need_average_precision()
    images: list[dict[str, Any]] = []
    true: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, frame in enumerate(frames, start=1):
        height, width = frame.shape
        images.append({"id": number, "height": height, "width": width})
        common = {"image_id": number, "category_id": 1}
        for box in frame.true.tolist():
            annotation = {"id": len(true) + 1, "area": box[2] * box[3], "iscrowd": 0, "bbox": box}
            true.append(common | annotation)
        for box, score in zip(frame.boxes.tolist(), frame.scores.tolist(), strict=True):
            found.append(common | {"bbox": box, "score": score})
    if not found:  # which some releases do not take
        return 0.0, 0.0
    categories = [{"id": 1, "name": "target"}]
    truth = coco.COCO({"images": images, "annotations": true, "categories": categories})
    evaluation = coco.COCOeval_faster(truth, truth.loadRes(found), "bbox")
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (overlaps, recalls, 1, 1, 1)
    return float(precision[0].mean()), float(precision.mean())


def resample_precisions(frames: list[BoxFrame], seed: int) -> FloatArray:
    """AP50 and AP of each draw of frames: (R, 2), NaN where no true box was drawn.

    Which boxes are matches does not depend on other frames, so that only the counting is repeated:
    a frame that is drawn twice counts twice.
    """
    kept = [frame.scores[:MAX_DETECTIONS] for frame in frames]
    order = np.argsort(-np.concatenate(kept), kind="stable")
    image = np.repeat(np.arange(len(frames)), [len(scores) for scores in kept])[order]
    hits = np.concatenate([_find_hits(frame) for frame in frames], axis=1)[:, order]
    places = [np.flatnonzero(row) for row in hits]
    targets = np.array([len(frame.true) for frame in frames])
    drawn = []
    for block in draw_images(len(frames), seed):
        for times in block:
            total = float(times @ targets)
            weight = times[image]
            seen = np.cumsum(weight)
            precisions = [
                _average_precision(np.cumsum(weight[place]), seen[place], total) for place in places
            ]
            drawn.append((precisions[0], float(np.mean(precisions))))
    return np.array(drawn)


def _average_precision(matches: FloatArray, seen: FloatArray, targets: float) -> float:
    """COCO's average precision from what is counted at each match, highest score first.

    Args:
        matches: (K,) matches down to this one.
        seen: (K,) boxes down to this one.
        targets: True boxes; NaN where there are none.
    """
    if targets == 0:
        return math.nan
    precision = matches / np.maximum(seen, 1)  # nothing seen: a match of a frame not drawn
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(matches / targets, _RECALLS)  # K where a recall is never reached
    return float(np.append(best_from_here, 0.0)[first].mean())


def _find_hits(frame: BoxFrame) -> NDArray[np.bool_]:
    """Whether each of the first boxes is a match, at each of COCO's overlaps: (10, n).

    Box by box, highest score first: the free true box of the largest IoU, the last of several.
    """
    boxes, true = frame.boxes[:MAX_DETECTIONS], frame.true
    first = np.maximum(boxes[:, None, :2], true[:, :2])
    last = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], true[:, :2] + true[:, 2:])
    shared = np.clip(last - first, 0, None).prod(axis=2)  # (n, m)
    either = boxes[:, 2:].prod(axis=1)[:, None] + true[:, 2:].prod(axis=1) - shared
    overlap = shared / either
    hits = np.zeros((len(_OVERLAPS), len(boxes)), dtype=np.bool_)
    for level, least in enumerate(_OVERLAPS):
        free = overlap.copy()
        for number in np.flatnonzero((overlap >= least).any(axis=1)):
            best = len(true) - 1 - np.argmax(free[number, ::-1])
            if free[number, best] >= least:
                hits[level, number] = True
                free[:, best] = -1
    return hits
