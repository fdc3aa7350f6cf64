"""The names of scores: what a report's fields are called, and how they are shown."""

from __future__ import annotations

from typing import Final, NamedTuple


class Score(NamedTuple):
    """How a field of a report is shown.

    Attributes:
        name: What it is called.
        factor: By which its value is multiplied.
        unit: Of the product.
        digits: Of the product, after the point.
        good: 1 where more is better, -1 where less is.
    """

    name: str
    factor: float = 100
    unit: str = "%"
    digits: int = 2
    good: int = 1

    @property
    def heading(self) -> str:
        """Name and unit, for a column."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def show(self, value: float | None, digits: int | None = None) -> str:
        """A value as a number in its unit; - where there is none."""
        digits = self.digits if digits is None else digits
        return "-" if value is None else f"{value * self.factor:.{digits}f}"


SCORES: Final = {
    "ap50": Score("mAP50"),
    "ap": Score("mAP50:95"),
    "iou": Score("IoU"),
    "niou": Score("nIoU"),
    "pd": Score("Pd"),
    "fa": Score("Fa", 1e6, "1e-6", good=-1),
    "precision": Score("precision"),
    "recall": Score("recall"),
    "f1": Score("F1"),
    "false_alarms_per_image": Score("false alarms a frame", 1, "", 3, good=-1),
}
"""Scores by the name of their field in `Report` and `BoxReport`."""
