"""Results of a prediction as labels: targets.jsonl, and masks/ where they were saved."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from pinglow.data.boxes import mask_regions
from pinglow.data.folder import read_mask
from pinglow.data.images import common_folder
from pinglow.errors import DataError
from pinglow.io.labels.boxes import Shape
from pinglow.io.labels.marks import Box, Region
from pinglow.io.labels.text import read_text
from pinglow.terminal import warn_once

RESULTS: Final = "targets.jsonl"

Form = tuple[Region | Box, float | None]
"""A target as its pixels or its box, and its score; None of a target that is known."""


class _Target(BaseModel):
    bbox: tuple[int, int, int, int]
    score: float


class _Line(BaseModel):
    source: str
    frame: int = Field(ge=0)
    name: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    targets: list[_Target]


class ResultFolder:
    """Predicted targets of frames, in the order in which they were predicted.

    Args:
        folder: Holds targets.jsonl and, to have more than boxes, masks/.

    Attributes:
        names: What the frames' pictures are called.

    Raises:
        DataError: The table is missing, broken or empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / RESULTS
        self._lines = []
        for number, text in enumerate(read_text(path, largest=2**30).splitlines(), start=1):
            try:
                self._lines.append(_Line.model_validate(json.loads(text)))
            except (ValidationError, ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number}, is no frame of pinglow's: predict again with --save "
                    "mask,jsonl"
                ) from error
        if not self._lines:
            raise DataError(f"{path} has no frame: predict with --save mask,jsonl")
        self.names = [line.name for line in self._lines]
        self._pages = Counter(line.source for line in self._lines)
        self._base = common_folder(Path(line.source) for line in self._lines)

    def image(self, index: int) -> Path:
        """The frame's file, as it was named to predict."""
        return Path(self._lines[index].source)

    def file_name(self, index: int) -> str:
        """The frame's file below the folder that all frames have in common.

        Raises:
            DataError: It holds several frames, which annotation tools do not show.
        """
        line = self._lines[index]
        if self._pages[line.source] > 1 or line.frame:
            raise DataError(
                f"{line.source}, frame {line.frame}, is one of several in a file: save each to a "
                "file of its own and predict those"
            )
        return Path(line.source).relative_to(self._base).as_posix()

    def shape(self, index: int) -> Shape:
        """(H, W) of the frame."""
        return self._lines[index].height, self._lines[index].width

    def forms(self, index: int) -> list[Form]:
        """The pixels of each target, or its box where no mask was saved, and its score.

        Raises:
            DataError, FrameError: The mask is broken, of another size or of other targets.
        """
        line = self._lines[index]
        path = self._folder / "masks" / f"{line.name}_mask.png"
        if not path.is_file():
            if line.targets:
                warn_once(
                    f"no masks in {self._folder}",
                    f"{self._folder} has no {path.name}: targets are written as boxes; predict "
                    "with --save mask,jsonl to have their pixels",
                )
            return [(Box(*map(float, target.bbox)), target.score) for target in line.targets]
        mask = read_mask(path).targets
        if mask.shape != self.shape(index):
            raise DataError(f"{path} is of another size than its frame: predict again")
        scores: dict[Any, float] = {target.bbox: target.score for target in line.targets}
        found: list[Form] = []
        for region in mask_regions(mask):
            height, width = region.pixels.shape
            score = scores.pop((region.left, region.top, width, height), None)
            if score is None:
                raise DataError(f"{path} and {RESULTS} have other targets: predict again")
            found.append((region, score))
        return sorted(found, key=lambda each: -(each[1] or 0))


def is_results(folder: Path) -> bool:
    """Whether a folder holds results of a prediction."""
    return (folder / RESULTS).is_file()
