"""Targets and predictions: the one definition of what a target is.

A target is an 8-connected component of a binary mask. Coordinates are pixel indices: the center of
the top-left pixel is (0, 0), x goes right and y goes down.

In a probability map, outlines and decisions are apart: fixed levels outline the candidates, each
candidate has a score, and the smallest score decides which of them are targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.results import PixelResults, TargetResults

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]

TARGET_SIZES = {"1-9": 1, "10-25": 10, "26-49": 26, "50+": 50}
"""Classes of targets by their area in pixels: label to the smallest area in it."""

FAINT: Final = 0.1
"""Probability above which a component is a candidate even if it nowhere reaches the threshold."""

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, slots=True)
class Target:
    """One target in a frame, in the frame's own pixels.

    Attributes:
        x: Unweighted centroid, pixel-index coordinate to the right.
        y: Unweighted centroid, pixel-index coordinate downwards.
        bbox: Smallest box around the target as (left, top, width, height) in whole pixels.
        area: Number of pixels, at least 1.
        score: How sure it is, in [0, 1]: the share of such detections that are true, as far as
            the model's card knows it (`pinglow.models.score`); 1 of targets in a mask.
    """

    x: float
    y: float
    bbox: tuple[int, int, int, int]
    area: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Its attributes as plain values, ready for JSON."""
        return {**asdict(self), "bbox": list(self.bbox)}


class Component(NamedTuple):
    """One component of a mask."""

    place: tuple[slice, slice]
    """The box around it, rows and columns."""
    inside: BoolArray
    """(h, w), which of the box's pixels it has."""

    def pixels_of(self, image: NDArray[Any]) -> NDArray[Any]:
        """The values (n,) of an (H, W) image at its pixels."""
        return np.asarray(image[self.place][self.inside])

    def target(self, score: float = 1.0) -> Target:
        """The target that it is."""
        top, left = (each.start for each in self.place)
        height, width = self.inside.shape
        ys, xs = np.nonzero(self.inside)
        return Target(
            x=float(left + xs.mean()),
            y=float(top + ys.mean()),
            bbox=(left, top, width, height),
            area=len(xs),
            score=score,
        )


ScoreOf = Callable[[FloatArray, Component], float]
"""Maps an (H, W) probability map and a candidate in it to the candidate's score in [0, 1]."""


def peak_score(probability: FloatArray, candidate: Component) -> float:
    """The largest probability inside: the score of models whose card has no calibration."""
    return float(candidate.pixels_of(probability).max())


@dataclass(frozen=True, eq=False)
class Prediction(PixelResults):
    """What the network says about one frame.

    Attributes:
        probability: (H, W) float32 in [0, 1], at the frame's own size.
        threshold: A pixel belongs to an outline if its probability is above this, in [0, 1).
        min_score: An outlined candidate is a target if its score is above this, in [0, 1). With
            0 all of them are; the higher, the fewer.
        score_of: Score of a candidate, given the map and the candidate.
        mask: (H, W) bool, the pixels of the targets' outlines.
        targets: Highest score first, equal ones in raster order.
    """

    probability: FloatArray
    threshold: float = 0.5
    min_score: float = 0.5
    score_of: ScoreOf = peak_score
    mask: BoolArray = field(init=False)
    targets: tuple[Target, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Derive the mask and the targets, once."""
        mask = outline_candidates(self.probability, self.threshold)
        targets = []
        for candidate in list(components(mask)):
            score = self.score_of(self.probability, candidate)
            if score > self.min_score:
                targets.append(candidate.target(score))
            else:
                mask[candidate.place][candidate.inside] = False
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "targets", _best_first(targets))


@dataclass(frozen=True, eq=False)
class Detections(TargetResults):
    """What a detector says about one frame: boxes, where a `Prediction` has pixels.

    Attributes:
        boxes: (n, 4) float64: left, top, width, height in pixels of the frame, where pixel i covers
            [i, i + 1); highest score first.
        scores: (n,) float64 in [0, 1].
        targets: The same as targets: centroid and area are the box's, its edges rounded to whole
            pixels.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    targets: tuple[Target, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Derive the targets, once."""
        targets = tuple(map(_box_target, self.boxes.tolist(), self.scores.tolist()))
        object.__setattr__(self, "targets", targets)

    def _boxes(self) -> NDArray[np.float64]:
        return self.boxes


@dataclass(frozen=True)
class Clip:
    """A video that frames come from.

    Attributes:
        name: What its output files are called, unique within a job.
        rate: Frames a second, of those that are taken.
    """

    name: str
    rate: float


def _box_target(box: list[float], score: float) -> Target:
    left, top, width, height = box
    (x, right), (y, bottom) = whole_pixels(left, width), whole_pixels(top, height)
    whole = (x, y, right - x, bottom - y)
    # The center of pixel i, which covers [i, i + 1), is at coordinate i.
    return Target(
        x=left + width / 2 - 0.5,
        y=top + height / 2 - 0.5,
        bbox=whole,
        area=whole[2] * whole[3],
        score=score,
    )


def whole_pixels(start: float, length: float) -> tuple[int, int]:
    """First pixel of a stretch, and the one after its last: edges go to the nearest pixel edge.

    A stretch that would be left with none gets the pixel that its middle is in.
    """
    first, end = math.floor(start + 0.5), math.floor(start + length + 0.5)
    if first == end:
        first = math.floor(start + length / 2)
        end = first + 1
    return first, end


def binarize_mask(mask: NDArray[Any]) -> BoolArray:
    """Turn an (H, W) mask of any type into bool: above half its own maximum.

    Some published masks hold soft or compressed edges (85 of IRSTD-1k's), so "not zero" would
    grow their targets. An all-zero mask has no target pixels; NaN is none, either. What else a
    mask in a file may mean, `pinglow.masks` tells.
    """
    if mask.dtype == np.bool_:
        return mask
    top = float(np.fmax.reduce(mask, axis=None, initial=0))
    return np.asarray(mask > top / 2, dtype=np.bool_)


def label_targets(mask: BoolArray) -> tuple[NDArray[np.int32], int]:
    """Number the 8-connected components of an (H, W) bool mask 1..n in raster order.

    Returns:
        (H, W) int32 labels (0 is background) and n.
    """
    labels, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
    return np.asarray(labels, dtype=np.int32), int(count)


def outline_candidates(probability: FloatArray, threshold: float = 0.5) -> BoolArray:
    """The (H, W) mask of all that may be a target, each component of it a candidate.

    Those are the components above the threshold and, of the components above `FAINT`, the ones
    that do not reach the threshold anywhere. Which they are does not depend on any score.
    """
    outlines = np.asarray(probability > threshold)
    if threshold > FAINT:
        for faint in components(probability > FAINT):
            if not (faint.pixels_of(probability) > threshold).any():
                outlines[faint.place] |= faint.inside
    return outlines


def find_targets(mask: BoolArray, probability: FloatArray | None = None) -> tuple[Target, ...]:
    """Every target of an (H, W) bool mask, highest score first, ties in raster order.

    The score is the largest probability inside; without a probability map every score is 1.
    """
    targets = []
    for each in components(mask):
        score = 1.0 if probability is None else peak_score(probability, each)
        targets.append(each.target(score))
    return _best_first(targets)


def components(mask: BoolArray) -> Iterator[Component]:
    """The 8-connected components of an (H, W) bool mask, by rows."""
    for band in _split_rows(mask):  # a target lies in one band; labels of large frames are larger
        labels, _ = label_targets(mask[band])
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels[rows, columns] == number
            place = slice(band.start + rows.start, band.start + rows.stop), columns
            yield Component(place, inside)


def _best_first(targets: list[Target]) -> tuple[Target, ...]:
    return tuple(sorted(targets, key=lambda target: -target.score))


def _split_rows(mask: BoolArray) -> list[slice]:
    """Runs of neighboring rows that hold a pixel of a target."""
    filled = np.concatenate([[False], mask.any(axis=1), [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(filled))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
