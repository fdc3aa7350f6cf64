"""What training has changed of the weights that it started from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pinglow.evaluation.compare import Difference, judge
from pinglow.metrics.scores import SCORES
from pinglow.training.task import TrainingTask


class Reached(NamedTuple):
    """A validation's score, and what it is over draws of its frames, (R,), the same each time."""

    score: float
    draws: Tensor | None

    @classmethod
    def by(cls, task: TrainingTask) -> Reached:
        """What a task has reached in its last validation."""
        draws = task.draw_score()
        return cls(task.score, None if draws is None else torch.from_numpy(draws))


class Gain(NamedTuple):
    """Before and after.

    Attributes:
        key: The score.
        before: Of the weights that the run started from.
        after: Of the best validation, whose weights are kept.
        best_step: Its step; 0: that is the start.
        frames: How many validate.
        difference: With its interval; None where none is known of the score.
    """

    key: str
    before: float
    after: float
    best_step: int
    frames: int
    difference: Difference | None

    @classmethod
    def between(
        cls, key: str, before: Reached, after: Reached, best_step: int, frames: int
    ) -> Gain:
        """What lies between two validations on the same frames."""
        difference = None
        if before.draws is not None and after.draws is not None:
            draws = torch.stack([before.draws, after.draws], dim=1).numpy()
            scores = np.array([before.score, after.score])
            difference = judge(key, scores, draws, frames)
        return cls(key, before.score, after.score, best_step, frames, difference)

    def describe(self) -> str:
        """In a line."""
        name = SCORES[self.key].name
        line = f"before -> after: {name} {self.before:.3f} -> {self.after:.3f}"
        if not self.best_step:
            return f"{line}: no validation was better than the start, whose weights are kept"
        if self.difference is not None:
            low, high = self.difference.interval
            line += (
                f", {self.difference.value:+.3f} [{low:+.3f}, {high:+.3f}] over {self.frames} "
                f"validation frames: {self.difference.verdict}"
            )
        return line
