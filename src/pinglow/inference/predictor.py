"""From a frame to its targets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from pinglow.data.prepare import InputRule, measure_frame
from pinglow.errors import FrameError, OptionError
from pinglow.inference.backends import Backend, open_model
from pinglow.inference.tiling import choose_windows, cut_into_tiles
from pinglow.inference.weights import ModelCard
from pinglow.structures import FloatArray, Prediction

TILE: Final = 1024
"""Side of a tile at the network's input, pixels."""

SMALLEST_SIDE: Final = 32
"""Pixels that a network takes at least; smaller frames are continued by reflection."""

_UPRIGHT_MIRRORS: Final = ((1,),)
_MIRRORS: Final = (*_UPRIGHT_MIRRORS, (0,), (0, 1))
_Place = tuple[slice, slice]
_SMALLEST_TILE: Final = 256
_UNTILED: Final = 4  # tiles' areas up to which a frame is computed at once
_OUT_OF_MEMORY: Final = re.compile("allocate memory|bad.?alloc", re.IGNORECASE)
_MARGIN: Final = 64  # pixels at the network's input that a tile sees around its core


class Predictor:
    """A model with everything around it: counts in, targets out.

    Args:
        backend: Maps images to probabilities.
        card: The model's card: input rule and threshold.
        threshold: A pixel is predicted above this probability; the card's by default.
        tile: See `predict_probability`.
        flips: Take the mean over the frame and its mirror images: three, for four times the work,
            or the one from left to right if the card says upright. Source: ours.

    Raises:
        OptionError: The threshold is not in [0, 1), or the tile is too small.
    """

    def __init__(
        self,
        backend: Backend,
        card: ModelCard,
        threshold: float | None = None,
        tile: int | None = TILE,
        flips: bool = False,
    ) -> None:
        if threshold is not None and not 0 <= threshold < 1:
            raise OptionError(f"threshold is {threshold}; use a value from 0 to below 1")
        check_tile(tile)
        self.backend = backend
        self.card = card
        self.threshold = card.threshold if threshold is None else threshold
        self.tile = tile
        self.flips = flips

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "pinglow-fast",
        *,
        backend: str = "auto",
        threshold: float | None = None,
        tile: int | None = TILE,
        flips: bool = False,
    ) -> Self:
        """Load a model.

        Args:
            name_or_path: A bundled model's name, or the path of weights or of an exported model.
            backend: torch, onnxruntime or openvino; auto is the fastest that is installed.
            threshold: A pixel is predicted above this probability; the card's by default.
            tile: See `predict_probability`.
            flips: See `Predictor`.

        Raises:
            ModelError: The name is unknown or the file cannot be used.
            MissingExtraError: The backend is not installed.
            OptionError: The backend is unknown, the threshold is not in [0, 1), or the tile is
                too small.
        """
        return cls(*open_model(name_or_path, backend), threshold, tile, flips)

    def __call__(self, frame: NDArray[Any]) -> Prediction:
        """Find the targets of an (H, W) frame of counts, any number type.

        Raises:
            FrameError: See `predict_probability`.
        """
        return Prediction(self.probability(frame), self.threshold)

    def probability(self, frame: NDArray[Any]) -> FloatArray:
        """Target probability of each pixel, (H, W) float32 in [0, 1].

        Raises:
            FrameError: See `predict_probability`.
        """
        frame = as_frame(frame)
        total = self._probability(frame)
        if self.flips:
            mirrors = _UPRIGHT_MIRRORS if self.card.upright else _MIRRORS
            for axes in mirrors:
                total += np.flip(self._probability(np.flip(frame, axes)), axes)
            total /= 1 + len(mirrors)
        return total

    def _probability(self, frame: NDArray[Any]) -> FloatArray:
        return predict_probability(self.backend, frame, self.card.input_rule, self.tile)


def predict_probability(
    backend: Backend, frame: NDArray[Any], rule: InputRule, tile: int | None = TILE
) -> FloatArray:
    """Normalise, enlarge by the rule, run the network, bring back to the frame's size.

    A frame that is larger, at the network's input, than four tiles' area is computed in tiles, so
    that memory does not grow with it. Normalisation, scale and channel attention belong to the
    frame, so that tiles join without seams and find the same. The attention is the frame's own up
    to four megapixels, beyond that the mean of four windows' (docs/decisions/tiling.md).

    Args:
        backend: Maps images to probabilities.
        frame: (H, W) counts, any number type.
        rule: How much to enlarge.
        tile: Side of a tile at the network's input, pixels; None: never in tiles.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        FrameError: See `as_frame`; or the frame does not fit into memory.
    """
    frame = as_frame(frame)
    with memory_guard(frame):
        return _probability(backend, frame, rule, tile)


@contextmanager
def memory_guard(frame: NDArray[Any]) -> Iterator[None]:
    """Turn a lack of memory into a FrameError, so that a job goes on with the next frame."""
    try:
        yield
    except Exception as error:  # the runtimes have exceptions of their own, without a common base
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        size = f"{frame.shape[1]} x {frame.shape[0]}"
        raise FrameError(
            f"a frame of {size} pixels does not fit into memory; use a smaller tile, or cut it "
            "into smaller ones"
        ) from error


def check_tile(tile: int | None) -> None:
    """See whether tiles can have this side.

    Raises:
        OptionError: They would be too small.
    """
    if tile is not None and tile < _SMALLEST_TILE:
        raise OptionError(f"tile is {tile}; use at least {_SMALLEST_TILE} pixels")


def as_frame(frame: ArrayLike) -> NDArray[Any]:
    """An (H, W) array of counts; those that a masked array hides are NaN.

    Raises:
        FrameError: It is no array, not two-dimensional, has no pixels, no numbers or no finite
            ones.
    """
    hidden = np.ma.getmaskarray(frame) if isinstance(frame, np.ma.MaskedArray) else None
    try:
        frame = np.asarray(frame)
    except (TypeError, ValueError, RuntimeError) as error:  # numpy's, and torch's own
        raise FrameError(
            f"a {type(frame).__name__} cannot be used as a frame ({error}); pass one numpy array "
            "of shape (height, width)"
        ) from error
    if hidden is not None and hidden.any() and frame.dtype.kind in "buif":
        frame = np.where(hidden, np.float32(np.nan), frame)
    if frame.ndim != 2 or frame.size == 0 or frame.dtype.kind not in "buif":
        raise FrameError(
            f"a frame of shape {frame.shape} and type {frame.dtype} cannot be used; pass one "
            "(height, width) grey frame, as pinglow.read_frame returns it"
        )
    if frame.dtype.kind == "f" and not np.isfinite(frame).any():
        raise FrameError("a frame without a single finite pixel cannot be used; export it again")
    return frame


def prepare_input(frame: NDArray[Any], rule: InputRule) -> FloatArray:
    """What the network sees of a frame (H, W): (1, 1, H', W') float32, sides at least 32."""
    return _enlarge(measure_frame(frame)(frame), rule.scale(*frame.shape))


def _probability(
    backend: Backend, frame: NDArray[Any], rule: InputRule, tile: int | None
) -> FloatArray:
    scale = rule.scale(*frame.shape)
    part_of: Callable[[_Place], FloatArray]  # of the network's input, (h, w)
    if scale > 1 or min(frame.shape) < SMALLEST_SIDE:
        whole = prepare_input(frame, rule)[0, 0]
        height, width = whole.shape
        part_of = whole.__getitem__
    else:  # a large frame: its parts one by one
        height, width = frame.shape
        normalise = measure_frame(frame)

        def part_of(place: _Place) -> FloatArray:
            return normalise(frame[place])

    probability = _run(backend, part_of, height, width, tile)
    if scale > 1:
        size = [max(SMALLEST_SIDE, side) for side in frame.shape]
        enlarged = torch.from_numpy(probability)[None, None]
        back = F.interpolate(enlarged, size, mode="bilinear", antialias=True)[0, 0].numpy()
        probability = back.clip(0, 1)  # its weights add up to 1 only up to rounding
    return np.ascontiguousarray(probability[: frame.shape[0], : frame.shape[1]])


def _run(
    backend: Backend,
    part_of: Callable[[_Place], FloatArray],
    height: int,
    width: int,
    tile: int | None,
) -> FloatArray:
    """Probabilities (height, width) of a network input that is given in parts."""
    whole = slice(0, height), slice(0, width)
    at_once = tile is None or height * width <= _UNTILED * tile**2
    windows = choose_windows(height, width, TILE)
    if at_once and windows == [whole]:
        return np.asarray(backend(part_of(whole)[None, None])[0, 0])
    seen = [backend.gates(part_of(window)[None, None]) for window in windows]
    gates = np.concatenate(seen).mean(axis=0, keepdims=True)
    if tile is None or at_once:
        return np.asarray(backend(part_of(whole)[None, None], gates)[0, 0])
    probability = np.empty((height, width), dtype=np.float32)
    for part in cut_into_tiles(height, width, tile, _MARGIN):
        found = backend(part_of((part.rows, part.columns))[None, None], gates)[0, 0]
        probability[part.core_rows, part.core_columns] = found[part.core]
    return probability


def _enlarge(normal: FloatArray, scale: float) -> FloatArray:
    """Normalised frame (H, W) to the network's input (1, 1, H', W')."""
    # Tiny frames go on by reflection up to what the network needs.
    padding = [(0, max(0, SMALLEST_SIDE - side)) for side in normal.shape]
    image = np.pad(normal, padding, mode="symmetric")[None, None]
    if scale == 1:
        return image
    size = [round(side * scale) for side in image.shape[-2:]]
    return F.interpolate(torch.from_numpy(image), size, mode="bilinear").numpy()
