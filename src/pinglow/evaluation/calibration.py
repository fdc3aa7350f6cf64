"""What a model's scores are worth, from its candidates in frames with known targets.

Source of the fit: Platt, Probabilistic outputs for support vector machines, 1999. It stays strictly
monotone, where bins or isotonic steps would make ties.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from pinglow.errors import DataError, FrameError
from pinglow.evaluation.pixels import Pair, Probability
from pinglow.metrics.matching import MAX_DISTANCE
from pinglow.models.score import (
    FEATURES,
    ReliabilityBin,
    ScoreCalibration,
    ScoreLevel,
    find_features,
)
from pinglow.structures import BoolArray, components, find_targets, outline_candidates

_FOLDS: Final = 5
_BINS: Final = 10
_FEWEST: Final = 10  # true candidates, and false ones, that a fit needs
_LEAST: Final = 1e-3  # weight of the peak, so that a brighter one always scores more
_STEP: Final = 1.3  # of the false alarms from row to row of the table
_ROUND: Final = 1e4  # smallest scores in the table are multiples of 1 / this
_HIGHEST: Final = 1 - 1 / _ROUND


@dataclass(frozen=True, eq=False)
class _Frame:
    features: NDArray[np.float64]
    """(n, F), the candidates'."""
    true: BoolArray
    """(n,), which of them are targets."""
    targets: int
    pixels: int


@dataclass
class CandidateCounter:
    """Collects the candidates of frames with known targets; what they come to is `compute`'s.

    Args:
        threshold: The outline level; see `pinglow.structures.outline_candidates`.
    """

    threshold: float = 0.5
    _frames: dict[str, list[_Frame]] = field(default_factory=dict)

    def update(self, probability: Probability, truth: BoolArray, data: str = "") -> None:
        """Add a frame (H, W) of a data set.

        A candidate is true if its center is less than 3 pixels from that of a target which no
        surer candidate has taken.
        """
        outlines = components(outline_candidates(probability, self.threshold))
        found = [(each.target(), find_features(each.pixels_of(probability))) for each in outlines]
        found.sort(key=lambda pair: (-pair[1]["peak"], -pair[1]["size"]))
        targets = find_targets(truth)
        places = np.array([(target.x, target.y) for target in targets]).reshape(-1, 2)
        free = np.ones(len(targets), dtype=np.bool_)
        true = np.zeros(len(found), dtype=np.bool_)
        for number, (candidate, _) in enumerate(found):
            away = np.hypot(*(places - (candidate.x, candidate.y)).T)
            away[~free] = np.inf
            if len(away) and away.min() < MAX_DISTANCE:
                true[number], free[away.argmin()] = True, False
        rows = [[features[name] for name in FEATURES] for _, features in found]
        features = np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES))
        frame = _Frame(features, true, len(targets), probability.size)
        self._frames.setdefault(data, []).append(frame)

    def merge(self, other: Self) -> None:
        """Add the frames of another one."""
        for data, frames in other._frames.items():
            self._frames.setdefault(data, []).extend(frames)

    def compute(self) -> ScoreCalibration:
        """Fit the scores, and count what each smallest score comes to.

        Raises:
            DataError: There are too few true candidates, or too few false ones.
        """
        frames = [frame for part in self._frames.values() for frame in part]
        features = np.concatenate([np.zeros((0, len(FEATURES))), *(f.features for f in frames)])
        true = np.concatenate([np.zeros(0, dtype=np.bool_), *(frame.true for frame in frames)])
        right, wrong = int(true.sum()), int((~true).sum())
        if min(right, wrong) < _FEWEST:
            raise DataError(
                f"{len(frames)} frames have {right} true and {wrong} false candidates: a score is "
                f"calibrated with at least {_FEWEST} of each; give more frames, some without "
                "targets"
            )
        fitted = _fit(features, true)
        fold = np.repeat(np.arange(len(frames)) % _FOLDS, [len(frame.true) for frame in frames])
        crossed = np.empty(len(true))
        for number in range(_FOLDS):
            there = fold == number
            crossed[there] = _apply(_fit(features[~there], true[~there]), features[there])
        bins = _reliability(crossed, true)
        scores = _apply(fitted, features)
        return ScoreCalibration(
            weights=dict(zip(FEATURES, fitted[:-1].tolist(), strict=True)),
            bias=float(fitted[-1]),
            min_score=0.5,
            ece=float(sum(each.candidates * abs(each.score - each.true) for each in bins))
            / len(true),
            reliability=bins,
            highest=float(scores.max()),
            table=_table(scores, true, frames),
            frames=[
                {
                    "data": data,
                    "frames": len(part),
                    "targets": sum(frame.targets for frame in part),
                    "candidates": sum(len(frame.true) for frame in part),
                }
                for data, part in self._frames.items()
            ],
        )


def collect_candidates(
    pairs: Iterable[Pair],
    predict: Callable[[Iterable[NDArray[Any]]], Iterable[Probability | FrameError]],
    data: str,
    *,
    threshold: float = 0.5,
    on_broken: Callable[[str], object] | None = None,
) -> CandidateCounter:
    """Run a model over frames with known targets and collect its candidates.

    Args:
        pairs: Names, frames (H, W) and masks (H, W).
        predict: Maps frames to their probability maps, or why there are none, in their order, as
            `Predictor.probabilities`.
        data: What the frames are called in the card.
        threshold: The outline level: the card's.
        on_broken: Called with the reason for each frame that cannot be predicted and is left out;
            None: such a frame raises.

    Raises:
        FrameError: A frame cannot be predicted.
    """
    counter = CandidateCounter(threshold)
    shown: deque[tuple[str, BoolArray]] = deque()  # and not yet predicted

    def show() -> Iterator[NDArray[Any]]:
        for name, frame, mask in pairs:
            shown.append((name, mask))
            yield frame

    for found in predict(show()):
        name, mask = shown.popleft()
        if not isinstance(found, FrameError):
            counter.update(found, mask, data)
        elif on_broken is None:
            raise FrameError(f"{name}: {found}") from found
        else:
            on_broken(f"{name}: {found}")
    return counter


def _fit(features: NDArray[np.float64], true: BoolArray) -> NDArray[np.float64]:
    """Weights of the features, none below 0, and the bias (F + 1,) with the least log loss."""
    # Platt's targets: not quite 0 and 1, so that a perfect separation has a finite slope.
    right, wrong = true.sum(), (~true).sum()
    wanted = np.where(true, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total = features @ parameters[:-1] + parameters[-1]
        slope = (expit(total) - wanted) / len(wanted)
        return (
            float(np.mean(np.logaddexp(0, total) - wanted * total)),
            np.append(features.T @ slope, slope.sum()),
        )

    count = features.shape[1]
    start = np.append(np.full(count, 0.1), 0.0)
    bounds = [(_LEAST, None), *[(0.0, None)] * (count - 1), (None, None)]
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return np.asarray(found.x)


def _apply(parameters: NDArray[np.float64], features: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(expit(features @ parameters[:-1] + parameters[-1]))


def _reliability(scores: NDArray[np.float64], true: BoolArray) -> list[ReliabilityBin]:
    """Bins of equally many candidates, or one fewer."""
    order = np.argsort(scores, kind="stable")
    return [
        ReliabilityBin(
            score=float(scores[part].mean()), true=float(true[part].mean()), candidates=len(part)
        )
        for part in np.array_split(order, min(_BINS, len(order)))
    ]


def _table(
    scores: NDArray[np.float64], true: BoolArray, frames: Sequence[_Frame]
) -> list[ScoreLevel]:
    """What smallest scores come to, from none of the false candidates to all."""
    targets = sum(frame.targets for frame in frames)
    megapixels = sum(frame.pixels for frame in frames) / 1e6
    falling = np.sort(scores[~true])[::-1]
    counts = [0]
    while counts[-1] < len(falling):
        counts.append(min(len(falling), max(counts[-1] + 1, round(counts[-1] * _STEP))))
    # Each is the score of the first false candidate that it leaves out, rounded up; 0 leaves none.
    least = [min(math.ceil(each * _ROUND) / _ROUND, _HIGHEST) for each in falling[counts[:-1]]]
    rows = []
    for min_score in sorted({*least, 0.0}, reverse=True):
        alarms = int((falling > min_score).sum())
        rows.append(
            ScoreLevel(
                min_score=min_score,
                pd=int((scores[true] > min_score).sum()) / targets,
                alarms_per_frame=alarms / len(frames),
                alarms_per_megapixel=alarms / megapixels,
            )
        )
    return [row for row in rows if row.pd]
