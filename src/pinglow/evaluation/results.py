"""A method's results on a list of frames, in a file from which its scores can be made again.

All that is kept of a frame adds up, so scores of any part of the list come out of the file without
the model and the data; and the pixels that were found are kept, for pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pinglow._version import __version__
from pinglow.errors import DataError
from pinglow.evaluation.pixels import ScoredFrame
from pinglow.files import read_whole, write_whole
from pinglow.metrics import ImageCounts, Protocol, Report, Scorer
from pinglow.metrics.pixels import IntArray
from pinglow.metrics.report import SizeCounts, make_report
from pinglow.structures import TARGET_SIZES, BoolArray

_FORMAT: Final = 1
_LARGEST: Final = 2**28  # bytes of a file
_MOST_RUNS: Final = 2000  # of found pixels in a frame; with more, a map is noise

Counts = tuple[int, ...]


class FrameResult(BaseModel):
    """What is kept of a frame.

    Attributes:
        digest: See `digest_pair`.
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

    def mask(self) -> BoolArray | None:
        """(H, W) bool, the predicted pixels, where they were kept."""
        if self.found is None:
            return None
        flat = np.zeros(self.shape[0] * self.shape[1], dtype=np.bool_)
        for start, length in zip(self.found[::2], self.found[1::2], strict=True):
            flat[start : start + length] = True
        return flat.reshape(self.shape)


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
        threshold: A pixel is predicted above this probability.
        thresholds: Of the curve.
        frames: By name, in the list's order.
        left_out: Names of the list's other frames.
        reasons: Why they have no scores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = _FORMAT
    method: str
    origin: dict[str, Any]
    pinglow: str = __version__
    data: str
    list: str
    protocol: str
    threshold: float
    thresholds: tuple[float, ...]
    frames: dict[str, FrameResult]
    left_out: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        widths = (len(ImageCounts._fields), len(TARGET_SIZES) * len(SizeCounts._fields))
        for each in self.frames.values():
            if (len(each.counts), len(each.sizes)) != widths:
                raise ValueError("a frame has other counts")
            if len(each.curve) != len(self.thresholds):
                raise ValueError("a frame's curve has other thresholds")
        return self

    @property
    def names(self) -> frozenset[str]:
        """Of all frames of the list."""
        return frozenset(self.frames) | frozenset(self.left_out)

    def table(self, names: Sequence[str]) -> IntArray:
        """(n, 7) counts of some frames."""
        rows = [self.frames[name].counts for name in names]
        return np.array(rows, dtype=np.int64).reshape(-1, len(ImageCounts._fields))

    def curve(self, names: Sequence[str]) -> IntArray:
        """(K, 3) matches, false pixels and components of some frames at each threshold."""
        rows = [self.frames[name].curve for name in names]
        curve: IntArray = np.array(rows, dtype=np.int64).reshape(len(rows), -1, 3).sum(axis=0)
        return curve

    def report(self, names: Sequence[str]) -> Report:
        """The scores of some frames, the same as `Scorer.compute` gives of them."""
        sizes = np.array([self.frames[name].sizes for name in names], dtype=np.int64)
        return make_report(
            self.protocol,
            self.threshold,
            self.thresholds,
            self.table(names),
            sizes.sum(axis=0).reshape(len(TARGET_SIZES), -1),
            self.curve(names)[:, :2],
        )

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


def digest_pair(frame_digest: str, mask: BoolArray) -> str:
    """16 hexadecimal digits of a frame and its (H, W) mask.

    Args:
        frame_digest: See `pinglow.data.digests.digest_frame`.
        mask: Its targets.
    """
    packed = np.packbits(mask).tobytes()
    return hashlib.sha256(f"{frame_digest} {mask.shape} ".encode() + packed).hexdigest()[:16]


def collect_results(
    scored: Iterable[ScoredFrame], how: tuple[Protocol, float], digests: Mapping[str, str]
) -> dict[str, Any]:
    """``frames`` and ``thresholds`` of `Results` from the scores of single frames.

    Args:
        scored: By one protocol.
        how: That protocol, and the threshold.
        digests: Of each frame.
    """
    together = Scorer(*how)
    kept: dict[str, dict[str, Any]] = {}
    for each in scored:
        [scorer], [probability] = each.scorers, each.maps
        together.merge(scorer)
        kept[each.name] = {
            "digest": digests[each.name],
            "counts": scorer.images[0],
            "sizes": tuple(scorer.sizes.ravel().tolist()),
            "shape": probability.shape,
            "found": _find_runs(probability > how[1]),
        }
    thresholds, curve = together.trace()
    frames = {
        name: FrameResult(**content, curve=tuple(map(tuple, curve[:, number].tolist())))
        for number, (name, content) in enumerate(kept.items())
    }
    return {"frames": frames, "thresholds": thresholds}


def _find_runs(mask: NDArray[np.bool_]) -> Counts | None:
    ends = np.flatnonzero(np.diff(mask.ravel(), prepend=False, append=False))
    if len(ends) > 2 * _MOST_RUNS:
        return None
    runs = ends.reshape(-1, 2)
    runs = np.column_stack([runs[:, 0], runs[:, 1] - runs[:, 0]])
    return tuple(runs.ravel().tolist())


def write_results(results: Results, path: Path) -> None:
    """Write a results file, whole or not at all."""
    text = json.dumps(results.model_dump(mode="json"), separators=(",", ":"))
    write_whole(path, text.encode() + b"\n")


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        DataError: It is none, is damaged, or is of another version of pinglow.
    """
    advice = "give a file that pinglow compare has written, or make it again"
    try:
        content = json.loads(read_whole(path, _LARGEST))
        written = content["format"]
        if isinstance(written, int) and written != _FORMAT:
            raise DataError(
                f"{path} is of format {written}, this version of pinglow ({__version__}) reads "
                f"{_FORMAT}: use the version that wrote it, {content.get('pinglow', 'unknown')}, "
                "or make it again"
            )
        return Results.model_validate(content)
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is no results file, or is damaged: {advice}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {advice}") from error
