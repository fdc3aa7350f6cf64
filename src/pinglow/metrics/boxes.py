"""Scores of boxes: average precision by COCO's rules, and Pd and Fa by the centers of boxes.

Boxes are (left, top, width, height) in pixels, where pixel i covers [i, i + 1), as in
``Target.bbox`` and COCO.

- Average precision: COCO's, https://cocodataset.org/#detection-eval, over all areas, of the 100
  boxes with the highest scores of each frame; faster-coco-eval counts it.
- Pd and Fa: at one threshold of the scores, matched as in the strict or the greedy protocol, with
  the center of a box in the place of a centroid.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError, OptionError
from pinglow.extras import import_extra
from pinglow.metrics.matching import MATCHINGS, MAX_DISTANCE, Components, match_optimal
from pinglow.metrics.protocols import PROTOCOLS, Protocol
from pinglow.metrics.report import (
    FloatArray,
    defined,
    draw_images,
    percentile_interval,
    resample_sums,
    target_ratios,
    to_plain,
)

MAX_DETECTIONS: Final = 100
"""Boxes of a frame that count for the average precision, the highest scores first."""

_OVERLAPS: Final = np.linspace(0.5, 0.95, 10)  # IoU from which on COCO takes a box for a match
_RECALLS: Final = np.linspace(0, 1, 101)  # where COCO reads the precision


@dataclass(frozen=True)
class BoxReport:
    """The scores of boxes in a set of images; all ratios are fractions.

    Attributes:
        protocol: "boxes", matched as in the strict protocol, or "boxes-greedy".
        threshold: A box is predicted above this score; the average precisions look at all boxes.
        images: How many.
        targets: True boxes in them.
        ap50: Average precision at IoU 0.5; None without a true box.
        ap: Mean of the average precisions at IoU 0.50, 0.55 ... 0.95.
        pd: Matched true boxes / true boxes.
        fa: Area of unmatched predicted boxes, each cut to its frame / all pixels. Where they
            overlap they count twice.
        precision: Matched predicted boxes / predicted boxes.
        recall: Equal to pd.
        f1: Harmonic mean of the two, 2 matches / (targets + predicted boxes).
        false_alarms_per_image: Unmatched predicted boxes / images.
        ci95: Bootstrap 95 % interval over images (percentiles) of each ratio above, or None
            where it is undefined. An average precision is that of the drawn images, not a mean
            over images.
    """

    protocol: str
    threshold: float
    images: int
    targets: int
    ap50: float | None
    ap: float | None
    pd: float | None
    fa: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    false_alarms_per_image: float | None
    ci95: dict[str, tuple[float, float] | None]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON."""
        plain: dict[str, Any] = to_plain(asdict(self))
        return plain


@dataclass(frozen=True, eq=False)
class _Frame:
    """One frame's predicted (n, 4) boxes, highest (n,) score first, and (m, 4) true ones."""

    boxes: FloatArray
    scores: FloatArray
    true: FloatArray
    shape: tuple[int, int]

    @property
    def content(self) -> tuple[Any, ...]:
        """What frames are ordered by, so that no score depends on the order in which they came."""
        return self.shape, self.true.tobytes(), self.boxes.tobytes(), self.scores.tobytes()


class BoxScorer:
    """Collects the boxes of a set of images.

    It keeps every box, so merging the scorers of several processes gives exactly the report of one
    process. Only where frames have equal scores do the average precisions depend on the order in
    which frames came: COCO's rules rank these as they come.

    Args:
        protocol: Says how centers are matched.

    Raises:
        OptionError: It changes the size of the model's input, which is not defined for boxes.
    """

    def __init__(self, protocol: Protocol = PROTOCOLS["strict"]) -> None:
        """Start with no images."""
        if protocol.needs_model:
            raise OptionError(
                f"Protocol {protocol.name} changes the size of the model's input, which is for "
                "pixels: choose strict or greedy for boxes."
            )
        self.protocol = protocol
        self._frames: list[_Frame] = []

    def update(
        self,
        predicted: NDArray[Any],
        scores: NDArray[Any],
        true: NDArray[Any],
        shape: tuple[int, ...],
    ) -> None:
        """Add one image.

        Args:
            predicted: (n, 4) boxes of every score, not only above a threshold.
            scores: (n,) in [0, 1].
            true: (m, 4) boxes, each with an area.
            shape: (H, W) of the frame in pixels.

        Raises:
            DataError: The shapes do not fit, a number is not finite, a score is outside [0, 1] or
                a side is negative.
        """
        boxes, truth = _check_boxes(predicted, "predicted"), _check_boxes(true, "true")
        scores = np.asarray(scores, dtype=np.float64)
        if scores.shape != (len(boxes),) or not ((scores >= 0) & (scores <= 1)).all():
            raise DataError(
                f"{len(boxes)} predicted boxes came with scores of shape {scores.shape} or outside "
                "[0, 1]: give one probability per box."
            )
        if not (truth[:, 2:].prod(axis=1) > 0).all():
            raise DataError("A true box has no area: leave it out or correct it.")
        order = np.argsort(-scores, kind="stable")
        height, width = shape
        self._frames.append(_Frame(boxes[order], scores[order], truth, (height, width)))

    def merge(self, other: BoxScorer) -> None:
        """Add the images of another scorer, such as one from another process.

        Raises:
            OptionError: The other one matches in another way.
        """
        if self.protocol != other.protocol:
            raise OptionError(
                "Scores of different protocols cannot be merged: score all images with one."
            )
        self._frames += other._frames

    def compute(self, threshold: float = 0.5, seed: int = 0) -> BoxReport:
        """Return the scores of all images so far.

        Args:
            threshold: A box is predicted if its score is above this, in [0, 1).
            seed: Of the bootstrap.

        Raises:
            OptionError: The threshold is outside [0, 1).
            MissingExtraError: faster-coco-eval is not installed.
        """
        if not 0 <= threshold < 1:
            raise OptionError(
                f"A threshold must be at least 0 and below 1, got {threshold}: choose a score such "
                "as 0.5."
            )
        frames = sorted(self._frames, key=lambda frame: frame.content)
        matching = self.protocol.matching
        columns = np.array([_count(frame, threshold, matching) for frame in frames]).reshape(-1, 6)
        total = np.array([math.fsum(column) for column in columns.T])
        point = _ratios(total)
        resampled = _ratios(resample_sums(columns, seed))
        targets = int(total[1])
        precisions: tuple[float | None, float | None] = None, None
        drawn = np.empty((0, 2))
        if targets:
            precisions = _average_precisions(self._frames)
            drawn = _resample_precisions(frames, seed)
        return BoxReport(
            protocol="boxes" if matching == "optimal" else f"boxes-{matching}",
            threshold=float(threshold),
            images=len(frames),
            targets=targets,
            ap50=precisions[0],
            ap=precisions[1],
            ci95={
                "ap50": percentile_interval(drawn[:, 0]),
                "ap": percentile_interval(drawn[:, 1]),
                **{key: percentile_interval(values) for key, values in resampled.items()},
            },
            **{key: defined(value) for key, value in point.items()},
        )

    def best_threshold(self) -> float:
        """The threshold with the largest F1 over all images so far, the highest one of several.

        One of the scores, or 0 if that is best; every score is tried. 0.5 where no box of any score
        is a match.
        """
        if not self._frames:
            return 0.5
        scores = np.concatenate([frame.scores for frame in self._frames])
        gains = np.concatenate([_matches_gained(frame) for frame in self._frames])
        targets = sum(len(frame.true) for frame in self._frames)
        order = np.argsort(scores, kind="stable")
        candidates = np.unique(np.append(scores, 0.0))
        # Of the boxes above each candidate: how many, and the matches among them.
        below = np.searchsorted(scores[order], candidates, side="right")
        matches = gains.sum() - np.append(0, np.cumsum(gains[order]))[below]
        f1 = 2 * matches / np.maximum(targets + len(scores) - below, 1)
        if f1.max() == 0:
            return 0.5
        return float(candidates[np.flatnonzero(f1 == f1.max())[-1]])


def _check_boxes(boxes: NDArray[Any], kind: str) -> FloatArray:
    """Boxes as (n, 4) float64; an empty list of any shape is none."""
    checked = np.asarray(boxes, dtype=np.float64)
    if checked.size == 0:
        return np.zeros((0, 4))
    if checked.ndim != 2 or checked.shape[1] != 4:
        raise DataError(
            f"{kind} boxes have shape {checked.shape}: give (n, 4) rows left, top, width, height."
        )
    if not np.isfinite(checked).all() or (checked[:, 2:] < 0).any():
        raise DataError(
            f"A {kind} box has a side below 0 or a number that is not finite: give left, top, "
            "width and height in pixels, not corners."
        )
    return checked


# --- by centers ----------------------------------------------------------------------------------


def _count(frame: _Frame, threshold: float, matching: str) -> tuple[float, ...]:
    """What one frame adds, in the order in which `_ratios` takes it."""
    boxes = frame.boxes[frame.scores > threshold]
    _, matched = MATCHINGS[matching](_centers(frame.true), _centers(boxes))
    areas = np.delete(_areas_inside(boxes, frame.shape), matched)
    height, width = frame.shape
    return height * width, len(frame.true), len(boxes), len(matched), math.fsum(areas), 1


def _ratios(sums: FloatArray) -> dict[str, FloatArray]:
    """Every score by centers from (..., 6) sums of what `_count` gives."""
    pixels, targets, boxes, matches, false_area, images = np.moveaxis(sums, -1, 0)
    return target_ratios(
        pixels=pixels,
        targets=targets,
        components=boxes,
        matches=matches,
        false_pixels=false_area,
        images=images,
    )


def _centers(boxes: FloatArray) -> Components:
    """Boxes as components whose centroids are their centers; areas, in whole pixels, break ties."""
    left, top, width, height = boxes.T
    return Components(
        number=np.arange(len(boxes)),
        area=np.rint(width * height).astype(np.int64),
        rows=top + height / 2 - 0.5,
        columns=left + width / 2 - 0.5,
    )


def _areas_inside(boxes: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """(n,) areas of boxes, each cut to its (H, W) frame."""
    frame = np.array(shape[::-1])
    first, last = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.clip(last, 0, frame) - np.clip(first, 0, frame)
    return np.asarray(sides[:, 0] * sides[:, 1])


def _matches_gained(frame: _Frame) -> NDArray[np.int64]:
    """(n,) by how much each box, highest score first, raises the number of matches: 0 or 1."""
    gains = np.zeros(len(frame.boxes), dtype=np.int64)
    true, boxes = _centers(frame.true), _centers(frame.boxes)
    down = np.abs(boxes.rows[:, None] - true.rows)
    right = np.abs(boxes.columns[:, None] - true.columns)
    near = np.flatnonzero(((down < MAX_DISTANCE) & (right < MAX_DISTANCE)).any(axis=1))
    found = 0
    for count, number in enumerate(near, start=1):  # the others can change nothing
        matches = len(match_optimal(true, _centers(frame.boxes[near[:count]]))[0])
        gains[number] = matches - found
        found = matches
    return gains


# --- by overlap ----------------------------------------------------------------------------------


def _average_precisions(frames: list[_Frame]) -> tuple[float, float]:
    """AP50 and AP of frames with at least one true box, counted by faster-coco-eval."""
    coco = import_extra("faster_coco_eval", "detect", "Box average precision")
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


def _resample_precisions(frames: list[_Frame], seed: int) -> FloatArray:
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


def _find_hits(frame: _Frame) -> NDArray[np.bool_]:
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
