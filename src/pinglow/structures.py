"""Targets and predictions: the one definition of what a target is.

A target is an 8-connected component of a binary mask. Coordinates are pixel indices: the center of
the top-left pixel is (0, 0), x goes right and y goes down.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.results import PixelResults, TargetResults

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]

TARGET_SIZES = {"1-9": 1, "10-25": 10, "26-49": 26, "50+": 50}
"""Classes of targets by their area in pixels: label to the smallest area in it."""

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, slots=True)
class Target:
    """One target in a frame, in the frame's own pixels.

    Attributes:
        x: Unweighted centroid, pixel-index coordinate to the right.
        y: Unweighted centroid, pixel-index coordinate downwards.
        bbox: Smallest box around the target as (left, top, width, height) in whole pixels.
        area: Number of pixels, at least 1.
        score: Largest probability inside the target, in [0, 1].
    """

    x: float
    y: float
    bbox: tuple[int, int, int, int]
    area: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Its attributes as plain values, ready for JSON."""
        return {**asdict(self), "bbox": list(self.bbox)}


@dataclass(frozen=True, eq=False)
class Prediction(PixelResults):
    """What the network says about one frame.

    Attributes:
        probability: (H, W) float32 in [0, 1], at the frame's own size.
        threshold: A pixel belongs to the mask if its probability is above this, in [0, 1).
        mask: (H, W) bool, ``probability > threshold``.
        targets: The components of the mask, highest score first.
    """

    probability: FloatArray
    threshold: float = 0.5
    mask: BoolArray = field(init=False)
    targets: tuple[Target, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Derive the mask and the targets, once."""
        mask = self.probability > self.threshold
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "targets", find_targets(mask, self.probability))


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


def find_targets(mask: BoolArray, probability: FloatArray | None = None) -> tuple[Target, ...]:
    """Every target of an (H, W) bool mask, highest score first, ties in raster order.

    Without a probability map every score is 1.
    """
    targets = []
    for band in _split_rows(mask):  # a target lies in one band; labels of large frames are larger
        labels, _ = label_targets(mask[band])
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels[rows, columns] == number
            top, left = band.start + rows.start, columns.start
            height, width = inside.shape
            ys, xs = np.nonzero(inside)
            score = 1.0
            if probability is not None:
                score = float(probability[top : top + height, left : left + width][inside].max())
            targets.append(
                Target(
                    x=float(left + xs.mean()),
                    y=float(top + ys.mean()),
                    bbox=(left, top, width, height),
                    area=len(xs),
                    score=score,
                )
            )
    return tuple(sorted(targets, key=lambda target: -target.score))


def _split_rows(mask: BoolArray) -> list[slice]:
    """Runs of neighboring rows that hold a pixel of a target."""
    filled = np.concatenate([[False], mask.any(axis=1), [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(filled))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
