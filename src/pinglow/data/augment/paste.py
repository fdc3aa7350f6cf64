"""Augmentation: targets lifted out of one frame and pasted into another.

A data set shows few targets before few backgrounds; pasting shows all before all. The idea is
copy-paste of instances (arXiv 2012.07177); lifting by the difference from a filled background, and
the contrast rule, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from pinglow.data.augment import counter
from pinglow.structures import BoolArray, FloatArray, Target

_BLUR: Final = 2  # pixels that a target's light reaches beyond its mask
_RING: Final = 6  # pixels around that, the surroundings by which clutter is measured
_LARGEST_AREA: Final = 400
_MOST_GAIN: Final = 4.0
_MOST_PASTED: Final = 3
_STREAM: Final = -2  # tells these draws from those of views
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
        frame: (H, W), normalized.
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


@dataclass(frozen=True, eq=False)
class Pasting:
    """Targets that can be pasted, on one device.

    Attributes:
        light: (Q,) float32, `TargetPatch.light` of all of them, row by row.
        inside: (Q,) bool, their masks.
        start: (N,) int64, where each begins.
        height: (N,) int64.
        width: (N,) int64.
        clutter: (N,) float32.
        point: (N, 2) int64, a pixel (row, column) of each target's mask.
        first: (F,) int64, where the targets of a training frame begin in the above.
        count: (F,) int64, how many there are.
        side: The largest height or width.
    """

    light: Tensor
    inside: Tensor
    start: Tensor
    height: Tensor
    width: Tensor
    clutter: Tensor
    point: Tensor
    first: Tensor
    count: Tensor
    side: int

    @classmethod
    def collect(cls, patches: Sequence[Sequence[TargetPatch]]) -> Self | None:
        """The patches of each training frame, in the frames' order; None if there is none."""
        flat = [patch for each in patches for patch in each]
        if not flat:
            return None
        sizes = torch.tensor([patch.mask.shape for patch in flat])
        areas, counts = sizes.prod(dim=1), torch.tensor([len(each) for each in patches])
        return cls(
            light=torch.from_numpy(np.concatenate([patch.light.ravel() for patch in flat])),
            inside=torch.from_numpy(np.concatenate([patch.mask.ravel() for patch in flat])),
            start=areas.cumsum(0) - areas,
            height=sizes[:, 0],
            width=sizes[:, 1],
            clutter=torch.tensor([patch.clutter for patch in flat]),
            point=torch.from_numpy(np.stack([np.argwhere(patch.mask)[0] for patch in flat])),
            first=counts.cumsum(0) - counts,
            count=counts,
            side=int(sizes.max()),
        )

    def to(self, device: torch.device) -> Self:
        """The same targets on a device."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        tensors = {name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        return type(self)(**(values | tensors))


class Pasted(NamedTuple):
    """What is pasted into the views of a batch: a tensor (B, 3) each."""

    patch: Tensor
    used: Tensor
    flip: Tensor
    turns: Tensor
    """By 90 degrees."""
    down: Tensor
    """Share of the room that lies above it."""
    right: Tensor
    """Share of the room that lies to the left of it."""
    gain: Tensor


def draw_pasting(
    pasting: Pasting, shares: Tensor, share: float, rotate: Tensor, keys: Tensor
) -> Pasted:
    """Draw up to three targets for a share of the views, each of a frame drawn as for a view.

    Args:
        pasting: The targets.
        shares: (F,) how often each frame is drawn, summed up.
        share: Of the views.
        rotate: (B,) whether targets may be turned.
        keys: (B,) int64, one a view.
    """
    draws = counter.uniform(counter.mix(keys, _STREAM), 2 + 8 * _MOST_PASTED)
    number = torch.where(draws[:, 0] < share, 1 + (_MOST_PASTED * draws[:, 1]).long(), 0)
    rest = draws[:, 2:].reshape(-1, _MOST_PASTED, 8)
    source, which, flip, turns, down, right, gain, _ = rest.unbind(2)
    frame = torch.searchsorted(shares, source.contiguous(), right=True).clamp(max=len(shares) - 1)
    count = pasting.count[frame]
    patch = (pasting.first[frame] + (which * count).long()).clamp(max=len(pasting.start) - 1)
    slots = torch.arange(_MOST_PASTED, device=keys.device)
    return Pasted(
        patch=patch,
        used=(slots < number[:, None]) & (count > 0),
        flip=flip < 0.5,
        turns=torch.where(rotate[:, None], (4 * turns).long(), 0),
        down=down,
        right=right,
        gain=(0.8 + 0.4 * gain).float(),
    )


def paste_targets(
    pasting: Pasting, drawn: Pasted, image: Tensor, truth: Tensor, side: Tensor
) -> tuple[Tensor, Tensor]:
    """Add targets to windows of frames and to their masks, in place, one after the other.

    Before stronger clutter than it was lifted from, a target's light is raised by as much (at most
    four times, before all light varies by a fifth at random): a target that nobody could see would
    teach false alarms. One that finds no free place is left out.

    Args:
        pasting: The targets.
        drawn: Which, and where.
        image: (B, S, S), normalized; of each window the first ``side`` rows and columns are used.
        truth: (B, S, S), 0 or 1.
        side: (B,) int64.

    Returns:
        A pixel (row, column) of each target in its window, (B, 3, 2), and whether it is there.
    """
    pixels, taken, stride = image.flatten(1), truth.flatten(1), image.shape[2]
    steps = torch.arange(pasting.side, device=image.device)
    points, there = [], []
    for slot in range(_MOST_PASTED):
        patch, used, flip, turns, down, right, vary = (each[:, slot] for each in drawn)
        # Turned to the left: transposed after a flip, as in views.
        turned, flip_rows = turns % 2 == 1, turns >= 2
        flip_columns = flip ^ (turns == 1) ^ (turns == 2)
        height, width = pasting.height[patch], pasting.width[patch]
        tall, wide = torch.where(turned, width, height), torch.where(turned, height, width)
        top = (down * (side - tall + 1)).long().clamp(min=0)
        left = (right * (side - wide + 1)).long().clamp(min=0)
        free = used & (side >= tall) & (side >= wide)
        inside = (steps < tall[:, None])[:, :, None] & (steps < wide[:, None])[:, None]
        inside &= free[:, None, None]
        at = (top[:, None] + steps)[:, :, None] * stride + (left[:, None] + steps)[:, None]
        at = torch.where(inside, at, 0).flatten(1)  # (B, n): of what is outside, nothing is added
        inside = inside.flatten(1)
        row, column = (
            torch.where(turned[:, None, None], *pair)
            for pair in ((steps, steps[:, None]), (steps[:, None], steps))
        )
        row = torch.where(flip_rows[:, None, None], height[:, None, None] - 1 - row, row)
        column = torch.where(flip_columns[:, None, None], width[:, None, None] - 1 - column, column)
        source = pasting.start[patch][:, None, None] + row * width[:, None, None] + column
        source = torch.where(inside, source.flatten(1), 0)
        free &= ~((taken.gather(1, at) > 0) & inside).any(dim=1)
        add = inside & free[:, None]
        seen = pixels.gather(1, at).double()
        area = inside.sum(1).clamp(min=1)
        mean = (seen * inside).sum(1) / area
        clutter = (((seen - mean[:, None]) ** 2 * inside).sum(1) / area).sqrt()
        gain = (clutter / pasting.clutter[patch].clamp(min=1e-3)).clamp(1, _MOST_GAIN) * vary
        pixels.scatter_add_(1, at, pasting.light[source] * add * gain[:, None].float())
        taken.scatter_add_(1, at, (pasting.inside[source] & add).float())
        y, x = pasting.point[patch].unbind(1)
        y = torch.where(flip_rows, height - 1 - y, y)
        x = torch.where(flip_columns, width - 1 - x, x)
        points.append(
            torch.stack([top + torch.where(turned, x, y), left + torch.where(turned, y, x)], 1)
        )
        there.append(free)
    return torch.stack(points, dim=1), torch.stack(there, dim=1)


def _fill(values: FloatArray, hidden: BoolArray) -> NDArray[np.float64]:
    """The values with the hidden ones replaced: each the mean of its four neighbors.

    The outermost pixels must not be hidden.
    """
    number = np.full(values.shape, -1)
    ys, xs = np.nonzero(hidden)
    number[ys, xs] = np.arange(len(ys))
    known = np.zeros(len(ys))
    pairs = []
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        neighbor = number[ys + dy, xs + dx]
        known += np.where(neighbor < 0, values[ys + dy, xs + dx], 0)
        pairs += [(a, b) for a, b in enumerate(neighbor) if b >= 0]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    links = sparse.csc_array((np.ones(len(rows)), (rows, columns)), shape=(len(ys), len(ys)))
    filled = values.astype(np.float64)
    filled[ys, xs] = spsolve(4 * sparse.eye_array(len(ys), format="csc") - links, known)
    return filled
