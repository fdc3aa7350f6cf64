"""From frames to their targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pinglow.backends.base import Backend
from pinglow.backends.opening import open_model
from pinglow.border import hide_border
from pinglow.errors import FrameError
from pinglow.extras import need_torch
from pinglow.inference.batches import fill_batches, memory_guard
from pinglow.inference.ignored import Ignored
from pinglow.inference.tiling import (
    MARGIN,
    SMALLEST_SIDE,
    TILE,
    check_tile,
    choose_windows,
    cut_into_tiles,
    is_untiled,
    untiled_pixels,
)
from pinglow.models.card import EXPORTED, ModelCard, find_model, read_card
from pinglow.preprocess import (
    InputRule,
    Normalization,
    Place,
    bring_back,
    measure_frame,
    normalize_frame,
    resample,
)
from pinglow.structures import FloatArray, Prediction

if TYPE_CHECKING:
    from pinglow.inference.boxes import BoxPredictor

_UPRIGHT_MIRRORS: Final = ((1,),)
_MIRRORS: Final = (*_UPRIGHT_MIRRORS, (0,), (0, 1))


class Predictor:
    """A model with everything around it: counts in, targets out.

    Args:
        backend: Maps images to probabilities.
        card: The model's card: input rule, outline level and how it scores.
        min_score: A detection is a target if its score is above this; the card's by default.
        tile: See `predict_probability`.
        flips: Take the mean over the frame and its mirror images: three, for four times the work,
            or the one from left to right if the card says upright. Source: ours.
        ignore: What is no part of the picture: nothing is found there, and it counts for nothing.

    Raises:
        OptionError: The smallest score is not in [0, 1), or the tile is too small.
    """

    kind: ClassVar = "pixels"
    """What is found in a frame: pixels, a `Prediction`; or boxes, `Detections`."""

    def __init__(
        self,
        backend: Backend,
        card: ModelCard,
        min_score: float | None = None,
        tile: int | None = TILE,
        flips: bool = False,
        ignore: Ignored | None = None,
    ) -> None:
        check_tile(tile)
        self.backend = backend
        self.card = card
        self.min_score = card.choose_score(min_score)
        self.tile = tile
        self.flips = flips
        self.ignore = ignore

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "pinglow-fast",
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "float32",
        min_score: float | None = None,
        tile: int | None = TILE,
        flips: bool = False,
        ignore: Ignored | None = None,
    ) -> Self | BoxPredictor:
        """Load a model; its card says whether it finds pixels or boxes.

        Args:
            name_or_path: A bundled model's name, or the path of weights or of an exported model.
            backend: torch, onnxruntime or openvino; auto is the fastest that is installed.
            device: cpu, cuda, cuda:N (a card by its index); auto is the first card that can be
                used, else the CPU.
            precision: float32, or tf32: on a card, convolutions multiply in TensorFloat-32, and
                TensorRT computes if it is installed. In 77 frames no probability moved by more
                than 0.02, and targets were as many (simulated: experiments/scripts/precision.py).
                A CPU ignores it.
            min_score: A detection is a target if its score is above this; the card's by default.
            tile: See `predict_probability`.
            flips: See `Predictor`.
            ignore: See `Predictor`.

        Raises:
            ModelError: The name is unknown or the file cannot be used.
            MissingExtraError: The backend is not installed.
            OptionError: The backend is unknown, the device cannot be used, the smallest score is
                not in [0, 1), the tile is too small, or an option is not for detectors.
        """
        path = find_model(name_or_path)
        if path.suffix.lower() not in EXPORTED and read_card(path).kind == "boxes":
            need_torch(f"{name_or_path}, a detector,", "detect")
            from pinglow.inference.boxes import BoxPredictor

            return BoxPredictor.load(
                name_or_path,
                backend=backend,
                device=device,
                precision=precision,
                min_score=min_score,
                tile=tile,
                flips=flips,
                ignore=ignore,
            )
        opened = open_model(name_or_path, backend, device, precision)
        return cls(*opened, min_score, tile, flips, ignore)

    def __call__(self, frame: NDArray[Any]) -> Prediction:
        """Find the targets of an (H, W) frame of counts, any number type.

        Raises:
            FrameError: See `predict_probability`.
        """
        return self.decide(self.probability(frame))

    def many(self, frames: Iterable[NDArray[Any]]) -> Iterator[Prediction]:
        """Find the targets of many frames, in their order; on a card several at once.

        There, neighbors of one size are computed together, and frames are taken as far ahead.

        Args:
            frames: (H, W) counts, any number type, each of any size.

        Raises:
            FrameError: See `predict_probability`; what was before that frame has been given.
        """
        for found in self.probabilities(frames):
            if isinstance(found, FrameError):
                raise found
            yield self.decide(found)

    def decide(self, probability: FloatArray) -> Prediction:
        """The targets of a probability map (H, W): the candidates that score enough."""
        return Prediction(probability, self.card.threshold, self.min_score, self.card.score_of)

    def probability(self, frame: NDArray[Any]) -> FloatArray:
        """Target probability of each pixel, (H, W) float32 in [0, 1].

        Raises:
            FrameError: See `predict_probability`.
        """
        return self._compute([as_frame(frame)])[0]

    def probabilities(self, frames: Iterable[NDArray[Any]]) -> Iterator[FloatArray | FrameError]:
        """`probability` of many frames, in their order, or why one has none; see `many`."""
        for batch in fill_batches(map(_checked, frames), self.input_pixels, self.batch_pixels):
            found = iter(self._try([each for each in batch if not isinstance(each, FrameError)]))
            for frame in batch:
                yield frame if isinstance(frame, FrameError) else next(found)

    @property
    def batch_pixels(self) -> int:
        """Pixels at the network's input up to which frames are computed together."""
        return batch_pixels(self.backend, self.tile)

    def input_pixels(self, frame: NDArray[Any] | FrameError) -> int:
        """Pixels of a frame at the network's input; 0 where there is an error in its place."""
        if isinstance(frame, FrameError):
            return 0
        height, width = _input_size(frame, self.card.input_rule)
        return height * width

    def _try(self, frames: list[NDArray[Any]]) -> list[FloatArray | FrameError]:
        try:
            return list(self._compute(frames))
        except FrameError as error:
            # Without what led to it, which would hold the memory that was not enough.
            reason = FrameError(str(error))
        if len(frames) == 1:
            return [reason]
        return [each for frame in frames for each in self._try([frame])]

    def _compute(self, frames: list[NDArray[Any]]) -> list[FloatArray]:
        rule, tile = self.card.input_rule, self.tile
        if self.ignore is not None:
            frames = [self.ignore.hide(frame) for frame in frames]
        totals = predict_probabilities(self.backend, frames, rule, tile)
        if self.flips:
            mirrors = _UPRIGHT_MIRRORS if self.card.upright else _MIRRORS
            for axes in mirrors:
                mirrored = [np.flip(frame, axes) for frame in frames]
                found = predict_probabilities(self.backend, mirrored, rule, tile)
                for total, other in zip(totals, found, strict=True):
                    total += np.flip(other, axes)
            totals = [total / np.float32(1 + len(mirrors)) for total in totals]
        if self.ignore is not None:
            self.ignore.blank(totals)
        return totals


def predict_probability(
    backend: Backend, frame: NDArray[Any], rule: InputRule, tile: int | None = TILE
) -> FloatArray:
    """Normalize, enlarge by the rule, run the network, bring back to the frame's size.

    A frame that is larger, at the network's input, than four tiles' area is computed in tiles, so
    that memory does not grow with it. Normalization, scale and channel attention belong to the
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
    return predict_probabilities(backend, [frame], rule, tile)[0]


def predict_probabilities(
    backend: Backend, frames: Sequence[NDArray[Any]], rule: InputRule, tile: int | None = TILE
) -> list[FloatArray]:
    """`predict_probability` of each frame; those of one size together, as `batch_pixels` allows.

    Raises:
        FrameError: See `as_frame`; or a frame does not fit into memory, or those that were
            computed together do not.
    """
    looks: dict[tuple[int, ...], list[_Look]] = {}
    for place, frame in enumerate(frames):
        shown = hide_border(as_frame(frame))
        for normalize in measure_frame(shown):
            looks.setdefault(shown.shape, []).append(_Look(place, shown, normalize))
    found: dict[int, FloatArray] = {}
    for alike in looks.values():
        height, width = _input_size(alike[0].frame, rule)
        at_once = _is_untiled(height, width, tile)
        count = max(1, batch_pixels(backend, tile) // (height * width)) if at_once else 1
        for start in range(0, len(alike), count):
            batch = alike[start : start + count]
            with memory_guard(batch[0].frame):
                if at_once:
                    maps = _at_once(backend, batch, rule)
                else:
                    maps = iter([_in_parts(backend, batch[0], rule, tile)])
                for look, probability in zip(batch, maps, strict=True):
                    before = found.get(look.place)
                    found[look.place] = (
                        probability if before is None else np.maximum(before, probability)
                    )
    return [found[place] for place in range(len(frames))]


class _Look(NamedTuple):
    """A frame as the network is to see it; one of two temperatures has two looks."""

    place: int
    frame: NDArray[Any]
    normalize: Normalization


def batch_pixels(backend: Backend, tile: int | None) -> int:
    """Pixels at the network's input up to which frames are computed together.

    On a card as many as the largest frame has that is computed at once, so that a batch takes no
    more memory than such a frame: 16 images of 512 x 512. On a CPU each frame goes alone: of 8
    images of 512 x 512 one takes 1.17 of what it takes alone in PyTorch, 0.91 in ONNX Runtime and
    0.96 in OpenVINO (python benchmarks/batches.py), for all of which the first would wait.
    """
    return untiled_pixels(tile or TILE) if backend.device.type == "cuda" else 1


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
            "(height, width) gray frame, as pinglow.read_frame returns it"
        )
    if frame.dtype.kind == "f" and not np.isfinite(frame).any():
        raise FrameError("a frame without a single finite pixel cannot be used; export it again")
    return frame


def _checked(frame: ArrayLike) -> NDArray[Any] | FrameError:
    try:
        return as_frame(frame)
    except FrameError as error:
        return error


def prepare_input(frame: NDArray[Any], rule: InputRule) -> FloatArray:
    """What the network sees of a frame (H, W): (1, 1, H', W') float32, sides at least 32."""
    return resample(_continue(normalize_frame(frame))[None, None], _input_size(frame, rule))


def _continue(image: FloatArray) -> FloatArray:
    """(H, W), a tiny image continued by reflection."""
    padding = [(0, max(0, SMALLEST_SIDE - side)) for side in image.shape]
    return np.pad(image, padding, mode="symmetric")


def _input_size(frame: NDArray[Any], rule: InputRule) -> tuple[int, int]:
    """Height and width of a frame at the network's input."""
    scale = rule.scale(*frame.shape)
    height, width = (round(max(SMALLEST_SIDE, side) * scale) for side in frame.shape)
    return height, width


def _is_untiled(height: int, width: int, tile: int | None) -> bool:
    """Whether a network input is computed at once, by its own channel attention."""
    return is_untiled(height, width, tile) and len(choose_windows(height, width, TILE)) == 1


def _at_once(backend: Backend, looks: Sequence[_Look], rule: InputRule) -> Iterator[FloatArray]:
    """Probabilities of looks at frames of one size."""
    images = np.stack([_continue(look.normalize(look.frame)) for look in looks])[:, None]
    frame = looks[0].frame
    height, width = frame.shape
    for found in backend(images, size=_input_size(frame, rule)):  # of (N, 1, H, W)
        # A copy: who keeps one of the frames need not keep them all.
        yield found[0, :height, :width].copy()


def _in_parts(backend: Backend, look: _Look, rule: InputRule, tile: int | None) -> FloatArray:
    """Probability of a frame by windows and tiles."""
    frame = look.frame
    height, width = _input_size(frame, rule)
    part_of: Callable[[Place], FloatArray]  # of the network's input, (h, w)
    if (height, width) != frame.shape:
        image = _continue(look.normalize(frame))[None, None]
        part_of = resample(image, (height, width))[0, 0].__getitem__
    else:  # a large frame: its parts one by one
        part_of = partial(look.normalize, frame)

    probability = _run(backend, part_of, height, width, tile)[None, None]
    rows, columns = (max(SMALLEST_SIDE, side) for side in frame.shape)
    back = bring_back(probability, (rows, columns))[0, 0]
    return np.ascontiguousarray(back[: frame.shape[0], : frame.shape[1]])


def _run(
    backend: Backend,
    part_of: Callable[[Place], FloatArray],
    height: int,
    width: int,
    tile: int | None,
) -> FloatArray:
    """Probabilities (height, width) of a network input that is given in parts."""
    windows = choose_windows(height, width, TILE)
    seen = [backend.gates(part_of(window)[None, None]) for window in windows]
    gates = np.concatenate(seen).mean(axis=0, keepdims=True)
    if tile is None or is_untiled(height, width, tile):
        whole = slice(0, height), slice(0, width)
        return np.asarray(backend(part_of(whole)[None, None], gates)[0, 0])
    probability = np.empty((height, width), dtype=np.float32)
    for part in cut_into_tiles(height, width, tile, MARGIN):
        found = backend(part_of((part.rows, part.columns))[None, None], gates)[0, 0]
        probability[part.core_rows, part.core_columns] = found[part.core]
    return probability
