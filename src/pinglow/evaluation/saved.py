"""Saved probability maps: what their numbers mean, and their scores."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pinglow.data.folder import resize_nearest
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.evaluation.map_files import find_maps, read_values
from pinglow.evaluation.pixels import Pair, ScoredFrame, add_up, describe_size
from pinglow.metrics import Protocol, Report, Scorer
from pinglow.preprocess import bring_back
from pinglow.structures import BoolArray

_logger = logging.getLogger("pinglow")

Probability = NDArray[Any]
Resize = Literal["nearest", "bilinear"]
Scale = float | Literal["logits"]

_SCALES: Final = (1, 100, 255, 1023, 4095, 16383, 65535)  # percent, and what cameras' bits give
_ROUNDING: Final = 1e-6  # by which a softmax or a filter may miss [0, 1]
_UNBOUNDED: Final = "give --scale logits if they are logits, else clip them"
_DIM: Final = 1 / 255 + 1e-9  # the most that a mask of 0 and 1 comes to among 8 bits
_SOME: Final = 0.1  # of the frames with targets: models miss fewer by just that much


class SavedMaps:
    """Saved probability maps of frames, a file each, in any format of frames, .npy or .mat.

    A map is found by its frame's name. After the name may come something that begins with one of
    ``_ - .`` or a space and a letter, ``f0_mask.png``, the same for all frames.

    Args:
        place: The folder of the maps, or a pattern with one ``*`` for the name,
            ``found/*_Pred.png``.
        names: Of the frames.
        scale: The value that stands for probability 1, or "logits"; None: 255 for 8 bits, 65535
            for 16 bits, 1 for floats and for true or false.
        resize: How a map of another size than its mask is brought to it; None: it is refused.

    Attributes:
        highest: The largest value that was read, as stored.
        unit: The value that stood for 1 in what was read last; None: logits.

    Raises:
        DataError: The folder or a map is missing, or each frame has several.
    """

    def __init__(
        self,
        place: str | Path,
        names: Sequence[str],
        scale: Scale | None = None,
        resize: Resize | None = None,
    ) -> None:
        self.place = Path(place)
        self.scale = scale
        self.resize = resize
        self.highest = -np.inf
        self.unit: float | None = None
        self._paths = find_maps(self.place, names)

    def read(self, name: str, shape: tuple[int, ...]) -> Probability:
        """The map of a frame.

        Args:
            name: The frame's.
            shape: (H, W) of its mask.

        Returns:
            (H, W) in [0, 1], in the file's own precision.

        Raises:
            FrameError: The file is broken, a number is missing in it, or it is of another size.
            DataError: It is no gray map, or of another scale.
        """
        path = self._paths[name]
        values = read_values(path)
        if not np.isfinite(values).all() and self.scale != "logits":
            raise FrameError(f"Prediction {path} holds NaN or infinite values: save it again")
        probability = self._to_probability(path, values)
        if probability.shape == shape:
            return probability
        if self.resize is None:
            raise FrameError(
                f"Prediction {path} is {describe_size(values)} but its mask is {shape[1]} x "
                f"{shape[0]}: save it at the frame's size, or give --resize nearest or bilinear."
            )
        if self.resize == "nearest":
            return resize_nearest(probability, shape)
        height, width = shape
        resized = bring_back(probability.astype(np.float32)[None, None], (height, width))
        return np.asarray(resized[0, 0])

    def hash(self) -> str:
        """SHA-256 over the files of all maps, by the names of their frames."""
        digest = hashlib.sha256()
        for _, path in sorted(self._paths.items()):
            content = path.read_bytes() if path.is_file() else b""  # a pipe may never end
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    def explain_darkness(self, threshold: float, targets: int) -> str:
        """Why no pixel of any map may be above a threshold, in one sentence."""
        unit = "" if self.unit is None else f" where {self.unit:g} stands for 1"
        fitting = [each for each in _SCALES if self.highest / each > threshold]
        fitting = [each for each in fitting if self.highest <= each < (self.unit or 1)]
        if self.highest == 0:
            hint = "save what was found"
        elif fitting:
            hint = f"give --scale {fitting[0]} if that stands for 1, or lower --threshold"
        else:
            hint = "lower --threshold"
        return (
            f"No map in {self.place} has a pixel above the threshold {threshold:.9g}, though there "
            f"are {targets} targets: the highest value is {self.highest:g}{unit}; {hint}."
        )

    def explain_mixture(self, dim: _Peak, bright: _Peak) -> str:
        """Why maps are not of one scale, in one sentence."""
        return (
            f"Prediction {self._paths[dim.name]} goes up to {dim.value:.6g} where {dim.unit:g} "
            f"stands for 1, but {self._paths[bright.name]} to {bright.value:.6g} where "
            f"{bright.unit:g} does: save all maps in one scale."
        )

    def _to_probability(self, path: Path, values: NDArray[Any]) -> Probability:
        low, high = float(values.min()), float(values.max())
        self.highest = max(self.highest, high)
        if self.scale == "logits":
            from scipy.special import expit

            self.unit = None
            if np.isnan(values).any():
                raise FrameError(f"Prediction {path} holds NaN: save it again")
            return np.asarray(expit(values.astype(np.float64)))
        self.unit = self.scale or _natural_scale(path, values)
        if not -_ROUNDING <= low / self.unit <= high / self.unit <= 1 + _ROUNDING:
            fitting = [f"give --scale {each}" for each in _SCALES if 0 <= low <= high <= each]
            raise DataError(
                f"Prediction {path} holds values from {low:.6g} to {high:.6g}, where 0 to "
                f"{self.unit:g} was expected: {fitting[0] if fitting else _UNBOUNDED}."
            )
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        return np.clip(values if self.unit == 1 else values / self.unit, 0, 1)


class _Peak(NamedTuple):
    """The largest value of a map as stored, and the value that stood for 1 in it."""

    name: str
    value: float
    unit: float


class _Scales:
    """Whether saved maps are of one scale, told from their largest values and what they find.

    A map that is dim all over may be that of a frame in which nothing was found. It is of a smaller
    scale than the others if it is stored in more bits, or if many find their targets by that only.
    """

    def __init__(self, maps: SavedMaps, threshold: float) -> None:
        self._maps = maps
        self._threshold = threshold
        self._bright: _Peak | None = None
        self._dim: list[_Peak] = []
        self._fitting: list[_Peak] = []
        self._frames = 0  # with targets

    def look(self, name: str, probability: Probability, mask: BoolArray) -> None:
        """See the map that was read last."""
        unit, highest = self._maps.unit, float(probability.max())
        self._frames += bool(mask.any())
        if unit is None or highest == 0:
            return
        peak = _Peak(name, highest * unit, unit)
        if highest > min(_DIM, self._threshold):  # what a low threshold finds is no miss
            if highest > self._threshold and (self._bright is None or unit < self._bright.unit):
                self._bright = peak
            return
        self._dim.append(peak)
        fitting = next(each for each in (*_SCALES, unit) if peak.value <= each * (1 + _ROUNDING))
        found = probability > self._threshold * fitting / unit
        if 2 * (found & mask).sum() > (found | mask).sum():
            self._fitting.append(peak)

    def check(self) -> None:
        """Refuse maps of two scales.

        Raises:
            DataError: Some are of a smaller one than others.
        """
        bright = self._bright
        if bright is None:
            return
        some = [peak for peak in self._dim if peak.unit > bright.unit]
        some += self._fitting if len(self._fitting) > _SOME * self._frames else []
        if some:
            raise DataError(self._maps.explain_mixture(some[0], bright))


def evaluate_saved(
    pairs: Iterable[Pair],
    maps: SavedMaps,
    protocols: Sequence[Protocol],
    threshold: float = 0.5,
    on_broken: Callable[[str], object] | None = None,
) -> list[Report]:
    """Score saved probability maps.

    Returns:
        One report per protocol, in their order; for the rest see `score_saved`.
    """
    return add_up(score_saved(pairs, maps, protocols, threshold, on_broken), protocols, threshold)


def score_saved(
    pairs: Iterable[Pair],
    maps: SavedMaps,
    protocols: Sequence[Protocol],
    threshold: float = 0.5,
    on_broken: Callable[[str], object] | None = None,
) -> Iterator[ScoredFrame]:
    """Score saved probability maps, each by itself.

    Args:
        pairs: Names, frames (not looked at) and masks.
        maps: Those of these names.
        protocols: What to score by.
        threshold: See `Scorer`.
        on_broken: Called with the reason for each map that cannot be read and is left out; None:
            such a map raises.

    Yields:
        Each frame that could be scored, in their order.

    Raises:
        OptionError: A protocol resizes or pads the model's input, so that saved maps cannot tell.
        FrameError: A map cannot be read, or is of another size; with ``on_broken`` only where
            that is so of all.
        DataError: A map is in color, or of another scale than expected or than the others; or no
            map has a pixel above the threshold, though there are targets.
    """
    check_protocols(protocols)
    scales = _Scales(maps, threshold)
    images, targets, found, covered = 0, 0, False, 0.0
    faults: list[FrameError] = []
    for name, _, mask in pairs:
        try:
            probability = maps.read(name, mask.shape)
        except FrameError as error:
            if on_broken is None:
                raise
            faults.append(error)
            continue
        scales.look(name, probability, mask)
        above = float(np.mean(probability > threshold))
        found, covered, images = found or above > 0, covered + above, images + 1
        scorers = [Scorer(protocol, threshold) for protocol in protocols]
        for scorer in scorers:
            scorer.update(probability, mask)
        targets += scorers[0].images[0].targets
        yield ScoredFrame(name, scorers, [probability] * len(scorers))
    if len(faults) > 1 and not images:  # one reason for all: saying it once is enough
        raise FrameError(
            f"none of {len(faults)} maps can be scored, the first because: {faults[0]}"
        )
    for fault in faults:
        if on_broken is not None:
            on_broken(str(fault))
    if not found and targets:
        raise DataError(maps.explain_darkness(threshold, targets))
    scales.check()
    if covered > 0.5 * images:
        _logger.warning(
            f"{covered / images:.0%} of the pixels of the maps in {maps.place} are "
            f"above the threshold {threshold:.9g}: they may be inverted, or of another scale"
        )


def check_protocols(protocols: Sequence[Protocol]) -> None:
    """Refuse protocols that cannot score saved maps.

    Raises:
        OptionError: See `evaluate_saved`.
    """
    for protocol in protocols:
        if protocol.needs_model:
            raise OptionError(
                f"Protocol {protocol.name} changes the size of the model's input, so it cannot "
                "score saved predictions: give a model, or choose strict or greedy."
            )


def _natural_scale(path: Path, values: NDArray[Any]) -> float:
    """The value that stands for 1 where nothing else is said."""
    if values.dtype.kind in "bf":
        return 1
    if values.dtype.kind == "u" and values.itemsize <= 2:  # of any byte order
        return int(np.iinfo(values.dtype).max)
    raise DataError(
        f"Prediction {path} holds {values.dtype} values: give --scale, the value that stands for "
        "1, such as 1 for masks of 0 and 1."
    )
