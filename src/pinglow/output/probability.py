"""The sink of probability maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pinglow.output.sink import FrameRecord, PictureSink
from pinglow.structures import Prediction


class ProbabilitySink(PictureSink):
    """probability/<name>.png: 16 bits, value / 65535; `pinglow evaluate --predictions` reads it."""

    place = "probability"
    needs_pixels = True

    def write(self, record: FrameRecord) -> None:
        """Write the probability map of one frame."""
        assert isinstance(record.prediction, Prediction)
        self.save(probability_levels(record.prediction), f"{record.name}.png")


def probability_levels(prediction: Prediction) -> NDArray[np.uint16]:
    """(H, W), the probabilities in units of 1 / 65535."""
    return np.rint(prediction.probability * np.float64(65535)).astype(np.uint16)
