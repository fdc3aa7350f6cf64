"""Differences between the arms of a study, with intervals over frames and seeds.

All runs are scored on the same frames, so a difference is taken frame by frame: the bootstrap draws
the same frames for every arm and seed. How far another seed would have moved it, two or three seeds
of two arms cannot say; all arms of the study together can: what is left of their figures once each
arm's and each seed's own effect is taken out is taken to spread alike in all of them. Student's t
with what remains of degrees of freedom adds it. With two arms alone, this is the paired t interval.
Source: ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError
from pinglow.metrics.report import RESAMPLES, mean_defined, percentile_interval, resample_together
from pinglow.study.results import FIGURES, TARGET_FREE, RunResult

_SEED_DRAWS: Final = 50


@dataclass(frozen=True)
class Difference:
    """A figure's contrast between arms.

    Attributes:
        value: Mean over the common seeds of the contrast, the figure being its mean over data sets.
        interval: 95 %, over frames (bootstrap) and seeds; over frames alone without `freedom`.
        by_seed: The contrast of each common seed.
        freedom: Degrees of freedom of the spread over seeds; 0 where the runs are too few for one.
    """

    value: float
    interval: tuple[float, float]
    by_seed: dict[int, float]
    freedom: int

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0; never if nothing is known of other seeds."""
        return self.freedom > 0 and (self.interval[0] > 0 or self.interval[1] < 0)


def contrast_arms(
    results: Sequence[RunResult], weights: Mapping[str, float], seed: int = 0
) -> dict[str, Difference]:
    """The weighted sum of arms' figures: {"a": 1, "b": -1} is how much more a has than b.

    Args:
        results: Of a study; failed runs are left out. The spread over seeds is that of them all.
        weights: Of each arm; their sum is 0, so that what a seed does to all arms cancels.
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
    points, resampled = _figures(compared, seed)
    differences = {}
    for key in points:
        by_seed = points[key] @ factors  # (S,)
        draws = resampled[key] @ factors  # (R, S)
        if np.isnan(by_seed).any():
            continue
        means = draws.mean(axis=1)
        spread, freedom = _seed_spread(list(runs.values()), key)
        if freedom:
            error = spread * math.sqrt(float(factors @ factors) / len(seeds))
            # Many draws of seeds for each draw of frames: few would reach the tails, which decide.
            means = means + error * random.standard_t(freedom, (_SEED_DRAWS, RESAMPLES))
        interval = percentile_interval(means)
        if interval is None:
            continue
        differences[key] = Difference(
            value=float(by_seed.mean()),
            interval=interval,
            by_seed=dict(zip(seeds, map(float, by_seed), strict=True)),
            freedom=freedom,
        )
    return differences


def _seed_spread(runs: list[RunResult], key: str) -> tuple[float, int]:
    """Standard deviation of a figure without its arm's and its seed's effect, and its freedom."""
    figures = np.array([run.figure(key) for run in runs])
    known = [run for run, figure in zip(runs, figures, strict=True) if not math.isnan(figure)]
    arms, seeds = sorted({run.arm for run in known}), sorted({run.seed for run in known})
    effects = [
        [run.arm == arm for arm in arms] + [run.seed == seed for seed in seeds] for run in known
    ]
    design = np.array(effects, dtype=np.float64)
    values = figures[~np.isnan(figures)]
    fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = len(values) - int(rank)
    left = values - design @ fitted
    return (math.sqrt(left @ left / freedom), freedom) if freedom else (0.0, 0)


def _figures(
    runs: list[list[RunResult]], seed: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Means over data sets of each figure: (S, A) as they are, and (R, S, A) resampled."""
    names = list(runs[0][0].sets)
    points: dict[str, list[NDArray[np.float64]]] = {key: [] for key in FIGURES}
    resampled: dict[str, list[NDArray[np.float64]]] = {key: [] for key in FIGURES}
    for number, name in enumerate(names):
        frames = runs[0][0].sets[name].frames
        tables = []
        for run in (each for row in runs for each in row):
            if list(run.sets) != names or run.sets[name].frames != frames:
                raise DataError(
                    f"{run.arm}, seed {run.seed} was scored on other frames than "
                    f"{runs[0][0].arm}; arms that are compared need the same lists in data.sets "
                    "(their weights may differ)"
                )
            tables.append(run.sets[name].table())
        whole, draws = resample_together(tables, seed + number)
        shape = len(runs), len(runs[0])
        targets = runs[0][0].sets[name].report["targets"]
        for key in FIGURES if targets else TARGET_FREE:
            points[key].append(whole[key].reshape(shape))
            resampled[key].append(draws[key].reshape(-1, *shape))
    return _mean_over_sets(points), _mean_over_sets(resampled)


def _mean_over_sets(
    figures: dict[str, list[NDArray[np.float64]]],
) -> dict[str, NDArray[np.float64]]:
    # A draw of frames without targets has no Pd: it is left out of that mean. A figure has no set
    # at all where all frames are without targets.
    return {key: mean_defined(each) for key, each in figures.items() if each}
