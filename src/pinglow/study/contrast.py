"""Differences between the arms of a study, with intervals over frames and seeds.

All runs are scored on the same frames, so a difference is taken frame by frame: the bootstrap draws
the same frames for every arm and seed, and then seeds, of which all arms of a contrast have the
same. Source: ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError
from pinglow.metrics.report import RESAMPLES, add_image_iou, ratios_of_sums, resample_sums
from pinglow.study.results import FIGURES, RunResult

FALLING: Final = ("fa",)
"""Figures of which less is better."""


@dataclass(frozen=True)
class Difference:
    """A figure's contrast between arms.

    Attributes:
        value: Mean over the common seeds of the contrast, the figure being its mean over data sets.
        interval: 95 %, bootstrap over frames and seeds.
        by_seed: The contrast of each common seed.
        positive: Share of the seeds' contrasts above 0.
    """

    value: float
    interval: tuple[float, float]
    by_seed: dict[int, float]

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


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
    for key in FIGURES:
        by_seed = points[key] @ factors  # (S,)
        draws = resampled[key] @ factors  # (R, S)
        if np.isnan(by_seed).any():
            continue
        means = np.nanmean(np.take_along_axis(draws, drawn, axis=1), axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        differences[key] = Difference(
            value=float(by_seed.mean()),
            interval=(float(low), float(high)),
            by_seed=dict(zip(seeds, map(float, by_seed), strict=True)),
        )
    return differences


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
                    f"{runs[0][0].arm}; delete its result and make it again"
                )
            columns.append(add_image_iou(run.sets[name].table()))
        shape = len(runs), len(runs[0]), columns[0].shape[1]
        together = np.concatenate(columns, axis=1)  # (N, S · A · 9): the same frames for all
        sums = resample_sums(together, seed + number).reshape(-1, *shape)
        whole = ratios_of_sums(together.sum(axis=0).reshape(shape))
        draws = ratios_of_sums(sums)
        for key in FIGURES:
            points[key].append(whole[key])
            resampled[key].append(draws[key])
    return _mean_over_sets(points), _mean_over_sets(resampled)


def _mean_over_sets(
    figures: dict[str, list[NDArray[np.float64]]],
) -> dict[str, NDArray[np.float64]]:
    # A set without targets has no Pd: it is left out of that mean.
    means = {}
    for key, each in figures.items():
        stacked = np.stack(each)
        defined = ~np.isnan(stacked)
        count = defined.sum(axis=0)
        total = np.where(defined, stacked, 0).sum(axis=0)
        means[key] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means
