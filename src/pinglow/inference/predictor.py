"""From frames to their targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from pinglow.backends.base import Backend
from pinglow.backends.opening import open_model
from pinglow.errors import FrameError
from pinglow.extras import need_torch
from pinglow.inference.batches import fill_batches
from pinglow.inference.ignored import Ignored
from pinglow.inference.large import find_large
from pinglow.inference.probability import (
    as_frame,
    batch_pixels,
    checked,
    input_size,
    predict_probabilities,
)
from pinglow.inference.tiling import TILE, check_tile
from pinglow.models.card import EXPORTED, ModelCard, find_model, read_card
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
        large: Look for targets of up to about 80 pixels, too; see `find_large`.
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
        large: bool = False,
        ignore: Ignored | None = None,
    ) -> None:
        check_tile(tile)
        self.backend = backend
        self.card = card
        self.min_score = card.choose_score(min_score)
        self.tile = tile
        self.flips = flips
        self.large = large
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
        large: bool = False,
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
            large: See `Predictor`.
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
                large=large,
                ignore=ignore,
            )
        opened = open_model(name_or_path, backend, device, precision)
        return cls(*opened, min_score, tile, flips, large, ignore)

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
        for batch in fill_batches(map(checked, frames), self.input_pixels, self.batch_pixels):
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
        seen = frame if self.ignore is None else self.ignore.crop(frame)
        height, width = input_size(seen, self.card.input_rule)
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
        seen = frames if self.ignore is None else list(map(self.ignore.hide, frames))
        totals = self._look(seen)
        if self.flips:
            mirrors = _UPRIGHT_MIRRORS if self.card.upright else _MIRRORS
            for axes in mirrors:
                found = self._look([np.flip(frame, axes) for frame in seen])
                for total, other in zip(totals, found, strict=True):
                    total += np.flip(other, axes)
            totals = [total / np.float32(1 + len(mirrors)) for total in totals]
        if self.ignore is not None:
            totals = list(map(self.ignore.restore, totals, frames))
        return totals

    def _look(self, frames: Sequence[NDArray[Any]]) -> list[FloatArray]:
        find = partial(predict_probabilities, self.backend, tile=self.tile)
        rule = self.card.input_rule
        return find_large(frames, rule, find) if self.large else find(frames, rule)
