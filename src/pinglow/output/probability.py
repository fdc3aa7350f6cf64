"""The sink of probability maps."""

from __future__ import annotations

import numpy as np

from pinglow.output.sink import FrameRecord, PictureSink
from pinglow.structures import Prediction


class ProbabilitySink(PictureSink):
    """probability/<name>.png: 16 bits, value / 65535; `pinglow evaluate --predictions` reads it."""

    place = "probability"
    needs_pixels = True

    def write(self, record: FrameRecord) -> None:
        """Write the probability map of one frame."""
        assert isinstance(record.prediction, Prediction)
        levels = np.rint(record.prediction.probability * np.float64(65535)).astype(np.uint16)
        self.save(levels, f"{record.name}.png")
