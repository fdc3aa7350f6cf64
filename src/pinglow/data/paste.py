"""Augmentation: targets lifted out of one frame and pasted into another.

A data set shows few targets before few backgrounds; pasting shows all before all. The idea is
copy-paste of instances (arXiv 2012.07177); lifting by the difference from a filled background, and
the contrast rule, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from pinglow.structures import BoolArray, FloatArray, Target

_BLUR: Final = 2  # pixels that a target's light reaches beyond its mask
_RING: Final = 6  # pixels around that, the surroundings by which clutter is measured
_LARGEST_AREA: Final = 400
_MOST_GAIN: Final = 4.0
_CROSS: Final = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class TargetPatch:
    """A target without its background.

    Attributes:
        light: (h, w) float32, what the target adds to its background; 0 outside its blur.
        mask: (h, w) bool.
        clutter: Standard deviation of the surroundings it was seen in.
    """

    light: FloatArray
    mask: BoolArray
    clutter: float


def lift_target(frame: FloatArray, mask: BoolArray, target: Target) -> TargetPatch | None:
    """Take a target out of its frame.

    The background behind it is the harmonic function (Laplace's equation) that continues its
    surroundings; what the frame shows beyond that is the target.

    Args:
        frame: (H, W), normalised.
        mask: (H, W), with all targets of the frame.
        target: One of them.

    Returns:
        The patch, or None if the frame's border or another target is too near, or if the target
        is larger than 400 pixels.
    """
    margin = _BLUR + _RING
    left, top, width, height = target.bbox
    rows = slice(top - margin, top + height + margin)
    columns = slice(left - margin, left + width + margin)
    outside = rows.stop > frame.shape[0] or columns.stop > frame.shape[1]
    if rows.start < 0 or columns.start < 0 or outside or target.area > _LARGEST_AREA:
        return None
    seen, inside = frame[rows, columns], mask[rows, columns]
    if int(inside.sum()) != target.area:
        return None
    hidden = ndimage.binary_dilation(inside, _CROSS, iterations=_BLUR)
    light = np.where(hidden, seen - _fill(seen, hidden), np.float32(0))
    return TargetPatch(light.astype(np.float32), inside.copy(), float(seen[~hidden].std()))


def paste_target(
    frame: FloatArray, mask: BoolArray, patch: TargetPatch, random: Generator, rotate: bool = True
) -> tuple[int, int] | None:
    """Add a target to a frame and its mask, in place, at a random place, mirrored at random.

    With ``rotate`` it is also turned, by a multiple of 90 degrees.

    Before stronger clutter than it was lifted from, its light is raised by as much (at most four
    times, before all light varies by a fifth at random): a target that nobody could see would
    teach false alarms.

    Returns:
        A pixel (y, x) of it, or None if it found no free place: then nothing has changed.
    """
    turns, flip = int(random.integers(4)) if rotate else 0, random.random() < 0.5
    light, inside = np.rot90(patch.light, turns), np.rot90(patch.mask, turns)
    if flip:
        light, inside = light[:, ::-1], inside[:, ::-1]
    room = np.subtract(frame.shape, inside.shape)
    if room.min() < 0:
        return None
    top, left = (int(random.integers(side + 1)) for side in room)
    place = np.s_[top : top + inside.shape[0], left : left + inside.shape[1]]
    if mask[place].any():
        return None
    clutter = float(frame[place].std())
    gain = min(max(clutter / max(patch.clutter, 1e-3), 1.0), _MOST_GAIN)
    frame[place] += light * np.float32(gain * random.uniform(0.8, 1.2))
    mask[place] |= inside
    y, x = np.argwhere(inside)[0]
    return top + int(y), left + int(x)


def _fill(values: FloatArray, hidden: BoolArray) -> NDArray[np.float64]:
    """The values with the hidden ones replaced: each the mean of its four neighbours.

    The outermost pixels must not be hidden.
    """
    number = np.full(values.shape, -1)
    ys, xs = np.nonzero(hidden)
    number[ys, xs] = np.arange(len(ys))
    known = np.zeros(len(ys))
    pairs = []
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        neighbour = number[ys + dy, xs + dx]
        known += np.where(neighbour < 0, values[ys + dy, xs + dx], 0)
        pairs += [(a, b) for a, b in enumerate(neighbour) if b >= 0]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    links = sparse.csc_array((np.ones(len(rows)), (rows, columns)), shape=(len(ys), len(ys)))
    filled = values.astype(np.float64)
    filled[ys, xs] = spsolve(4 * sparse.eye_array(len(ys), format="csc") - links, known)
    return filled
