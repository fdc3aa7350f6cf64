"""Scores of boxes: average precision by COCO's rules, and Pd and Fa by the centers of boxes.

Boxes are (left, top, width, height) in pixels, where pixel i covers [i, i + 1), as in
``Target.bbox`` and COCO.

- Average precision: see `pinglow.metrics.average_precision`.
- Pd and Fa: at one threshold of the scores, matched as in the strict or the greedy protocol, with
  the center of a box in the place of a centroid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError, OptionError
from pinglow.metrics.average_precision import BoxFrame, average_precisions, resample_precisions
from pinglow.metrics.matching import MATCHINGS, MAX_DISTANCE, Components, match_optimal
from pinglow.metrics.protocols import PROTOCOLS, Protocol
from pinglow.metrics.report import (
    FloatArray,
    defined,
    percentile_interval,
    resample_sums,
    target_ratios,
    to_plain,
)
from pinglow.structures import TARGET_SIZES


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
        self._frames: list[BoxFrame] = []

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
        self._frames.append(BoxFrame(boxes[order], scores[order], truth, (height, width)))

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
        _check_threshold(threshold)
        frames = sorted(self._frames, key=lambda frame: frame.content)
        total = np.array([math.fsum(column) for column in self._count(frames, threshold).T])
        targets = int(total[1])
        precisions = average_precisions(self._frames) if targets else (None, None)
        drawn = self._resample(frames, threshold, seed)
        return BoxReport(
            protocol=self.protocol_name,
            threshold=float(threshold),
            images=len(frames),
            targets=targets,
            ap50=precisions[0],
            ap=precisions[1],
            ci95={key: percentile_interval(values) for key, values in drawn.items()},
            **{key: defined(value) for key, value in _ratios(total).items()},
        )

    @property
    def protocol_name(self) -> str:
        """What a report calls how centers are matched."""
        matching = self.protocol.matching
        return "boxes" if matching == "optimal" else f"boxes-{matching}"

    def resample(self, threshold: float, seed: int = 0) -> dict[str, FloatArray]:
        """Every score over draws of the images so far: (R,), NaN where undefined.

        Of the same images in the same order each scorer has the same draws, so that the difference
        of two is that of two methods, paired image by image.
        """
        return self._resample(self._frames, threshold, seed)

    def count_errors(self, threshold: float) -> int:
        """Missed true boxes and false boxes in the images so far."""
        _, targets, found, matches, _, _ = self._count(self._frames, threshold).sum(axis=0)
        return int(targets + found - 2 * matches)

    def trace(self, most: int = 200) -> tuple[tuple[float, ...], FloatArray]:
        """What is found at thresholds from 0 up, spread evenly over the scores, `most` at most.

        Returns:
            The thresholds, and (K, 3) matches, area of unmatched boxes, and boxes above each.
        """
        scores = np.concatenate([[0.0], *(frame.scores for frame in self._frames)])
        levels = np.unique(np.quantile(scores, np.linspace(0, 1, most), method="lower"))
        levels = np.unique([0.0, *levels])
        found = [self._count(self._frames, level).sum(axis=0)[[3, 4, 2]] for level in levels]
        return tuple(levels.tolist()), np.array(found)

    def find_sizes(self, threshold: float) -> dict[str, tuple[int, int]]:
        """How many true boxes there are, and how many are matched, by area as in `TARGET_SIZES`."""
        classes = {name: [0, 0] for name in TARGET_SIZES}
        labels, limits = list(TARGET_SIZES), list(TARGET_SIZES.values())
        match = MATCHINGS[self.protocol.matching]
        for frame in self._frames:
            boxes = frame.boxes[frame.scores > threshold]
            matched = set(match(_centers(frame.true), _centers(boxes))[0].tolist())
            for number, area in enumerate(frame.true[:, 2:].prod(axis=1)):
                place = max(0, int(np.searchsorted(limits, area, side="right")) - 1)
                classes[labels[place]][0] += 1
                classes[labels[place]][1] += number in matched
        return {name: (targets, found) for name, (targets, found) in classes.items()}

    def _count(self, frames: Sequence[BoxFrame], threshold: float) -> FloatArray:
        """(N, 6) what each frame adds, in the order in which `_ratios` takes it."""
        rows = [_count(frame, threshold, self.protocol.matching) for frame in frames]
        return np.array(rows, dtype=np.float64).reshape(-1, 6)

    def _resample(
        self, frames: list[BoxFrame], threshold: float, seed: int
    ) -> dict[str, FloatArray]:
        some = any(len(frame.true) for frame in frames)
        precisions = resample_precisions(frames, seed) if some else np.empty((0, 2))
        return {
            "ap50": precisions[:, 0],
            "ap": precisions[:, 1],
            **_ratios(resample_sums(self._count(frames, threshold), seed)),
        }

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


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold < 1:
        raise OptionError(
            f"A threshold must be at least 0 and below 1, got {threshold}: choose a score such as "
            "0.5."
        )


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


def _count(frame: BoxFrame, threshold: float, matching: str) -> tuple[float, ...]:
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


def _matches_gained(frame: BoxFrame) -> NDArray[np.int64]:
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
