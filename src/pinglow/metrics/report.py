"""Scores from counts: every ratio that a report prints, its interval, and what it means.

A ratio without a denominator is None (JSON null, printed "-"), never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pinglow.metrics.pixels import IntArray
from pinglow.structures import TARGET_SIZES

FloatArray = NDArray[np.float64]

RESAMPLES = 2000
ROC_LIMIT = 1e-4
"""The area under the ROC is taken up to this Fa (100 false pixels in a million)."""


class ImageCounts(NamedTuple):
    """What one image adds at the operating threshold."""

    pixels: int
    intersection: int
    union: int
    targets: int
    components: int
    matches: int
    false_pixels: int


class SizeCounts(NamedTuple):
    """What the targets of one size add up to; the last two over matched pairs only."""

    targets: int
    detected: int
    intersection: int
    union: int


@dataclass(frozen=True)
class SizeRow:
    """Scores of the targets of one size.

    Attributes:
        size: True area in pixels, such as ``10-25`` or ``50+``.
        targets: How many there are.
        detected: How many were matched.
        pd: detected / targets.
        iou: Intersection / union, summed over the pairs of a detected target and the component
            matched to it: how well the found ones are outlined.
    """

    size: str
    targets: int
    detected: int
    pd: float | None
    iou: float | None


@dataclass(frozen=True)
class Roc:
    """Pd against Fa over thresholds.

    Neither has to fall as the threshold rises: a false blob can shrink until its centroid is near
    a target, and a true one can break in two.

    Attributes:
        thresholds: Rising.
        pd: At each threshold.
        fa: At each threshold.
        area: The mean, over Fa from 0 to `limit`, of the best Pd reached without exceeding that Fa
            (0 where every threshold exceeds it); in [0, 1].
        limit: See `ROC_LIMIT`.
    """

    thresholds: tuple[float, ...]
    pd: tuple[float | None, ...]
    fa: tuple[float | None, ...]
    area: float | None
    limit: float = ROC_LIMIT


@dataclass(frozen=True)
class Report:
    """The scores of a set of images under one protocol; all ratios are fractions.

    Attributes:
        protocol: Name of the protocol.
        threshold: A pixel is predicted above this probability.
        images: How many.
        targets: True targets in them.
        iou: Summed intersection / summed union of pixels.
        niou: Mean over images of intersection / union; 1 where truth and prediction are empty.
        pd: Matched true targets / true targets.
        fa: Pixels of false components / all pixels.
        precision: Matched components / predicted components.
        recall: Equal to pd; the usual partner of precision.
        f1: Harmonic mean of the two, 2 matches / (targets + predicted components).
        false_alarms_per_image: Unmatched predicted components / images.
        ci95: Bootstrap 95 % interval over images (percentiles) of each ratio above, or None
            where it is undefined.
        per_size: Scores per true area.
        roc: Pd against Fa.
    """

    protocol: str
    threshold: float
    images: int
    targets: int
    iou: float | None
    niou: float | None
    pd: float | None
    fa: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    false_alarms_per_image: float | None
    ci95: dict[str, tuple[float, float] | None]
    per_size: tuple[SizeRow, ...]
    roc: Roc

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON."""
        plain: dict[str, Any] = to_plain(asdict(self))
        return plain


def make_report(
    protocol: str,
    threshold: float,
    thresholds: Sequence[float],
    images: IntArray,
    sizes: IntArray,
    roc: IntArray,
    seed: int = 0,
) -> Report:
    """Turn counts into scores.

    Args:
        protocol: Name of the protocol.
        threshold: The operating threshold.
        thresholds: The K thresholds of the ROC.
        images: (N, 7) one row of `ImageCounts` per image, in any order.
        sizes: (4, 4) one row of `SizeCounts` per row of `TARGET_SIZES`.
        roc: (K, 2) matches and false pixels summed over images.
        seed: Of the bootstrap.
    """
    # A fixed order makes the bootstrap independent of the order in which images came.
    images = images[np.lexsort(images.T)]
    columns = add_image_iou(images)
    total = columns.sum(axis=0)
    total[-2] = math.fsum(columns[:, -2])  # rounded once, as all other sums are whole numbers
    point = {key: defined(value) for key, value in ratios_of_sums(total).items()}
    resampled = ratios_of_sums(resample_sums(columns, seed))
    targets = int(total[ImageCounts._fields.index("targets")])
    pixels = total[ImageCounts._fields.index("pixels")]
    pd = tuple(defined(_divide(matches, targets)) for matches, _ in roc)
    fa = tuple(defined(_divide(false_pixels, pixels)) for _, false_pixels in roc)
    return Report(
        protocol=protocol,
        threshold=threshold,
        images=len(images),
        targets=targets,
        ci95={key: percentile_interval(values) for key, values in resampled.items()},
        per_size=tuple(
            SizeRow(
                size=label,
                targets=int(row.targets),
                detected=int(row.detected),
                pd=defined(_divide(row.detected, row.targets)),
                iou=defined(_divide(row.intersection, row.union)),
            )
            for label, row in zip(TARGET_SIZES, map(SizeCounts._make, sizes), strict=True)
        ),
        roc=Roc(tuple(thresholds), pd, fa, _roc_area(pd, fa)),
        **point,
    )


def add_image_iou(images: IntArray) -> FloatArray:
    """(N, 7) rows of `ImageCounts` with two more columns, each image's IoU and 1: (N, 9).

    nIoU is a mean of per-image ratios: so every score is a ratio of sums over these columns.
    """
    union = images[:, ImageCounts._fields.index("union")]
    overlap = images[:, ImageCounts._fields.index("intersection")]
    image_iou = np.where(union > 0, overlap / np.maximum(union, 1), 1.0)
    return np.column_stack([images, image_iou, np.ones(len(images))])


def ratios_of_sums(sums: FloatArray) -> dict[str, FloatArray]:
    """Every score from (..., 9) sums of what `add_image_iou` gives; NaN where undefined."""
    counts = ImageCounts._make(np.moveaxis(sums[..., :-2], -1, 0))
    niou, images = sums[..., -2], sums[..., -1]
    return {
        "iou": _divide(counts.intersection, counts.union),
        "niou": _divide(niou, images),
        **target_ratios(
            pixels=counts.pixels,
            targets=counts.targets,
            components=counts.components,
            matches=counts.matches,
            false_pixels=counts.false_pixels,
            images=images,
        ),
    }


def target_ratios(
    *, pixels: Any, targets: Any, components: Any, matches: Any, false_pixels: Any, images: Any
) -> dict[str, FloatArray]:
    """The scores of targets from sums of one shape, see `Report`; NaN where undefined."""
    return {
        "pd": _divide(matches, targets),
        "fa": _divide(false_pixels, pixels),
        "precision": _divide(matches, components),
        "recall": _divide(matches, targets),
        "f1": _divide(2 * matches, targets + components),
        "false_alarms_per_image": _divide(components - matches, images),
    }


def _divide(numerator: Any, denominator: Any) -> FloatArray:
    """Divide, with NaN (which no report shows) where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    ratio = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator != 0)
    return ratio


def defined(value: FloatArray) -> float | None:
    """A score as a number, or None for NaN."""
    return None if np.isnan(value) else float(value)


def resample_sums(columns: FloatArray, seed: int) -> FloatArray:
    """Sum (N, C) columns over `RESAMPLES` draws of N images with replacement: (R, C)."""
    return np.concatenate([times @ columns for times in draw_images(len(columns), seed)])


def draw_images(count: int, seed: int) -> Iterator[FloatArray]:
    """How often each of N images is drawn in `RESAMPLES` draws of N with replacement.

    Yields:
        (B, N) whole numbers, B draws at a time: blocks bound the memory.
    """
    if count == 0:
        yield np.zeros((RESAMPLES, 0))
        return
    generator = np.random.default_rng(seed)
    block = max(1, min(RESAMPLES, 2_000_000 // count))
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count)
        yield times.reshape(size, count).astype(np.float64)


def resample_together(
    tables: Sequence[IntArray], seed: int
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Every score of M methods on the same images, over draws that are the same for all.

    The difference of two columns of the draws is that of two methods, paired image by image.

    Args:
        tables: M of (N, 7), rows of `ImageCounts`, the images in one order.
        seed: Of the bootstrap.

    Returns:
        Of each score (M,) as it is and (R, M) resampled; NaN where undefined.
    """
    columns = [add_image_iou(table) for table in tables]
    together = np.concatenate(columns, axis=1)  # (N, M * 9)
    shape = len(columns), columns[0].shape[1]
    sums = resample_sums(together, seed).reshape(-1, *shape)
    return ratios_of_sums(together.sum(axis=0).reshape(shape)), ratios_of_sums(sums)


def mean_defined(scores: Sequence[FloatArray]) -> FloatArray:
    """Mean of arrays of one shape, element by element, over those in which one is no NaN."""
    stacked = np.stack(scores)
    known = ~np.isnan(stacked)
    return _divide(np.where(known, stacked, 0).sum(axis=0), known.sum(axis=0))


def percentile_interval(values: FloatArray) -> tuple[float, float] | None:
    """95 % percentile interval of the resamples in which a ratio is defined."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _roc_area(pd: Sequence[float | None], fa: Sequence[float | None]) -> float | None:
    """Area under the rising staircase of the best Pd, see `Roc.area`."""
    points = [(f, p) for f, p in zip(fa, pd, strict=True) if f is not None and p is not None]
    if not points:
        return None
    area = best = reached = 0.0
    for next_fa, next_pd in sorted([*((f, p) for f, p in points if f < ROC_LIMIT), (ROC_LIMIT, 0)]):
        area += best * (next_fa - reached)
        reached, best = next_fa, max(best, next_pd)
    return area / ROC_LIMIT


def to_plain(value: Any) -> Any:
    """Turn tuples into lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value
