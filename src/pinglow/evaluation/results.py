"""A method's results on a list of frames, from which its scores can be made again.

All that is kept of a frame adds up, so scores of any part of the list come out of them without
the model and the data; and the pixels that were found are kept, for pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from pinglow._version import __version__
from pinglow.data.boxes import fill_boxes
from pinglow.io.labels.boxes import stack_boxes
from pinglow.metrics import PROTOCOLS, BoxReport, BoxScorer, ImageCounts, Protocol, Report
from pinglow.metrics.pixels import IntArray
from pinglow.metrics.report import FloatArray, SizeCounts, make_report, resample_together
from pinglow.structures import TARGET_SIZES, BoolArray

FORMAT: Final = 1
"""Of results files."""

Counts = tuple[int, ...]


class FrameResult(BaseModel):
    """What is kept of a frame whose pixels were scored.

    Attributes:
        digest: See `digest_truth`.
        counts: An `ImageCounts`.
        sizes: The numbers of its `Scorer.sizes`, row by row.
        curve: Matches, false pixels and components at each threshold of the curve.
        shape: (H, W) of what was scored.
        found: First pixel and length, in turn, of each run of predicted pixels in raster order;
            None where there are too many.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str
    counts: Counts
    sizes: Counts
    curve: tuple[tuple[int, int, int], ...]
    shape: tuple[int, int]
    found: Counts | None


class BoxFrameResult(BaseModel):
    """What is kept of a frame whose boxes were scored.

    Attributes:
        digest: See `digest_truth`.
        boxes: (left, top, width, height, score) of each predicted box.
        true: (left, top, width, height) of each true one.
        shape: (H, W) of the frame.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str
    boxes: tuple[tuple[float, float, float, float, float], ...]
    true: tuple[tuple[float, float, float, float], ...]
    shape: tuple[int, int]


class Tradeoff(NamedTuple):
    """What is found at each threshold, summed over frames.

    Attributes:
        matches: (K,) found targets.
        false_area: (K,) pixels of false alarms.
        found: (K,) predicted components or boxes.
        targets: Of all frames.
        pixels: Of all frames.
    """

    matches: FloatArray
    false_area: FloatArray
    found: FloatArray
    targets: int
    pixels: int


class Results(BaseModel):
    """What a method reaches on each frame of a list, under one protocol.

    Attributes:
        format: Of the file.
        method: What tables call it.
        origin: The model or saved maps, their hashes, and how they were used or read.
        pinglow: The version that scored it.
        data: The folder.
        list: The split.
        protocol: The protocol's name.
        threshold: A pixel, or a box, is predicted above this.
        left_out: Names of the list's frames that are not in ``frames``.
        reasons: Why they have no scores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    compared: ClassVar[tuple[str, ...]]
    """The scores that are compared."""
    shown: ClassVar[tuple[str, ...]]
    """Those of tables that people read."""

    format: int = FORMAT
    method: str
    origin: dict[str, Any]
    pinglow: str = __version__
    data: str
    list: str
    protocol: str
    threshold: float
    frames: Mapping[str, FrameResult | BoxFrameResult]
    left_out: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Of all frames of the list."""
        return frozenset(self.frames) | frozenset(self.left_out)

    def fits(
        self, origin: Mapping[str, Any], how: tuple[Protocol, float], digests: Mapping[str, str]
    ) -> bool:
        """Whether these are the results that a method would have again.

        Args:
            origin: The method's.
            how: Protocol and threshold.
            digests: Of each frame of the list that can be read.
        """
        return (
            self.pinglow == __version__
            and self.origin == dict(origin)
            and (self.protocol, self.threshold) == (how[0].name, how[1])
            and {name: each.digest for name, each in self.frames.items()} == dict(digests)
        )

    def report(self, names: Sequence[str]) -> Report | BoxReport:
        """The scores of some frames, the same as their scorer gives."""
        raise NotImplementedError

    def resample(self, names: Sequence[str], seed: int = 0) -> dict[str, FloatArray]:
        """Each score over draws of some frames, (R,), the same draws for all methods."""
        raise NotImplementedError

    def trade_off(self, names: Sequence[str]) -> Tradeoff:
        """What is found in some frames at each threshold."""
        raise NotImplementedError

    def find_sizes(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """How many targets there are in some frames, and how many are found, by true area."""
        raise NotImplementedError

    def count_errors(self, name: str) -> float:
        """Misses and false alarms in a frame; what is left of the overlap decides among equals."""
        raise NotImplementedError

    def mask(self, name: str) -> BoolArray | None:
        """(H, W) bool, what is predicted in a frame, where it was kept."""
        raise NotImplementedError


class PixelResults(Results):
    """Results of a method that finds pixels.

    Attributes:
        thresholds: Of the frames' curves.
        frames: By name, in the list's order.
    """

    kind: Literal["pixels"] = "pixels"
    compared = ("iou", "niou", "pd", "fa", "f1", "false_alarms_per_image")
    shown = ("iou", "niou", "pd", "fa")

    thresholds: tuple[float, ...]
    frames: dict[str, FrameResult]

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        widths = (len(ImageCounts._fields), len(TARGET_SIZES) * len(SizeCounts._fields))
        for each in self.frames.values():
            if (len(each.counts), len(each.sizes)) != widths:
                raise ValueError("a frame has other counts")
            if len(each.curve) != len(self.thresholds):
                raise ValueError("a frame's curve has other thresholds")
        return self

    def report(self, names: Sequence[str]) -> Report:
        """The same as `Scorer.compute` gives."""
        return make_report(
            self.protocol,
            self.threshold,
            self.thresholds,
            self._table(names),
            self._sizes(names),
            self._curve(names)[:, :2],
        )

    def resample(self, names: Sequence[str], seed: int = 0) -> dict[str, FloatArray]:
        """Each score over draws of some frames, (R,), the same draws for all methods."""
        draws = resample_together([self._table(names)], seed)[1]
        return {key: values[:, 0] for key, values in draws.items()}

    def trade_off(self, names: Sequence[str]) -> Tradeoff:
        """What is found in some frames at each threshold."""
        table = self._table(names).sum(axis=0)
        counts = ImageCounts(*table.tolist())
        matches, false_area, found = self._curve(names).astype(np.float64).T
        return Tradeoff(matches, false_area, found, counts.targets, counts.pixels)

    def find_sizes(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """How many targets there are in some frames, and how many are found, by true area."""
        rows = [SizeCounts(*row) for row in self._sizes(names).tolist()]
        return {k: (row.targets, row.detected) for k, row in zip(TARGET_SIZES, rows, strict=True)}

    def count_errors(self, name: str) -> float:
        """Misses and false alarms in a frame, plus 0.1 at most for the IoU."""
        counts = ImageCounts(*self.frames[name].counts)
        iou = counts.intersection / counts.union if counts.union else 1.0
        return counts.targets + counts.components - 2 * counts.matches + 0.1 * (1 - iou)

    def mask(self, name: str) -> BoolArray | None:
        """(H, W) bool, the predicted pixels, where they were kept."""
        frame = self.frames[name]
        if frame.found is None:
            return None
        flat = np.zeros(frame.shape[0] * frame.shape[1], dtype=np.bool_)
        for start, length in zip(frame.found[::2], frame.found[1::2], strict=True):
            flat[start : start + length] = True
        return flat.reshape(frame.shape)

    def _table(self, names: Sequence[str]) -> IntArray:
        """(n, 7) counts."""
        rows = [self.frames[name].counts for name in names]
        return np.array(rows, dtype=np.int64).reshape(-1, len(ImageCounts._fields))

    def _curve(self, names: Sequence[str]) -> IntArray:
        """(K, 3) matches, false pixels and components at each threshold."""
        rows = [self.frames[name].curve for name in names]
        curve: IntArray = np.array(rows, dtype=np.int64).reshape(len(rows), -1, 3).sum(axis=0)
        return curve

    def _sizes(self, names: Sequence[str]) -> IntArray:
        """(4, 4) rows of `SizeCounts`."""
        rows = np.array([self.frames[name].sizes for name in names], dtype=np.int64)
        sizes: IntArray = rows.sum(axis=0).reshape(len(TARGET_SIZES), -1)
        return sizes


class BoxResults(Results):
    """Results of a method by its boxes.

    Attributes:
        source: Where the true boxes are from.
        frames: By name, in the list's order.
    """

    kind: Literal["boxes"] = "boxes"
    compared = ("ap50", "ap", "pd", "fa", "f1", "false_alarms_per_image")
    shown = ("ap50", "ap", "pd", "fa")

    source: str
    frames: dict[str, BoxFrameResult]

    def report(self, names: Sequence[str]) -> BoxReport:
        """The same as `BoxScorer.compute` gives."""
        return self._scorer(names).compute(self.threshold)

    def resample(self, names: Sequence[str], seed: int = 0) -> dict[str, FloatArray]:
        """Each score over draws of some frames, (R,), the same draws for all methods."""
        return self._scorer(names).resample(self.threshold, seed)

    def trade_off(self, names: Sequence[str]) -> Tradeoff:
        """What is found in some frames at each threshold."""
        frames = [self.frames[name] for name in names]
        matches, false_area, found = self._scorer(names).trace()[1].T
        pixels = sum(each.shape[0] * each.shape[1] for each in frames)
        targets = sum(len(each.true) for each in frames)
        return Tradeoff(matches, false_area, found, targets, pixels)

    def find_sizes(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """How many true boxes there are in some frames, and how many are found, by area."""
        return self._scorer(names).find_sizes(self.threshold)

    def count_errors(self, name: str) -> float:
        """Misses and false alarms in a frame."""
        return self._scorer([name]).count_errors(self.threshold)

    def mask(self, name: str) -> BoolArray:
        """(H, W) bool, the predicted boxes, filled; those that touch are one."""
        frame = self.frames[name]
        kept = [each[:4] for each in frame.boxes if each[4] > self.threshold]
        return fill_boxes(stack_boxes(kept), frame.shape)

    def _scorer(self, names: Sequence[str]) -> BoxScorer:
        scorer = BoxScorer(PROTOCOLS[self.protocol])
        for each in (self.frames[name] for name in names):
            found = np.array(each.boxes, dtype=np.float64).reshape(-1, 5)
            scorer.update(found[:, :4], found[:, 4], np.array(each.true), each.shape)
        return scorer


RESULTS: Final[Mapping[str, type[Results]]] = {"pixels": PixelResults, "boxes": BoxResults}
"""By what was scored."""
