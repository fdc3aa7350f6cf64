"""What the score of a detection means: its calibration, which a model's card carries.

A candidate is a component of the probability map. Its score is a logistic function of a few numbers
about its pixels' logits, none of which lowers it, fitted to the share of such candidates that are
true on frames that the model was not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pinglow.errors import OptionError

_TINY: Final = 2.0**-24
"""Nearest to 0 and to 1 that a probability counts as: beyond it a float32 is rounded to 1."""


def logits(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Log-odds of probabilities of any shape, from -16.6 to 16.6."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), _TINY, 1 - _TINY)
    return np.asarray(np.log(p) - np.log1p(-p))


FEATURES: Final[dict[str, Callable[[NDArray[np.float64]], float]]] = {
    "peak": lambda values: float(values.max()),
    "mean": lambda values: float(values.mean()),
    "size": lambda values: math.log(len(values)),
}
"""Numbers about a candidate, from the logits of its n pixels (n,)."""


def find_features(probabilities: NDArray[Any]) -> dict[str, float]:
    """The features of a candidate, from the probabilities of its n pixels (n,)."""
    values = logits(probabilities)
    return {name: feature(values) for name, feature in FEATURES.items()}


class ScoreLevel(BaseModel):
    """What a smallest score comes to, on the frames that the calibration rests on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_score: float = Field(ge=0, lt=1)
    pd: float = Field(description="share of the true targets that are found")
    alarms_per_frame: float
    alarms_per_megapixel: float


class ReliabilityBin(BaseModel):
    """Candidates of about one score: how many of them are true."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: float = Field(description="their mean score")
    true: float = Field(description="share of them that is true")
    candidates: int


class ScoreCalibration(BaseModel):
    """How a model's score is made and what it is worth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: dict[str, float] = Field(description="of the features; see FEATURES")
    bias: float
    min_score: float = Field(ge=0, lt=1, description="above which a candidate is a target")
    ece: float = Field(description="expected calibration error, cross-validated over frames")
    reliability: list[ReliabilityBin] = Field(description="cross-validated as well")
    highest: float = Field(description="no candidate of the frames scored above it")
    table: list[ScoreLevel] = Field(description="falling min_score")
    frames: list[dict[str, Any]] = Field(description="data, list, frames, targets, candidates")

    @model_validator(mode="after")
    def _check(self) -> ScoreCalibration:
        unknown = self.weights.keys() - FEATURES.keys()
        if unknown or min(self.weights.values(), default=-1) < 0 or not any(self.weights.values()):
            raise ValueError(f"weights of {', '.join(FEATURES)}, none below 0 and one above")
        return self

    def score(self, probabilities: NDArray[Any]) -> float:
        """The score of a candidate, from the probabilities of its n pixels (n,)."""
        features = find_features(probabilities)
        total = self.bias + sum(self.weights[name] * features[name] for name in self.weights)
        return 1 / (1 + math.exp(-total)) if total > -700 else 0.0

    def score_for(self, alarms_per_frame: float) -> float:
        """The lowest smallest score with at most so many false alarms a frame.

        Raises:
            OptionError: The table has none.
        """
        fitting = [row for row in self.table if row.alarms_per_frame <= alarms_per_frame]
        if not fitting:
            least = self.table[0].alarms_per_frame if self.table else math.nan
            raise OptionError(
                f"alarms_per_frame is {alarms_per_frame:g}, and the card's table has no score with "
                f"so few false alarms: use {least:g} or more"
            )
        return min(row.min_score for row in fitting)

    def level_of(self, min_score: float) -> ScoreLevel:
        """The row of the table with the highest smallest score that is not above this one."""
        return next((row for row in self.table if row.min_score <= min_score), self.table[-1])
