"""Masks as COCO's compressed run lengths, as pycocotools makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode_rle(
    inside: NDArray[np.bool_],
    corner: tuple[int, int] = (0, 0),
    shape: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Encode a mask of which only a part holds pixels; the work goes with that part.

    Args:
        inside: (h, w) bool, the part.
        corner: Left and top pixel of the part in the mask.
        shape: (H, W) of the mask; None: the part is all of it.

    Returns:
        ``{"size": [H, W], "counts": text}``: the lengths of the runs of background and mask in
        turn, column by column from the left, each column from the top.

    Source: the format of https://github.com/cocodataset/cocoapi, common/maskApi.c.
    """
    height, width = inside.shape if shape is None else shape
    xs, ys = np.nonzero(inside.T)  # column by column
    pixels = (xs + corner[0]) * height + ys + corner[1]
    breaks = np.flatnonzero(np.diff(pixels) > 1)
    starts = pixels[np.concatenate([[0], breaks + 1])] if pixels.size else pixels
    ends = pixels[np.concatenate([breaks, [-1]])] + 1 if pixels.size else pixels
    edges = np.stack([starts, ends], axis=1).ravel().tolist()
    if not edges or edges[-1] < height * width:
        edges.append(height * width)
    counts = np.diff([0, *edges]).tolist()
    return {"size": [height, width], "counts": _compress(counts)}


def _compress(counts: list[int]) -> str:
    """Each count, from the fourth on its difference to the last but one, in digits of 5 bits."""
    text = []
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            digit, left = left & 0x1F, left >> 5
            more = left != (-1 if digit & 0x10 else 0)  # the top bit of the last digit is its sign
            text.append(chr(48 + digit + 0x20 * more))
    return "".join(text)
