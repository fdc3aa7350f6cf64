"""A second look at reduced scale, for targets that are too wide for the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.border import hide_border
from pinglow.preprocess import InputRule, resample
from pinglow.structures import FAINT, FloatArray, label_targets

_REDUCED: Final = (2, 4)  # how many pixels become one, along a side
_WIDE: Final = 24  # px of the frame; what is smaller is the first look's
_ABOVE: Final = 0.5  # probability of a pixel in what the second look outlines
_NEAR: Final = 4  # px around it in which the first look's fragments of it lie
_SMALLEST: Final = 8  # px, the short side of a reduced frame

Find = Callable[[Sequence[NDArray[Any]], InputRule], list[FloatArray]]
"""Maps frames (H, W) of counts to probabilities (H, W), by an input rule."""


def find_large(frames: Sequence[NDArray[Any]], rule: InputRule, find: Find) -> list[FloatArray]:
    """Probabilities of frames, in which targets up to about 80 pixels wide are looked for, too.

    The frame is looked at again at a half and at a quarter of its scale. From there comes only what
    is at least 24 pixels wide: the first look finds what is smaller. Where both find something, it
    is one target. Takes a third more time. Source: ours (docs/guides/predict.md has its figures).

    Args:
        frames: (H, W) counts each, any number type.
        rule: How much a frame is enlarged for the first look.
        find: Finds the probabilities of frames.

    Returns:
        (H, W) float32 in [0, 1] each.
    """
    maps = find(frames, rule)
    shown = [hide_border(frame) for frame in frames]
    for step in _REDUCED:
        places = [place for place, each in enumerate(shown) if min(each.shape) >= step * _SMALLEST]
        reduced = [_reduce(shown[place], step) for place in places]
        usable = [place for place, each in zip(places, reduced, strict=True) if _is_any(each)]
        smaller = rule.model_copy(update={"long_side": max(32, rule.long_side // step)})
        found = find([each for each in reduced if _is_any(each)], smaller)
        for place, again in zip(usable, found, strict=True):
            size = shown[place].shape
            _join(maps[place], resample(again[None, None], (size[0], size[1]))[0, 0])
    return maps


def _reduce(frame: NDArray[Any], step: int) -> FloatArray:
    """(H, W) to about (H / step, W / step), by means; a hidden pixel hides what it would be in."""
    height, width = frame.shape
    size = round(height / step), round(width / step)
    counts = np.where(np.isfinite(frame), frame, np.nan).astype(np.float32)
    return np.asarray(resample(counts[None, None], size)[0, 0])


def _is_any(frame: FloatArray) -> bool:
    return bool(np.isfinite(frame).any())


def _join(probability: FloatArray, again: FloatArray) -> None:
    """Take over what is wide, (H, W) in place; of its fragments nothing remains.

    Of a wide target the first look often finds fragments, each of which would be a target. What
    stands apart is no fragment, also in the box of a slanted one.
    """
    labels, _ = label_targets(again > _ABOVE)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if max(side.stop - side.start for side in place) < _WIDE:
            continue
        box = tuple(slice(max(0, side.start - _NEAR), side.stop + _NEAR) for side in place)
        inside = labels[box] == number
        near = ndimage.binary_dilation(
            ndimage.binary_fill_holes(inside), np.ones((3, 3), np.bool_), iterations=_NEAR
        )
        first = probability[box]
        pieces, count = label_targets((first > FAINT) & ~inside)
        is_fragment = np.zeros(count + 1, np.bool_)
        is_fragment[pieces[near]] = True
        is_fragment[0] = False  # no piece
        first[is_fragment[pieces]] = 0
        # The first look may have outlined it, more finely.
        first[inside] = np.maximum(first, again[box])[inside]
