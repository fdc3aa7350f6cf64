"""validation.png: frames that validate, their truth, and what the network finds in them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from pinglow.files import write_whole
from pinglow.output.panels import draw_panels
from pinglow.training.task import TrainingTask, ValidationFrame

_FRAMES: Final = 4


def draw_validation(task: TrainingTask, frames: Sequence[ValidationFrame], path: Path) -> None:
    """Draw some frames below each other, those with targets first; the same ones each time.

    Raises:
        OSError: The file cannot be written.
    """
    with_targets = [frame for frame in frames if frame.truth.any()]
    others = [frame for frame in frames if not frame.truth.any()]
    # From all over the list: neighbors are often alike.
    spread = with_targets[:: max(1, len(with_targets) // _FRAMES)]
    shown = [*spread, *others][:_FRAMES]
    rows = [
        draw_panels(frame.counts, truth, {"found": found}, title=frame.dataset)
        for frame, (truth, found) in zip(shown, task.find_masks(shown), strict=True)
    ]
    size = max(row.width for row in rows), sum(row.height for row in rows)
    picture = Image.new("RGB", size)
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height
    content = io.BytesIO()
    picture.save(content, "png")
    write_whole(path, content.getvalue(), durable=False)  # can be drawn again
