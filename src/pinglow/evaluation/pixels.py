"""Scores of a model over frames with known targets.

The metrics only compare a probability map with a mask; here each protocol gets the two at the size
it asks for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import DataError, FrameError
from pinglow.metrics import Protocol, Report, Scorer
from pinglow.structures import BoolArray

Frame = NDArray[Any]
Probability = NDArray[Any]
Pair = tuple[str, Frame, BoolArray]
"""Name of a frame, its (H, W) counts, its (H, W) mask."""


class ScoredFrame(NamedTuple):
    """A frame's scores.

    Attributes:
        name: The frame's.
        scorers: One per protocol, which has seen this frame alone.
        maps: The (H, W) probabilities that each scored.
    """

    name: str
    scorers: list[Scorer]
    maps: list[Probability]


_View = tuple[int | None, int | None]  # what protocols resize to, and a multiple they pad to


def evaluate_model(
    pairs: Iterable[Pair],
    predict: Callable[[Iterable[Frame]], Iterable[Probability | FrameError]],
    protocols: Sequence[Protocol],
    threshold: float = 0.5,
    on_broken: Callable[[str], object] | None = None,
) -> list[Report]:
    """Run a model over frames and score it, in one pass for all protocols.

    Returns:
        One report per protocol, in their order; for the rest see `score_model`.
    """
    return add_up(
        score_model(pairs, predict, protocols, threshold, on_broken), protocols, threshold
    )


def add_up(
    scored: Iterable[ScoredFrame], protocols: Sequence[Protocol], threshold: float
) -> list[Report]:
    """The report of each protocol, in their order, from the scorers of single frames."""
    together = [Scorer(protocol, threshold) for protocol in protocols]
    for each in scored:
        for scorer, single in zip(together, each.scorers, strict=True):
            scorer.merge(single)
    return [scorer.compute() for scorer in together]


def score_model(
    pairs: Iterable[Pair],
    predict: Callable[[Iterable[Frame]], Iterable[Probability | FrameError]],
    protocols: Sequence[Protocol],
    threshold: float = 0.5,
    on_broken: Callable[[str], object] | None = None,
) -> Iterator[ScoredFrame]:
    """Run a model over frames and score each, in one pass for all protocols.

    Args:
        pairs: Names, frames and masks.
        predict: Maps frames of (H, W) counts, of any size, to their (H, W) probabilities, or why
            there are none, in their order: `Predictor.probabilities`.
        protocols: What to score by; those that show the model the same input share its output.
        threshold: See `Scorer`.
        on_broken: Called with the reason for each frame that cannot be predicted and is left out;
            None: such a frame raises.

    Yields:
        Each frame that could be scored, in their order.

    Raises:
        FrameError: A frame cannot be predicted.
        DataError: A frame does not fit its mask, or a probability map does not fit its frame.
    """
    views = list(dict.fromkeys(map(_view, protocols)))
    shown: deque[tuple[str, tuple[BoolArray, ...]]] = deque()  # and not yet scored

    def show() -> Iterator[Frame]:
        for name, frame, mask in pairs:
            if frame.shape != mask.shape:
                raise DataError(
                    f"The mask of {name} is {describe_size(mask)} but the frame is "
                    f"{describe_size(frame)}: give them one size."
                )
            frames, masks = zip(*(_show(frame, mask, *view) for view in views), strict=True)
            shown.append((name, masks))
            yield from frames

    # As many results at a time as there are views of a frame.
    for found in zip(*[iter(predict(show()))] * len(views), strict=True):
        name, masks = shown.popleft()
        fault = next((each for each in found if isinstance(each, FrameError)), None)
        if fault is not None and on_broken is None:
            raise FrameError(f"{name}: {fault}") from fault
        if fault is not None and on_broken is not None:
            on_broken(f"{name}: {fault}")
            continue
        scorers, maps = [], []
        for protocol in protocols:
            place = views.index(_view(protocol))
            height, width = masks[place].shape
            scorers.append(Scorer(protocol, threshold))
            maps.append(found[place][:height, :width])
            scorers[-1].update(maps[-1], masks[place])
        yield ScoredFrame(name, scorers, maps)


def _view(protocol: Protocol) -> _View:
    return protocol.resize, protocol.pad_multiple


def _show(
    frame: Frame, mask: BoolArray, resize: int | None, pad_multiple: int | None
) -> tuple[Frame, BoolArray]:
    """What a protocol lets the model see, and the mask for its top left corner."""
    if resize is not None:
        side = (resize, resize)
        # Pillow, because MSHNet's published numbers come from it: its bilinear filter widens when
        # it shrinks (torch's does not), its nearest pixel is that under the new pixel's center.
        # Mode F keeps the counts of 16-bit frames, and fractions where MSHNet rounds to 8 bits.
        counts = Image.fromarray(np.asarray(frame, dtype=np.float32))
        frame = np.asarray(counts.resize(side, Image.Resampling.BILINEAR))
        levels = Image.fromarray(mask.astype(np.uint8))
        mask = np.asarray(levels.resize(side, Image.Resampling.NEAREST), dtype=np.bool_)
    if pad_multiple is not None:
        down, right = (-side % pad_multiple for side in frame.shape)
        # BasicIRSTD pads with 0 after it has subtracted the mean of the data set. Here the model
        # normalizes each frame by its median, so that the median is what becomes 0.
        frame = np.pad(frame, ((0, down), (0, right)), constant_values=np.median(frame))
    return frame, mask


def view(frame: Frame, mask: BoolArray, protocol: Protocol) -> tuple[Frame, BoolArray]:
    """Frame and mask at the size at which a protocol scores."""
    shown, mask = _show(frame, mask, *_view(protocol))
    return shown[: mask.shape[0], : mask.shape[1]], mask


def describe_size(image: NDArray[Any]) -> str:
    """Width and height of an (H, W) array, for a message."""
    return " x ".join(str(side) for side in reversed(image.shape))
