"""The sink of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pinglow.output.sink import FrameRecord, PictureSink
from pinglow.structures import Prediction


class MaskSink(PictureSink):
    """masks/<name>_mask.png: 255 on target pixels, 0 elsewhere, at the frame's own size."""

    place = "masks"
    needs_pixels = True

    def write(self, record: FrameRecord) -> None:
        """Write the mask of one frame."""
        assert isinstance(record.prediction, Prediction)
        self.save(mask_levels(record.prediction), f"{record.name}_mask.png")


def mask_levels(prediction: Prediction) -> NDArray[np.uint8]:
    """(H, W), 255 on target pixels."""
    return prediction.mask.astype(np.uint8) * np.uint8(255)
