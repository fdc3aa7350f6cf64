"""Scores of a model, or of saved probability maps, over frames with known targets.

The metrics only compare a probability map with a mask; here each protocol gets the two at the size
it asks for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import DataError, FrameError, OptionError
from pinglow.io.frames import read_frame
from pinglow.metrics import Protocol, Report, Scorer
from pinglow.structures import BoolArray

Frame = NDArray[Any]
Probability = NDArray[Any]
Pair = tuple[str, Frame, BoolArray]
"""Name of a frame, its (H, W) counts, its (H, W) mask."""

_View = tuple[int | None, int | None]  # what protocols resize to, and a multiple they pad to
_LEVEL: Final = 1 / 255


def evaluate_model(
    pairs: Iterable[Pair],
    predict: Callable[[Iterable[Frame]], Iterable[Probability | FrameError]],
    protocols: Sequence[Protocol],
    threshold: float = 0.5,
    on_broken: Callable[[str], object] | None = None,
) -> list[Report]:
    """Run a model over frames and score it, in one pass for all protocols.

    Args:
        pairs: Names, frames and masks.
        predict: Maps frames of (H, W) counts, of any size, to their (H, W) probabilities, or why
            there are none, in their order: `Predictor.probabilities`.
        protocols: What to score by; those that show the model the same input share its output.
        threshold: See `Scorer`.
        on_broken: Called with the reason for each frame that cannot be predicted and is left out;
            None: such a frame raises.

    Returns:
        One report per protocol, in their order.

    Raises:
        FrameError: A frame cannot be predicted.
        DataError: A frame does not fit its mask, or a probability map does not fit its frame.
    """
    scorers = [Scorer(protocol, threshold) for protocol in protocols]
    views = list(dict.fromkeys(map(_view, protocols)))
    shown: deque[tuple[str, tuple[BoolArray, ...]]] = deque()  # and not yet scored

    def show() -> Iterator[Frame]:
        for name, frame, mask in pairs:
            if frame.shape != mask.shape:
                raise DataError(
                    f"The mask of {name} is {_size(mask)} but the frame is {_size(frame)}: "
                    "give them one size."
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
        for scorer in scorers:
            place = views.index(_view(scorer.protocol))
            height, width = masks[place].shape
            scorer.update(found[place][:height, :width], masks[place])
    return [scorer.compute() for scorer in scorers]


def evaluate_saved(
    pairs: Iterable[Pair],
    folder: Path,
    protocols: Sequence[Protocol],
    threshold: float = 0.5,
) -> list[Report]:
    """Score saved probability maps ``<name>.png``, see `read_probability`.

    Args:
        pairs: Names, frames (not looked at) and masks.
        folder: Holds one map per name, at the mask's size.
        protocols: What to score by.
        threshold: See `Scorer`.

    Returns:
        One report per protocol, in their order.

    Raises:
        OptionError: A protocol resizes or pads the model's input, so that saved maps cannot tell.
        DataError: The folder or a map is missing, broken or of another size than its mask; or the
            maps are masks of 0 and 1, where 1 is no more than 1 / 255, though there are targets.
    """
    for protocol in protocols:
        if protocol.needs_model:
            raise OptionError(
                f"Protocol {protocol.name} changes the size of the model's input, so it cannot "
                "score saved predictions: give a model, or choose strict or greedy."
            )
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name the one that holds the saved predictions.")
    scorers = [Scorer(protocol, threshold) for protocol in protocols]
    highest = 0.0
    for name, _, mask in pairs:
        probability = read_probability(folder / f"{name}.png", mask.shape)
        highest = max(highest, float(probability.max()))
        for scorer in scorers:
            scorer.update(probability, mask)
    reports = [scorer.compute() for scorer in scorers]
    if highest == _LEVEL and reports[0].targets:
        raise DataError(
            f"The predictions in {folder} are 0 or 1 of 255 everywhere: save a mask as 0 and 255."
        )
    return reports


def read_probability(path: Path, shape: tuple[int, ...]) -> Probability:
    """Read a saved probability map.

    Args:
        path: A gray PNG: value / 255 for 8 bits, value / 65535 for 16 bits.
        shape: (H, W) that it must have.

    Returns:
        (H, W) float64 in [0, 1].

    Raises:
        DataError: The file is missing, broken, not of integers, or of another size.
    """
    if not path.is_file():
        raise DataError(f"Prediction {path} is missing: save one map for every name in the list.")
    try:
        levels = read_frame(path)
    except FrameError as error:
        raise DataError(f"A saved prediction cannot be read: {error}") from error
    if levels.shape != shape:
        raise DataError(
            f"Prediction {path} is {_size(levels)} but its mask is {shape[1]} x {shape[0]}: "
            "save predictions at the original size of the frames."
        )
    if levels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"Prediction {path} holds {levels.dtype}: save an 8- or 16-bit gray PNG.")
    return levels / np.iinfo(levels.dtype).max


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


def _size(image: NDArray[Any]) -> str:
    return " x ".join(str(side) for side in reversed(image.shape))
