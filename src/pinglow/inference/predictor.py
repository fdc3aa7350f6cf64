"""From a frame to its targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from pinglow.data.prepare import InputRule, normalize_frame
from pinglow.errors import FrameError, OptionError
from pinglow.inference.weights import ModelCard, load_network
from pinglow.nn import fold_kernels
from pinglow.structures import FloatArray, Prediction

_SMALLEST_SIDE = 32


class Predictor:
    """A model with everything around it: counts in, targets out.

    Args:
        network: Maps (1, 1, H, W) to logits of the same shape.
        card: The model's card: input rule and threshold.
        threshold: A pixel is predicted above this probability; the card's by default.

    Raises:
        OptionError: The threshold is not in [0, 1).
    """

    def __init__(self, network: nn.Module, card: ModelCard, threshold: float | None = None) -> None:
        if threshold is not None and not 0 <= threshold < 1:
            raise OptionError(f"threshold is {threshold}; use a value from 0 to below 1")
        self.card = card
        self.threshold = card.threshold if threshold is None else threshold
        self._network = network

    @classmethod
    def load(
        cls, name_or_path: str | Path = "pinglow-fast", *, threshold: float | None = None
    ) -> Self:
        """Load a bundled model by name, or a weights file by path.

        Raises:
            ModelError: The name is unknown or the file cannot be used.
            OptionError: The threshold is not in [0, 1).
        """
        network, card = load_network(name_or_path)
        folded = fold_kernels(network).to(memory_format=torch.channels_last)
        return cls(folded, card, threshold)

    def __call__(self, frame: NDArray[Any]) -> Prediction:
        """Find the targets of an (H, W) frame of counts, any number type.

        Raises:
            FrameError: The frame is not two-dimensional or has no pixels.
        """
        return Prediction(self.probability(frame), self.threshold)

    def probability(self, frame: NDArray[Any]) -> FloatArray:
        """Target probability of each pixel, (H, W) float32 in [0, 1].

        Raises:
            FrameError: The frame is not two-dimensional or has no pixels.
        """
        return predict_probability(self._network, frame, self.card.input_rule)


@torch.inference_mode()
def predict_probability(network: nn.Module, frame: NDArray[Any], rule: InputRule) -> FloatArray:
    """Normalise, enlarge by the rule, run the network, bring back to the frame's size.

    Args:
        network: Maps (1, 1, H, W) to logits of the same shape; in eval mode.
        frame: (H, W) counts, any number type.
        rule: How much to enlarge.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        FrameError: The frame is not two-dimensional, has no pixels, or does not fit into memory.
    """
    frame = np.asarray(frame)
    if frame.ndim != 2 or frame.size == 0 or frame.dtype.kind not in "buif":
        raise FrameError(
            f"a frame of shape {frame.shape} and type {frame.dtype} cannot be used; pass one "
            "(height, width) grey frame, as pinglow.read_frame returns it"
        )
    if frame.dtype.kind == "f" and not np.isfinite(frame).any():
        raise FrameError("a frame without a single finite pixel cannot be used; export it again")
    try:
        return _probability(network, frame, rule)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        size = f"{frame.shape[1]} x {frame.shape[0]}"
        raise FrameError(
            f"a frame of {size} pixels does not fit into memory; cut it into smaller ones"
        ) from error


def _probability(network: nn.Module, frame: NDArray[Any], rule: InputRule) -> FloatArray:
    height, width = frame.shape
    normal = normalize_frame(frame)
    # Tiny frames go on by reflection up to what the network needs.
    padding = [(0, max(0, _SMALLEST_SIDE - side)) for side in frame.shape]
    image = torch.from_numpy(np.pad(normal, padding, mode="symmetric"))[None, None]
    size = image.shape[-2:]
    scale = rule.scale(height, width)
    if scale > 1:
        enlarged = [round(side * scale) for side in size]
        image = F.interpolate(image, enlarged, mode="bilinear")
    logits = network(image.contiguous(memory_format=torch.channels_last))
    probability = torch.sigmoid(logits)
    if scale > 1:
        probability = F.interpolate(probability, size, mode="bilinear", antialias=True)
        probability = probability.clamp(0, 1)  # its weights add up to 1 only up to rounding
    return probability[0, 0, :height, :width].contiguous().numpy()
