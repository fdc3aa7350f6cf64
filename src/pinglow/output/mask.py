"""The sink of masks."""

from __future__ import annotations

import numpy as np

from pinglow.output.sink import FrameRecord, PictureSink
from pinglow.structures import Prediction


class MaskSink(PictureSink):
    """masks/<name>_mask.png: 255 on target pixels, 0 elsewhere, at the frame's own size."""

    place = "masks"
    needs_pixels = True

    def write(self, record: FrameRecord) -> None:
        """Write the mask of one frame."""
        assert isinstance(record.prediction, Prediction)
        self.save(record.prediction.mask.astype(np.uint8) * 255, f"{record.name}_mask.png")
