"""validation.png."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from pinglow.training.pictures import draw_validation
from pinglow.training.task import TrainingTask, ValidationFrame


def test_frames_with_targets_are_drawn_first_below_each_other(tmp_path: Path) -> None:
    frames = []
    for index in range(9):
        truth = np.zeros((32, 32), dtype=bool)
        truth[10:12, 10:12] = index in (3, 7)
        frames.append(ValidationFrame("sea", np.full((32, 32), index), truth))
    asked: list[int] = []

    class Task:
        def find_masks(self, shown: list[ValidationFrame]) -> Any:
            asked.extend(int(frame.counts[0, 0]) for frame in shown)
            return [(frame.truth, ~frame.truth) for frame in shown]

    draw_validation(cast(TrainingTask, Task()), frames, tmp_path / "validation.png")
    assert asked == [3, 7, 0, 1]
    with Image.open(tmp_path / "validation.png") as picture:
        assert picture.height > picture.width / 2  # four rows of three panels
