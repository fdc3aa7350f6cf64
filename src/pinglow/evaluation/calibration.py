"""What a model's scores are worth, from its candidates in frames with known targets.

Source of the fit: Platt, Probabilistic outputs for support vector machines, 1999. It stays strictly
monotone, where bins or isotonic steps would make ties.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from pinglow.errors import DataError, FrameError
from pinglow.evaluation.pixels import Pair, Probability
from pinglow.inference.predictor import Predictor
from pinglow.metrics.matching import MAX_DISTANCE
from pinglow.models.score import (
    ReliabilityBin,
    ScoreCalibration,
    ScoreLevel,
    bend_contrast,
    measure_contrast,
)
from pinglow.structures import BoolArray, components, find_targets, outline_candidates

_FOLDS: Final = 5
_BINS: Final = 10
_FEWEST: Final = 10  # true candidates, and false ones, that a fit needs
_FLATTEST: Final = 1e-3  # slope, so that more contrast always scores more
_STEP: Final = 1.3  # of the false alarms from row to row of the table
_ROUND: Final = 1e4  # smallest scores in the table are multiples of 1 / this
_HIGHEST: Final = 1 - 1 / _ROUND


@dataclass(frozen=True, eq=False)
class _Frame:
    contrast: NDArray[np.float64]
    """(n,), of the candidates, bent."""
    true: BoolArray
    """(n,), which of them are targets."""
    bright: BoolArray
    """(n,), which of them reach the outline's threshold."""
    targets: int
    pixels: int


@dataclass
class CandidateCounter:
    """Collects the candidates of frames with known targets; what they come to is `fit`'s.

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
        found = [
            (measure_contrast(probability, each), each)
            for each in components(outline_candidates(probability, self.threshold))
        ]
        found.sort(key=lambda pair: -pair[0])
        targets = find_targets(truth)
        places = np.array([(target.x, target.y) for target in targets]).reshape(-1, 2)
        free = np.ones(len(targets), dtype=np.bool_)
        true, bright = np.zeros((2, len(found)), dtype=np.bool_)
        for number, (_, each) in enumerate(found):
            bright[number] = (each.pixels_of(probability) > self.threshold).any()
            candidate = each.target()
            away = np.hypot(*(places - (candidate.x, candidate.y)).T)
            away[~free] = np.inf
            if len(away) and away.min() < MAX_DISTANCE:
                true[number], free[away.argmin()] = True, False
        contrast = np.array([value for value, _ in found], dtype=np.float64)
        frame = _Frame(bend_contrast(contrast), true, bright, len(targets), probability.size)
        self._frames.setdefault(data, []).append(frame)

    def fit(self) -> ScoreCalibration:
        """Fit the scores, and count what each smallest score comes to.

        Raises:
            DataError: There are too few true candidates, or too few false ones.
        """
        contrast, true, bright = self._all()
        right, wrong = int(true.sum()), int((~true).sum())
        if min(right, wrong) < _FEWEST:
            raise DataError(
                f"{len(self._list())} frames have {right} true and {wrong} false candidates: "
                f"calibrating scores takes {_FEWEST} of each at least; give more frames, some "
                "without targets"
            )
        slope, intercept = _fit(contrast, true)
        scores = expit(slope * contrast + intercept)
        # As many are found as reach the threshold: halfway to the next candidate.
        nearest = np.sort(np.append(scores, [0.0, 1.0]))[::-1][bright.sum() : bright.sum() + 2]
        crossed = np.empty(len(true))
        counts = [len(frame.true) for frame in self._list()]
        fold = np.repeat(np.arange(len(counts)) % _FOLDS, counts)
        for number in range(_FOLDS):
            there = fold == number
            slope_there, intercept_there = _fit(contrast[~there], true[~there])
            crossed[there] = expit(slope_there * contrast[there] + intercept_there)
        fitted = {"slope": slope, "intercept": intercept, "min_score": float(nearest.mean())}
        levels = _choose_levels(scores[~true], fitted["min_score"])
        return self._report(scores, crossed, levels, fitted)

    def measure(self, calibration: ScoreCalibration) -> ScoreCalibration:
        """The same scores, and what the same smallest ones come to in these frames.

        Raises:
            DataError: There are no candidates or no targets.
        """
        contrast, true, _ = self._all()
        if not len(true) or not sum(frame.targets for frame in self._list()):
            raise DataError("the frames have no candidates or no targets: give others")
        scores = calibration.scores(contrast)
        kept = {key: getattr(calibration, key) for key in ("slope", "intercept", "min_score")}
        levels = [row.min_score for row in calibration.table]
        return self._report(scores, scores, levels, kept)

    def _list(self) -> list[_Frame]:
        return [frame for part in self._frames.values() for frame in part]

    def _all(self) -> tuple[NDArray[np.float64], BoolArray, BoolArray]:
        """Contrast, truth and brightness of every candidate, by frames."""
        frames = self._list()
        none = np.zeros(0, dtype=np.bool_)
        return (
            np.concatenate([np.zeros(0), *(frame.contrast for frame in frames)]),
            np.concatenate([none, *(frame.true for frame in frames)]),
            np.concatenate([none, *(frame.bright for frame in frames)]),
        )

    def _report(
        self,
        scores: NDArray[np.float64],
        honest: NDArray[np.float64],
        levels: list[float],
        fitted: dict[str, float],
    ) -> ScoreCalibration:
        """A calibration with its figures; ``honest`` are scores from other frames than these."""
        _, true, _ = self._all()
        bins = _reliability(honest, true)
        off = sum(each.candidates * abs(each.score - each.true) for each in bins)
        return ScoreCalibration.model_validate(
            fitted
            | {
                "ece": off / len(true),
                "reliability": bins,
                "highest": float(scores.max()),
                "table": _count(levels, scores, true, self._list()),
                "frames": [
                    {
                        "data": data,
                        "frames": len(part),
                        "targets": sum(frame.targets for frame in part),
                        "candidates": sum(len(frame.true) for frame in part),
                        "true": sum(int(frame.true.sum()) for frame in part),
                    }
                    for data, part in self._frames.items()
                ],
            }
        )


def collect_candidates(
    pairs: Iterable[Pair],
    predictor: Predictor,
    counter: CandidateCounter,
    data: str,
    on_broken: Callable[[str], object] | None = None,
) -> None:
    """Run a model over frames with known targets and add its candidates to those counted.

    Args:
        pairs: Names, frames (H, W) and masks (H, W).
        predictor: The model.
        counter: What is added to.
        data: What the frames are called in the card.
        on_broken: Called with the reason for each frame that cannot be predicted and is left out;
            None: such a frame raises.

    Raises:
        FrameError: A frame cannot be predicted.
    """
    shown: deque[tuple[str, BoolArray]] = deque()  # and not yet predicted

    def show() -> Iterator[NDArray[Any]]:
        for name, frame, mask in pairs:
            shown.append((name, mask))
            yield frame

    for found in predictor.probabilities(show()):
        name, mask = shown.popleft()
        if not isinstance(found, FrameError):
            counter.update(found, mask, data)
        elif on_broken is None:
            raise FrameError(f"{name}: {found}") from found
        else:
            on_broken(f"{name}: {found}")


def _fit(contrast: NDArray[np.float64], true: BoolArray) -> tuple[float, float]:
    """Slope, above 0, and intercept with the least log loss."""
    # Platt's targets: not quite 0 and 1, so that a perfect separation has a finite slope.
    right, wrong = int(true.sum()), int((~true).sum())
    wanted = np.where(true, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = parameters[0] * contrast + parameters[1]
        gradient = (expit(odds) - wanted) / len(wanted)
        value = float(np.mean(np.logaddexp(0, odds) - wanted * odds))
        return value, np.array([gradient @ contrast, gradient.sum()])

    bounds = [(_FLATTEST, None), (None, None)]
    found = minimize(loss, [0.1, 0.0], jac=True, bounds=bounds, method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])


def _reliability(scores: NDArray[np.float64], true: BoolArray) -> list[ReliabilityBin]:
    """Bins of equally many candidates, or one fewer."""
    order = np.argsort(scores, kind="stable")
    return [
        ReliabilityBin(
            score=float(scores[part].mean()), true=float(true[part].mean()), candidates=len(part)
        )
        for part in np.array_split(order, min(_BINS, len(order)))
    ]


def _choose_levels(false: NDArray[np.float64], default: float) -> list[float]:
    """Falling smallest scores that have ever more false alarms, the default one among them."""
    falling = np.sort(false)[::-1]
    counts = [0]
    while counts[-1] < len(falling):
        counts.append(min(len(falling), max(counts[-1] + 1, round(counts[-1] * _STEP))))
    # Each is the score of the first false candidate that it leaves out, rounded up; 0 leaves none.
    least = [min(math.ceil(each * _ROUND) / _ROUND, _HIGHEST) for each in falling[counts[:-1]]]
    return sorted({*least, default, 0.0}, reverse=True)


def _count(
    levels: list[float], scores: NDArray[np.float64], true: BoolArray, frames: Sequence[_Frame]
) -> list[ScoreLevel]:
    """What smallest scores come to, but for those that find nothing."""
    targets = sum(frame.targets for frame in frames)
    megapixels = sum(frame.pixels for frame in frames) / 1e6
    rows = []
    for level in levels:
        found = int((scores[true] > level).sum())
        alarms = int((scores[~true] > level).sum())
        rows.append(
            ScoreLevel(
                min_score=level,
                detections=found + alarms,
                pd=found / targets,
                alarms_per_frame=alarms / len(frames),
                alarms_per_megapixel=alarms / megapixels,
            )
        )
    return [row for row in rows if row.pd]
