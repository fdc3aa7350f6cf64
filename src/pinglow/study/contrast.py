"""Differences between the arms of a study, with intervals over frames and seeds.

All runs are scored on the same frames, so a difference is taken frame by frame: the bootstrap draws
the same frames for every arm and seed, and then seeds, of which all arms of a contrast have the
same. A few seeds spread less than the runs that they stand for: what drawing them adds is widened
as Student's t is wider than the normal. Source: ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pinglow.errors import DataError
from pinglow.metrics.report import (
    RESAMPLES,
    add_image_iou,
    percentile_interval,
    ratios_of_sums,
    resample_sums,
)
from pinglow.study.results import FIGURES, TARGET_FREE, RunResult


@dataclass(frozen=True)
class Difference:
    """A figure's contrast between arms.

    Attributes:
        value: Mean over the common seeds of the contrast, the figure being its mean over data sets.
        interval: 95 %, bootstrap over frames and seeds; of one seed, over frames alone.
        by_seed: The contrast of each common seed.
    """

    value: float
    interval: tuple[float, float]
    by_seed: dict[int, float]

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0; never of one seed, which says nothing of others."""
        return len(self.by_seed) > 1 and (self.interval[0] > 0 or self.interval[1] < 0)


def contrast_arms(
    results: Sequence[RunResult], weights: Mapping[str, float], seed: int = 0
) -> dict[str, Difference]:
    """The weighted sum of arms' figures: {"a": 1, "b": -1} is how much more a has than b.

    Args:
        results: Of a study; failed runs are left out.
        weights: Of each arm.
        seed: Of the bootstrap.

    Returns:
        A difference for each of IoU, nIoU, Pd and Fa that is defined; empty where the arms have no
        seed in common.

    Raises:
        DataError: Runs were scored on different frames.
    """
    runs = {(run.arm, run.seed): run for run in results if not run.failure}
    seeds = sorted({s for _, s in runs if all((arm, s) in runs for arm in weights)})
    if not seeds:
        return {}
    compared = [[runs[arm, s] for arm in weights] for s in seeds]
    factors = np.array(list(weights.values()))
    random = np.random.default_rng(seed)
    drawn = random.integers(len(seeds), size=(RESAMPLES, len(seeds)))
    points, resampled = _figures(compared, seed)
    differences = {}
    for key in points:
        by_seed = points[key] @ factors  # (S,)
        draws = resampled[key] @ factors  # (R, S)
        if np.isnan(by_seed).any():
            continue
        over_frames = draws.mean(axis=1)
        over_seeds = by_seed[drawn].mean(axis=1) - by_seed.mean()
        means = over_frames + _widening(len(seeds)) * over_seeds
        interval = percentile_interval(means)
        if interval is None:
            continue
        differences[key] = Difference(
            value=float(by_seed.mean()),
            interval=interval,
            by_seed=dict(zip(seeds, map(float, by_seed), strict=True)),
        )
    return differences


def _widening(seeds: int) -> float:
    if seeds == 1:
        return 0.0
    # The bootstrap's variance is (S - 1) / S of the unbiased one.
    student = float(stats.t.ppf(0.975, seeds - 1) / stats.norm.ppf(0.975))
    return student * math.sqrt(seeds / (seeds - 1))


def _figures(
    runs: list[list[RunResult]], seed: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Means over data sets of each figure: (S, A) as they are, and (R, S, A) resampled."""
    names = list(runs[0][0].sets)
    points: dict[str, list[NDArray[np.float64]]] = {key: [] for key in FIGURES}
    resampled: dict[str, list[NDArray[np.float64]]] = {key: [] for key in FIGURES}
    for number, name in enumerate(names):
        frames = runs[0][0].sets[name].frames
        columns = []
        for run in (each for row in runs for each in row):
            if list(run.sets) != names or run.sets[name].frames != frames:
                raise DataError(
                    f"{run.arm}, seed {run.seed} was scored on other frames than "
                    f"{runs[0][0].arm}; arms that are compared need the same lists in data.sets "
                    "(their weights may differ)"
                )
            columns.append(add_image_iou(run.sets[name].table()))
        shape = len(runs), len(runs[0]), columns[0].shape[1]
        together = np.concatenate(columns, axis=1)  # (N, S · A · 9): the same frames for all
        sums = resample_sums(together, seed + number).reshape(-1, *shape)
        whole = ratios_of_sums(together.sum(axis=0).reshape(shape))
        draws = ratios_of_sums(sums)
        targets = runs[0][0].sets[name].report["targets"]
        for key in FIGURES if targets else TARGET_FREE:
            points[key].append(whole[key])
            resampled[key].append(draws[key])
    return _mean_over_sets(points), _mean_over_sets(resampled)


def _mean_over_sets(
    figures: dict[str, list[NDArray[np.float64]]],
) -> dict[str, NDArray[np.float64]]:
    # A draw of frames without targets has no Pd: it is left out of that mean.
    means = {}
    for key, each in figures.items():
        if not each:  # of frames without targets alone
            continue
        stacked = np.stack(each)
        defined = ~np.isnan(stacked)
        count = defined.sum(axis=0)
        total = np.where(defined, stacked, 0).sum(axis=0)
        means[key] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means
