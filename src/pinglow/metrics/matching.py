"""Targets: components of a pixel list, and which prediction belongs to which true target.

The rule "a target is detected if the centroid of a predicted component is less than 3 pixels away"
is that of DNANet's PD_FA (Li et al., IEEE TIP 2023, https://arxiv.org/abs/2106.00487), which gives
each true target the first component that is near enough. The optimal matching is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pinglow.metrics.pixels import IntArray, Pixels
from pinglow.structures import label_targets

MAX_DISTANCE = 3.0
"""A prediction may match a true target if their centroids are less than this many pixels apart."""

Pairs = tuple[IntArray, IntArray]
"""Matched pairs: indices of true components and of predicted ones, of equal length."""


@dataclass(frozen=True, eq=False)
class Components:
    """The 8-connected components of a pixel list, numbered 0..n-1 in raster order.

    Attributes:
        number: (P,) the component of each pixel of the list.
        area: (n,) pixels in each component.
        rows: (n,) unweighted centroid, pixel-index coordinate downwards.
        columns: (n,) unweighted centroid, pixel-index coordinate to the right.
    """

    number: IntArray
    area: IntArray
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of components."""
        return len(self.area)


def find_components(pixels: Pixels) -> Components:
    """Group a pixel list into 8-connected components.

    Runs of empty rows and columns are first closed up to one: that changes neither which pixels
    touch nor their raster order, and leaves a small canvas to label.
    """
    height, width = pixels.shape
    if len(pixels) == height * width > 0:  # a sigmoid above threshold 0: no need to look
        middle = np.array([(height - 1) / 2]), np.array([(width - 1) / 2])
        return Components(np.zeros_like(pixels.position), np.array([len(pixels)]), *middle)
    rows, columns = np.divmod(pixels.position, width)
    canvas_rows, canvas_columns = _close_gaps(rows), _close_gaps(columns)
    shape = (canvas_rows.max(initial=0) + 1, canvas_columns.max(initial=0) + 1)
    canvas = np.zeros(shape, dtype=np.bool_)
    canvas[canvas_rows, canvas_columns] = True
    labels, count = label_targets(canvas)
    number = labels[canvas_rows, canvas_columns] - np.int64(1)
    area = np.bincount(number, minlength=count)
    return Components(
        number=number,
        area=area,
        rows=np.bincount(number, rows, count) / area,
        columns=np.bincount(number, columns, count) / area,
    )


def _close_gaps(lines: IntArray) -> IntArray:
    """Renumber the occupied lines so that neighbors stay neighbors and gaps shrink to one."""
    kept = np.zeros(lines.max(initial=0) + 2, dtype=np.bool_)
    kept[lines] = True
    kept[lines + 1] = True
    return (np.cumsum(kept) - 1)[lines]


def match_optimal(true: Components, predicted: Components) -> Pairs:
    """Match one to one: most matches first, then least total distance, then most matched area.

    Distances are compared to a millionth of a pixel; the last rule only settles ties, so that the
    answer does not depend on how an image is turned.
    """
    distance, first, second = _near_pairs(true, predicted)
    if _is_one_to_one(first, second):
        return first, second
    rows, columns = np.unique(first), np.unique(second)
    distance = distance[np.ix_(rows, columns)]
    near = distance < MAX_DISTANCE
    # One whole number per pair: distance first, area second; a pair that is too far apart costs
    # more than all near pairs together.
    area = predicted.area[columns]
    unit = float(area.sum() + 1)
    far = MAX_DISTANCE * 1e6 * unit * (min(near.shape) + 1)
    cost = np.where(near, np.rint(distance * 1e6) * unit - area, far)
    first, second = linear_sum_assignment(cost)
    kept = near[first, second]
    return rows[first[kept]], columns[second[kept]]


def match_greedy(true: Components, predicted: Components) -> Pairs:
    """Give each true target, in raster order, the first (not the nearest) free near component."""
    _, first, second = _near_pairs(true, predicted)
    if _is_one_to_one(first, second):
        return first, second
    partner: dict[int, int] = {}
    taken = set()
    for row, column in zip(first.tolist(), second.tolist(), strict=True):
        if row not in partner and column not in taken:
            partner[row] = column
            taken.add(column)
    return np.array([*partner.keys()]), np.array([*partner.values()])


MATCHINGS: dict[str, Callable[[Components, Components], Pairs]] = {
    "optimal": match_optimal,
    "greedy": match_greedy,
}


def _near_pairs(
    true: Components, predicted: Components
) -> tuple[NDArray[np.float64], IntArray, IntArray]:
    """Return the (T, P) centroid distances in pixels, and the near pairs in raster order."""
    down = true.rows[:, None] - predicted.rows
    right = true.columns[:, None] - predicted.columns
    distance = np.sqrt(down * down + right * right)
    first, second = np.nonzero(distance < MAX_DISTANCE)
    return distance, first, second


def _is_one_to_one(first: IntArray, second: IntArray) -> bool:
    """Tell whether no component is near to two others: then there is nothing to choose."""
    count = len(first)
    return count < 2 or len(set(first.tolist())) == len(set(second.tolist())) == count


def false_area(predicted: Components, matched: IntArray, drop_equal_areas: bool) -> int:
    """Count the pixels of the unmatched predicted components.

    With ``drop_equal_areas`` a false component whose area equals a matched one's is left out, as
    in MSHNet's published scorer, which takes matched components off a list by their area.
    """
    if drop_equal_areas:
        unmatched = np.delete(predicted.area, matched)
        return int(unmatched[~np.isin(unmatched, predicted.area[matched])].sum())
    return len(predicted.number) - int(predicted.area[matched].sum())
