"""Which feature of a candidate tells best whether it is a target (docs/decisions/scores.md).

python experiments/scripts/score_features.py DIR [--models pinglow-fast,pinglow-base]

DIR has the folders of recipes/validation. A logistic function of each feature is fitted to four
fifths of the frames and scored on the others, ten times. A candidate is true as `pinglow calibrate`
counts it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import mannwhitneyu

from pinglow.data.folder import FrameFolder
from pinglow.inference.predictor import Predictor
from pinglow.metrics.matching import MAX_DISTANCE
from pinglow.models.score import bend_contrast, measure_contrast
from pinglow.structures import Component, FloatArray, components, find_targets, outline_candidates

LISTS = Path(__file__).parents[2] / "recipes" / "validation"
SETS = ("sirst", "irstd-1k", "nudt-sirst", "sirst-v2-extra")
ROUNDS, FOLDS = 10, 5
LEAST, MOST = 1e-4, 1 - 2.0**-24  # of a probability, for its log-odds
Values = NDArray[np.float64]
Feature = Callable[[FloatArray, Component], float]


def odds_inside(probability: FloatArray, candidate: Component) -> Values:
    """Log-odds of a candidate's pixels, falling."""
    inside = np.clip(candidate.pixels_of(probability).astype(np.float64), LEAST, MOST)
    return np.sort(logit(inside))[::-1]


FEATURES: dict[str, Feature] = {
    "mean log-odds inside": lambda map_, each: float(odds_inside(map_, each).mean()),
    "mean of the three highest": lambda map_, each: float(odds_inside(map_, each)[:3].mean()),
    "peak": lambda map_, each: float(odds_inside(map_, each)[0]),
    "contrast": measure_contrast,
    "logarithm of the contrast": lambda map_, each: float(
        bend_contrast(measure_contrast(map_, each))
    ),
}


def mark_true(found: list[Component], contrasts: list[float], truth: NDArray[np.bool_]) -> Values:
    """Which candidates are targets: the surer first, each target once."""
    targets = list(find_targets(truth))
    true = np.zeros(len(found))
    for number in np.argsort(contrasts)[::-1]:
        center = found[number].target()
        away = [np.hypot(each.x - center.x, each.y - center.y) for each in targets]
        if away and min(away) < MAX_DISTANCE:
            true[number] = 1
            targets.pop(int(np.argmin(away)))
    return true


def collect(root: Path, predictor: Predictor) -> Iterator[tuple[Values, Values]]:
    """Of each frame: the features (n, 5) of its candidates and which of them are true (n,)."""
    for name in SETS:
        folder = FrameFolder(root / name, str(LISTS / f"{name}.txt"))
        for number in track(range(len(folder.names)), name):
            frame, truth = folder.pair(number)
            map_ = predictor(frame).probability
            found = list(components(outline_candidates(map_)))
            rows = [[measure(map_, each) for measure in FEATURES.values()] for each in found]
            contrasts = [measure_contrast(map_, each) for each in found]
            yield np.array(rows).reshape(-1, len(FEATURES)), mark_true(found, contrasts, truth)


def loss_of(odds: Values, true: Values) -> float:
    """Mean log loss of log-odds."""
    return float(np.mean(np.logaddexp(0, odds) - true * odds))


def fit(x: Values, true: Values) -> Values:
    """Slope and intercept of the logistic function with the least log loss."""

    def loss(line: Values) -> float:
        return loss_of(line[0] * x + line[1], true)

    return np.asarray(minimize(loss, [0.1, 0.0]).x)


def cross_validate(values: list[Values], truths: list[Values]) -> float:
    """Log loss on frames that the logistic function was not fitted to."""
    losses = []
    for seed in range(ROUNDS):
        fold = np.random.default_rng(seed).permutation(len(values)) % FOLDS
        odds = []
        for number in range(FOLDS):
            fitted = [index for index in range(len(values)) if fold[index] != number]
            x = np.concatenate([values[index] for index in fitted])
            y = np.concatenate([truths[index] for index in fitted])
            best = fit(x, y)
            odds += [
                (index, best[0] * values[index] + best[1]) for index in np.where(fold == number)[0]
            ]
        ordered = [value for _, value in sorted(odds, key=lambda pair: pair[0])]
        losses.append(loss_of(np.concatenate(ordered), np.concatenate(truths)))
    return float(np.mean(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--models", default="pinglow-fast,pinglow-base")
    arguments = parser.parse_args()
    for model in arguments.models.split(","):
        predictor = Predictor.load(model)
        assert isinstance(predictor, Predictor)
        frames = list(collect(arguments.root, predictor))
        truths = [true for _, true in frames]
        true = np.concatenate(truths)
        table = Table(title=f"{model}: {len(true)} candidates, {int(true.sum())} true")
        for column in ("feature", "log loss", "equal scores", "AUC"):
            table.add_column(column)
        for number, name in enumerate(FEATURES):
            values = [rows[:, number] for rows, _ in frames]
            all_ = np.concatenate(values)
            equal = len(all_) - len(np.unique(all_))
            positive, negative = all_[true == 1], all_[true == 0]
            auc = mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))
            loss = cross_validate(values, truths)
            table.add_row(name, f"{loss:.3f}", str(equal), f"{auc:.2f}")
        Console().print(table)
        peaks = expit(np.concatenate([rows[:, 2] for rows, _ in frames]))
        print(f"peaks that a float32 rounds to 1: {100 * np.mean(peaks >= MOST):.0f} %")


if __name__ == "__main__":
    main()
