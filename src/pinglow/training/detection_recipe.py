"""The recipe of a detector."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pinglow.errors import RecipeError
from pinglow.inference.detector import DETECTORS
from pinglow.training.recipe import DataSection, DataSet, RunRecipe, Section

BoxSource = Literal["masks", "voc", "yolo", "coco"]


class DetectorSection(Section):
    """The detector."""

    type: str = Field(default="yolov8n-p2", description="a key of pinglow.detection's DETECTORS")
    gaussian: bool = Field(default=False, description="GaussianConv2d in the first layers")
    box_loss: Literal["own", "ciou", "sdb", "diff"] = Field(
        default="own", description="the loss for boxes; own: the detector's library's"
    )


class BoxDataSet(DataSet):
    """One list of one data folder, and where its boxes are."""

    boxes: BoxSource | None = Field(
        default=None, description="masks, voc, yolo or coco; the first that the folder has"
    )


class BoxDataSection(DataSection):
    """What to train on; see `DataSection`."""

    sets: tuple[BoxDataSet, ...] = Field(min_length=1)


class DetectorRecipe(RunRecipe):
    """A training run of a detector."""

    bundled_in: ClassVar[str] = "detectors"
    trained_by: ClassVar[str] = "pinglow detect train"

    data: BoxDataSection
    detector: DetectorSection = DetectorSection()

    def check(self, source: str) -> None:
        """See `RunRecipe.check`."""
        super().check(source)
        if self.detector.type not in DETECTORS:
            raise RecipeError(
                f"{source}: detector.type is {self.detector.type!r}; use one of "
                f"{', '.join(DETECTORS)}"
            )
        for augmentation, batch_size in self.phase_list():
            if augmentation.crop % 32:
                raise RecipeError(
                    f"{source}: augmentation.crop is {augmentation.crop}; detectors need a "
                    "multiple of 32"
                )
            if batch_size == 1 and augmentation.crop == 32:
                raise RecipeError(
                    f"{source}: one view of 32 pixels leaves a single value at the coarsest "
                    "level, which BatchNorm cannot take; enlarge batch_size or augmentation.crop"
                )
