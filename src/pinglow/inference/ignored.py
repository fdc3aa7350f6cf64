"""Pixels of every frame that are no part of the picture: symbols, clocks, telemetry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pinglow.errors import FrameError, OptionError
from pinglow.io.frames import read_only_frame
from pinglow.structures import BoolArray, Detections, FloatArray

_RECTANGLE: Final = re.compile(r"\s*-?\d+\s*(,\s*-?\d+\s*)*")


class Ignored:
    """What is ignored of frames of one camera: it is no pixel, so nothing is found in it.

    Neither does it move a frame's normalization. A frame that it does not fit is refused.

    Args:
        rectangles: (left, top, width, height) each, in whole pixels of the frame.
        mask: (H, W), the size of the frames; what is not 0 is ignored. None: rectangles only.

    Raises:
        OptionError: A rectangle has no pixels or begins outside of a frame, or the mask is not of
            two dimensions or ignores nothing.
    """

    def __init__(
        self, rectangles: Sequence[tuple[int, int, int, int]] = (), mask: ArrayLike | None = None
    ) -> None:
        for left, top, width, height in rectangles:
            if min(left, top) < 0 or min(width, height) < 1:
                raise OptionError(
                    f"the ignored rectangle {left},{top},{width},{height} is impossible: give x, "
                    "y of 0 or more, and width, height of 1 or more"
                )
        self._rectangles = tuple(rectangles)
        self._mask = None if mask is None else np.asarray(mask) != 0
        if self._mask is not None and self._mask.ndim != 2:
            raise OptionError(f"the ignored mask has shape {self._mask.shape}: give (H, W)")
        if self._mask is not None and not self._mask.any():
            raise OptionError("the ignored mask has no pixel above 0, so it ignores nothing")

    @classmethod
    def parse(cls, words: Sequence[str]) -> Ignored | None:
        """What ``--ignore`` says: x,y,w,h, or the path of a mask image, each; None: nothing.

        Raises:
            OptionError: A word is neither, or masks are not of one size.
            FrameError: A mask cannot be read.
        """
        rectangles: list[tuple[int, int, int, int]] = []
        mask: BoolArray | None = None
        for word in words:
            if not _RECTANGLE.fullmatch(word) or Path(word).is_file():
                if not Path(word).exists():
                    raise OptionError(
                        f"--ignore {word!r} is neither a file nor x,y,w,h: give whole pixels, as "
                        "in 0,0,64,20, or the path of a mask image"
                    )
                more = read_only_frame(word) != 0
                if not more.any():
                    raise OptionError(f"--ignore {word} has no pixel above 0: it ignores nothing")
                if mask is not None and mask.shape != more.shape:
                    raise OptionError(
                        f"--ignore {word} is of {_size(more)} pixels, another mask of "
                        f"{_size(mask)}: give masks of the frames' size"
                    )
                mask = more if mask is None else mask | more
                continue
            sides = [int(number) for number in word.split(",")]
            if len(sides) != 4:
                raise OptionError(f"--ignore {word!r} has {len(sides)} numbers: give x,y,w,h")
            rectangles.append((sides[0], sides[1], sides[2], sides[3]))
        return cls(rectangles, mask) if words else None

    def area(self, shape: tuple[int, ...]) -> BoolArray:
        """(H, W) bool of frames of this shape: what is ignored.

        Raises:
            FrameError: It does not fit them, or leaves nothing.
        """
        height, width = shape
        if self._mask is not None and self._mask.shape != shape:
            raise FrameError(
                f"the ignored mask is of {_size(self._mask)} pixels, the frame of {width} x "
                f"{height}: give a mask of the frame's size"
            )
        area = np.zeros(shape, dtype=np.bool_) if self._mask is None else self._mask.copy()
        for left, top, wide, high in self._rectangles:
            if left + wide > width or top + high > height:
                raise FrameError(
                    f"the ignored rectangle {left},{top},{wide},{high} reaches out of a frame of "
                    f"{width} x {height} pixels: give one that lies in it"
                )
            area[top : top + high, left : left + wide] = True
        if area.all():
            raise FrameError("the whole frame is ignored: ignore less")
        return area

    def hide(self, frame: NDArray[Any]) -> NDArray[Any]:
        """(H, W) counts, NaN where they are ignored.

        Raises:
            FrameError: See `area`.
        """
        return np.where(self.area(frame.shape), np.float32(np.nan), frame)

    def blank(self, maps: Sequence[FloatArray]) -> None:
        """Set (H, W) probabilities to 0 where they are ignored, in place."""
        for probability in maps:
            probability[self.area(probability.shape)] = 0

    def clear(self, boxes: Detections, shape: tuple[int, ...]) -> Detections:
        """Boxes in a frame of this shape, but for those centered in what is ignored."""
        height, width = shape
        centers = (boxes.boxes[:, :2] + boxes.boxes[:, 2:] / 2).astype(int)  # (n, 2) x, y
        x, y = centers.clip(0, (width - 1, height - 1)).T
        kept = ~self.area(shape)[y, x]
        return Detections(boxes.boxes[kept], boxes.scores[kept])


def _size(mask: NDArray[Any]) -> str:
    return f"{mask.shape[1]} x {mask.shape[0]}"
