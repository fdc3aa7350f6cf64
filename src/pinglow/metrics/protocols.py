"""The named evaluation protocols and the scorer that applies one of them to a set of images.

Published Pd and Fa are not comparable across papers, because each code resizes, matches and counts
in its own way. Here each way has a name, and a report always says which one it used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import OptionError
from pinglow.metrics.matching import MATCHINGS, Components, Pairs, false_area, find_components
from pinglow.metrics.pixels import (
    IntArray,
    Pixels,
    check_probability,
    pixels_above,
    shared_pixels,
)
from pinglow.metrics.report import ImageCounts, Report, SizeCounts, make_report
from pinglow.metrics.roc import Counts, HighPixels, keep_high_pixels, trace_curve
from pinglow.structures import TARGET_SIZES, binarize_mask

THRESHOLDS = (
    *(0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99),
    *(0.999, 0.9999, 0.99999, 0.999999),
)
"""Thresholds of the ROC where curves of several trainings have to be averaged: closer at both ends,
where trained networks put their probabilities.
"""


@dataclass(frozen=True)
class Protocol:
    """The rules of one evaluation.

    Attributes:
        name: Its name in reports.
        summary: What it does, for a person.
        matching: ``optimal`` or ``greedy``, see `pinglow.metrics.matching`.
        drop_equal_areas: Fa forgets a false component whose area equals a matched one's.
        resize: Side in pixels to which frame (bilinear) and mask (nearest) are resized, or None
            for the original size.
        pad_multiple: Frames are padded at the right and bottom to a multiple of this, and the
            probability is cropped back; None for no padding.
    """

    name: str
    summary: str
    matching: Literal["optimal", "greedy"]
    drop_equal_areas: bool = False
    resize: int | None = None
    pad_multiple: int | None = None

    @property
    def needs_model(self) -> bool:
        """Whether it changes the network's input, so that saved predictions cannot be scored."""
        return self.resize is not None or self.pad_multiple is not None

    def count(self, true: Components, pixels: Pixels) -> Counts:
        """Matches, false pixels and components of predicted pixels."""
        predicted = find_components(pixels)
        pairs = MATCHINGS[self.matching](true, predicted)
        false_pixels = false_area(predicted, pairs[1], self.drop_equal_areas)
        return len(pairs[0]), false_pixels, len(predicted)


PROTOCOLS: dict[str, Protocol] = {
    "strict": Protocol(
        "strict",
        "original size, optimal one-to-one matching",
        matching="optimal",
    ),
    "greedy": Protocol(
        "greedy",
        "original size, first-come matching",
        matching="greedy",
    ),
    # https://github.com/Lliu666/MSHNet: utils/data.py, utils/metric.py
    "mshnet256": Protocol(
        "mshnet256",
        "resized to 256 x 256, first-come matching, Fa drops false components of a matched area",
        matching="greedy",
        drop_equal_areas=True,
        resize=256,
    ),
    # https://github.com/XinyiYing/BasicIRSTD: dataset.py, metrics.py. Its Fa, all predicted pixels
    # outside matched components, is the pixels of unmatched components.
    "basicirstd": Protocol(
        "basicirstd",
        "padded to a multiple of 32 and cropped back, first-come matching",
        matching="greedy",
        pad_multiple=32,
    ),
}


class Scorer:
    """Collects the counts of a set of images under one protocol.

    All state adds up: one short row per image, sums over images for the size table, and for the ROC
    sums or the highest pixels of each map. Merging the scorers of several processes in any order
    therefore gives exactly the report of one process.

    Args:
        protocol: One of `PROTOCOLS`.
        threshold: A pixel is predicted if its probability is above this, in [0, 1). The protocols
            are defined at 0.5 (logit 0); the report says which one was used.
        thresholds: Points of the ROC, each in [0, 1); None: chosen among the scores, see
            `pinglow.metrics.roc`. They keep up to a 64th of each map, others keep nothing of it.

    Raises:
        OptionError: A threshold is outside [0, 1).
    """

    def __init__(
        self,
        protocol: Protocol,
        threshold: float = 0.5,
        thresholds: Iterable[float] | None = None,
    ) -> None:
        """Start with no images."""
        self.protocol = protocol
        self.threshold = float(threshold)
        self._maps: list[HighPixels] | None = [] if thresholds is None else None
        given = () if thresholds is None else thresholds
        self.thresholds = tuple(sorted({float(value) for value in given}))
        self._levels = sorted({self.threshold, *self.thresholds})
        if not all(0 <= level < 1 for level in self._levels):
            raise OptionError(
                f"A threshold must be at least 0 and below 1, got {threshold} and "
                f"{self.thresholds}: choose a probability such as 0.5."
            )
        self._images: list[ImageCounts] = []
        self._sizes = np.zeros((len(TARGET_SIZES), len(SizeCounts._fields)), dtype=np.int64)
        self._roc = np.zeros((len(self.thresholds), 2), dtype=np.int64)  # matches, false pixels

    def update(self, probability: NDArray[Any], mask: NDArray[Any]) -> None:
        """Count one image.

        Args:
            probability: (H, W) in [0, 1].
            mask: (H, W) of any type; its targets are the components above half its own maximum.

        Raises:
            DataError: The shapes differ, or a probability is outside [0, 1].
        """
        truth = binarize_mask(mask)
        probability = check_probability(probability, truth.shape)
        pixels = pixels_above(probability, self._levels[0])
        true_pixels = pixels_above(truth, 0)
        true = find_components(true_pixels)
        match = MATCHINGS[self.protocol.matching]
        if self._maps is not None:
            kept = keep_high_pixels(probability, true, self.threshold, self.protocol.count)
            self._maps.append(kept)

        scored = None
        for level in self._levels:
            pixels = pixels.above(level)
            if pixels is not scored:  # else nothing lies between this level and the last one
                predicted = find_components(pixels)
                pairs = match(true, predicted)
                false_pixels = false_area(predicted, pairs[1], self.protocol.drop_equal_areas)
                scored = pixels
            if level in self.thresholds:
                self._roc[self.thresholds.index(level)] += (len(pairs[0]), false_pixels)
            if level != self.threshold:
                continue

            of_true, of_predicted = shared_pixels(true_pixels, pixels)
            self._images.append(
                ImageCounts(
                    pixels=truth.size,
                    intersection=len(of_true),
                    union=len(true_pixels) + len(pixels) - len(of_true),
                    targets=len(true),
                    components=len(predicted),
                    matches=len(pairs[0]),
                    false_pixels=false_pixels,
                )
            )
            self._count_sizes(true, predicted, pairs, of_true, of_predicted)

    def _count_sizes(
        self,
        true: Components,
        predicted: Components,
        pairs: Pairs,
        of_true: IntArray,
        of_predicted: IntArray,
    ) -> None:
        """Count targets by size; the last two arguments are the pixels that truth and map share."""
        row = np.searchsorted([*TARGET_SIZES.values()], true.area, side="right") - 1
        np.add.at(self._sizes[:, 0], row, 1)
        # Of the shared pixels, those of a target and of its own match; partner -1: no match.
        partner = np.full(len(true), -1)
        partner[pairs[0]] = pairs[1]
        number = true.number[of_true]
        in_pair = predicted.number[of_predicted] == partner[number]
        shared = np.bincount(number[in_pair], minlength=len(true))[pairs[0]]
        union = true.area[pairs[0]] + predicted.area[pairs[1]] - shared
        found = np.stack([np.ones_like(shared), shared, union], axis=1)
        np.add.at(self._sizes[:, 1:], row[pairs[0]], found)

    @property
    def images(self) -> tuple[ImageCounts, ...]:
        """The counts of each image so far, in the order in which they came."""
        return tuple(self._images)

    @property
    def sizes(self) -> IntArray:
        """(4, 4) one row of `SizeCounts` per row of `TARGET_SIZES`, summed over the images."""
        return self._sizes

    def merge(self, other: Scorer) -> None:
        """Add the images of another scorer, such as one from another process.

        Raises:
            OptionError: The other one applies another protocol or other thresholds.
        """
        if self._rules != other._rules:
            raise OptionError(
                "Scores of different protocols or thresholds cannot be merged: score all images "
                "with the same ones."
            )
        self._images += other._images
        self._sizes += other._sizes
        self._roc += other._roc
        if self._maps is not None and other._maps is not None:
            self._maps += other._maps

    @property
    def _rules(self) -> tuple[Any, ...]:
        return self.protocol, self.threshold, self.thresholds, self._maps is None

    def trace(self) -> tuple[tuple[float, ...], IntArray]:
        """Thresholds chosen among the scores, and (K, N, 3) counts; see `trace_curve`.

        Raises:
            OptionError: The scorer has thresholds of its own, so it keeps nothing to choose from.
        """
        if self._maps is None:
            raise OptionError("A scorer with thresholds has no others: leave them out.")
        return trace_curve(self._maps, self.threshold, self.protocol.count)

    def compute(self, seed: int = 0) -> Report:
        """Return the scores of all images so far; the seed is that of the bootstrap."""
        images: IntArray = np.array(self._images, dtype=np.int64)
        thresholds, roc = self.thresholds, self._roc
        if self._maps is not None:
            thresholds, curve = self.trace()
            roc = curve[:, :, :2].sum(axis=1)
        return make_report(
            protocol=self.protocol.name,
            threshold=self.threshold,
            thresholds=thresholds,
            images=images.reshape(-1, len(ImageCounts._fields)),
            sizes=self._sizes,
            roc=roc,
            seed=seed,
        )
