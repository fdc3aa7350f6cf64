"""The sink of counts: the frames themselves, as they were read."""

from __future__ import annotations

import math
from pathlib import Path

from pinglow.files import write_whole
from pinglow.output.sink import FrameRecord, PictureSink, encode_npy


class CountsSink(PictureSink):
    """counts/<name>.npy: the (H, W) counts of a frame as read, uint8, uint16 or float32.

    Attributes:
        bytes_left: What files may still take. A frame that does not fit is left out, and so are
            all that follow.
    """

    place = "counts"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bytes_left: float = math.inf

    def write(self, record: FrameRecord) -> None:
        """Write the counts of one frame."""
        if self.bytes_left < 0:
            return
        content = encode_npy(record.frame)
        self.bytes_left -= len(content)
        if self.bytes_left >= 0:
            write_whole(self._folder / f"{record.name}.npy", content, durable=False)
