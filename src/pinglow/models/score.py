"""What the score of a detection means: its calibration, which a model's card carries.

A candidate is a component of the probability map. Its score is a logistic function of the logarithm
of its contrast, fitted to the share of such candidates that are true, on frames that the model was
not trained on (docs/decisions/scores.md).
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit

from pinglow.errors import OptionError
from pinglow.structures import Component, FloatArray

_AROUND: Final = 5  # pixels on each side of a candidate's box
_DARKEST: Final = 1e-4  # what the network is surer of than that says nothing about a candidate
_BRIGHTEST: Final = 1 - 2.0**-24  # beyond it a float32 is rounded to 1


def measure_contrast(probability: FloatArray, candidate: Component) -> float:
    """How far a candidate's peak is above its surroundings, in log-odds, up to 26.

    The surroundings are the mean over the other pixels of its box, five pixels wider on each side.
    They tell candidates apart whose peaks a float32 rounds to 1, and count a ragged one for less.
    It may be below 0 beside a brighter candidate.

    Args:
        probability: (H, W) in [0, 1].
        candidate: A component of the map's outlines.
    """
    rows, columns = (
        slice(max(0, each.start - _AROUND), each.stop + _AROUND) for each in candidate.place
    )
    clipped = np.clip(probability[rows, columns].astype(np.float64), _DARKEST, _BRIGHTEST)
    odds = np.log(clipped) - np.log1p(-clipped)
    inside = np.zeros(odds.shape, dtype=np.bool_)
    top, left = (
        each.start - wide.start for each, wide in zip(candidate.place, (rows, columns), strict=True)
    )
    height, width = candidate.inside.shape
    inside[top : top + height, left : left + width] = candidate.inside
    around = odds[~inside]
    return float(odds[inside].max() - (around.mean() if len(around) else math.log(_DARKEST)))


def bend_contrast(contrast: ArrayLike) -> NDArray[np.float64]:
    """The logarithm of contrasts of any shape; below 3 smoothly bent, so that none is too low."""
    return np.asarray(np.log(np.logaddexp(0, contrast)))


class ScoreLevel(BaseModel):
    """What a smallest score comes to, on the frames that the calibration rests on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_score: float = Field(ge=0, lt=1)
    detections: int = Field(description="true and false ones together")
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

    feature: Literal["contrast"] = Field(default="contrast", description="`measure_contrast`")
    slope: float = Field(gt=0)
    intercept: float
    min_score: float = Field(
        ge=0, lt=1, description="the default: finds as many as reach the outline's threshold"
    )
    ece: float = Field(description="expected calibration error, cross-validated over frames")
    reliability: list[ReliabilityBin] = Field(description="cross-validated as well")
    highest: float = Field(description="no candidate of the frames scored above it")
    table: list[ScoreLevel] = Field(description="falling min_score")
    frames: list[dict[str, Any]] = Field(description="data, list, frames, targets, candidates")

    def score(self, probability: FloatArray, candidate: Component) -> float:
        """The score of a candidate in an (H, W) probability map."""
        return float(self.scores(bend_contrast(measure_contrast(probability, candidate))))

    def scores(self, bent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of bent contrasts of any shape."""
        return np.asarray(expit(self.slope * bent + self.intercept))

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
