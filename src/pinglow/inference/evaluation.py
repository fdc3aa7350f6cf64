"""Scores of a model, or of saved probability maps, over frames with known targets.

The metrics only compare a probability map with a mask; here each protocol gets the two at the size
it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.data.io import read_frame
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.metrics import Protocol, Report, Scorer
from pinglow.structures import BoolArray

Frame = NDArray[Any]
Probability = NDArray[Any]
Pair = tuple[str, Frame, BoolArray]
"""Name of a frame, its (H, W) counts, its (H, W) mask."""

_LEVEL: Final = 1 / 255


def evaluate_model(
    pairs: Iterable[Pair],
    predict_probability: Callable[[Frame], Probability],
    protocols: Sequence[Protocol],
    threshold: float = 0.5,
    on_broken: Callable[[str], object] | None = None,
) -> list[Report]:
    """Run a model over frames and score it, in one pass for all protocols.

    Args:
        pairs: Names, frames and masks.
        predict_probability: (H, W) counts to (H, W) probabilities, of any size.
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
    for name, frame, mask in pairs:
        if frame.shape != mask.shape:
            raise DataError(
                f"The mask of {name} is {_size(mask)} but the frame is {_size(frame)}: "
                "give them one size."
            )
        done: dict[tuple[int | None, int | None], tuple[Probability, BoolArray]] = {}
        try:
            for rule in protocols:
                key = (rule.resize, rule.pad_multiple)
                if key not in done:
                    done[key] = _predict_by_protocol(frame, mask, predict_probability, rule)
        except FrameError as error:
            if on_broken is None:
                raise FrameError(f"{name}: {error}") from error
            on_broken(f"{name}: {error}")
            continue
        for scorer in scorers:
            scorer.update(*done[scorer.protocol.resize, scorer.protocol.pad_multiple])
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
        path: A grey PNG: value / 255 for 8 bits, value / 65535 for 16 bits.
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
        raise DataError(f"Prediction {path} holds {levels.dtype}: save an 8- or 16-bit grey PNG.")
    return levels / np.iinfo(levels.dtype).max


def _predict_by_protocol(
    frame: Frame,
    mask: BoolArray,
    predict_probability: Callable[[Frame], Probability],
    protocol: Protocol,
) -> tuple[Probability, BoolArray]:
    """Show the model a frame as a protocol wants it; return probability and mask of one size."""
    if protocol.resize is not None:
        side = (protocol.resize, protocol.resize)
        # Pillow, because MSHNet's published numbers come from it: its bilinear filter widens when
        # it shrinks (torch's does not), its nearest pixel is that under the new pixel's centre.
        # Mode F keeps the counts of 16-bit frames, and fractions where MSHNet rounds to 8 bits.
        counts = Image.fromarray(np.asarray(frame, dtype=np.float32))
        frame = np.asarray(counts.resize(side, Image.Resampling.BILINEAR))
        levels = Image.fromarray(mask.astype(np.uint8))
        mask = np.asarray(levels.resize(side, Image.Resampling.NEAREST), dtype=np.bool_)
    height, width = frame.shape
    if protocol.pad_multiple is not None:
        down, right = -height % protocol.pad_multiple, -width % protocol.pad_multiple
        # BasicIRSTD pads with 0 after it has subtracted the mean of the data set. Here the model
        # normalises each frame by its median, so that the median is what becomes 0.
        frame = np.pad(frame, ((0, down), (0, right)), constant_values=np.median(frame))
    return predict_probability(frame)[:height, :width], mask


def _size(image: NDArray[Any]) -> str:
    return " x ".join(str(side) for side in reversed(image.shape))
