"""Augmentation: views of frames and their masks, a whole batch at a time, on any device. Ours.

What a view shows is drawn first (`draw_views`), a few numbers a view; then all views are cut out of
frames that lie on the device, one after the other in one flat buffer, scaled by products with two
matrices, and disturbed (`cut_views`). Numbers come from `pinglow.data.augment.counter`, so that a
view depends on its own key alone: not on the device, nor on what else is in its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from pinglow.data.augment import counter
from pinglow.data.augment.paste import Pasted, Pasting, draw_pasting, paste_targets

_MOST_STUCK: Final = 4
_STUCK: Final = (3.0, 10.0)  # normalized: 10 to 11,000 spreads away from the median


class Augmentation(BaseModel):
    """Settings of what is random in training: views of frames, and pasted targets."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    crop: int = Field(default=256, ge=32, le=8192, description="side of a view, pixels")
    target_bias: float = Field(
        default=0.6, ge=0, le=1, description="share of views that hold a target for sure"
    )
    paste: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of views that get one to three targets of other frames",
    )
    scale: tuple[float, float] = Field(
        default=(0.8, 1.3), description="random factor on top of the input rule's"
    )
    scale_share: float = Field(
        default=1.0, ge=0, le=1, description="share of views with that factor; others have 1"
    )
    flip: bool = True
    rotate: bool = Field(default=True, description="by multiples of 90 degrees")
    gain: float = Field(default=0.3, ge=0, lt=1, description="contrast factor in 1 ± gain")
    offset: float = Field(default=0.3, ge=0, description="largest brightness shift")
    noise: float = Field(default=0.1, ge=0, description="largest sigma of added Gaussian noise")
    stuck: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of views that get one to four stuck pixels, hot or cold",
    )

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1] < math.inf:
            raise ValueError("use [smallest, largest] factor, both above 0")
        return scale


@dataclass(frozen=True, eq=False)
class FrameBank:
    """The frames that views are cut from, on one device.

    Attributes:
        frames: (P,) float32, all pixels of all frames, normalized, row by row.
        masks: (P,) bool, their target pixels.
        start: (F,) int64, where each frame begins.
        height: (F,) int64.
        width: (F,) int64.
        scale: (F,) float64, enlargement by the input rule.
        scale_share: (F,) float64, in the place of the settings'.
        rotate: (F,) bool, in the place of the settings'.
        shares: (F,) float64, rising to 1: how often a frame is drawn, summed up.
        first: (F,) int64, where a frame's targets begin in ``points``.
        targets: (F,) int64, how many there are.
        points: (T, 2) int64, a pixel (y, x) of each target; at least one row.
        most: The largest of ``targets``, at least 1.
        least_scale: The smallest of ``scale``.
        pasting: Targets to paste; None: none are.
    """

    frames: Tensor
    masks: Tensor
    start: Tensor
    height: Tensor
    width: Tensor
    scale: Tensor
    scale_share: Tensor
    rotate: Tensor
    shares: Tensor
    first: Tensor
    targets: Tensor
    points: Tensor
    most: int
    least_scale: float
    pasting: Pasting | None = None

    @classmethod
    def build(
        cls,
        frames: Tensor,
        masks: Tensor,
        shapes: Sequence[tuple[int, ...]],
        points: Sequence[NDArray[np.int64]],
        *,
        scale: Sequence[float],
        scale_share: Sequence[float],
        rotate: Sequence[bool],
        weights: Sequence[float],
        pasting: Pasting | None = None,
    ) -> Self:
        """A bank of F frames on the CPU.

        Args:
            frames: As the bank has them.
            masks: As the bank has them.
            shapes: (H, W) of each frame.
            points: (n, 2), a pixel (y, x) of each target of each frame.
            scale: Of each frame.
            scale_share: Of each frame.
            rotate: Of each frame.
            weights: How often each frame is drawn against the others, above 0.
            pasting: As the bank has it.
        """
        sizes = torch.tensor(shapes)
        areas = sizes.prod(dim=1)
        targets = torch.tensor([len(each) for each in points])
        shares = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        return cls(
            frames=frames,
            masks=masks,
            start=areas.cumsum(0) - areas,
            height=sizes[:, 0].contiguous(),
            width=sizes[:, 1].contiguous(),
            scale=torch.tensor(scale, dtype=torch.float64),
            scale_share=torch.tensor(scale_share, dtype=torch.float64),
            rotate=torch.tensor(rotate),
            shares=shares / shares[-1],
            first=targets.cumsum(0) - targets,
            targets=targets,
            points=torch.from_numpy(np.concatenate([*points, np.zeros((1, 2), dtype=np.int64)])),
            most=max(1, int(targets.max())),
            least_scale=min(scale),
            pasting=pasting,
        )

    @property
    def size(self) -> int:
        """Bytes of the pixels."""
        return self.frames.nbytes + self.masks.nbytes

    def to(self, device: torch.device) -> Self:
        """The same bank on a device."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        movable = (Tensor, Pasting)
        moved = {name: v.to(device) for name, v in values.items() if isinstance(v, movable)}
        return type(self)(**(values | moved))

    def largest_side(self, settings: Augmentation) -> int:
        """Pixels of the frame that a view shows at most, along one side."""
        return max(1, round(settings.crop / (self.least_scale * min(1.0, settings.scale[0]))))


class Views(NamedTuple):
    """What the views of a batch show: a tensor (B,) each, unless said otherwise."""

    frame: Tensor
    side: Tensor
    """Side of the window, pixels of the frame."""
    top: Tensor
    left: Tensor
    flip_rows: Tensor
    flip_columns: Tensor
    transpose: Tensor
    """Done after the flips."""
    gain: Tensor
    offset: Tensor
    noise: Tensor
    """Sigma."""
    noise_key: Tensor
    stuck: Tensor
    """(B, 4) values of stuck pixels; 0: none."""
    stuck_at: Tensor
    """(B, 4, 2) int64, (row, column) in the window."""
    pasting: Pasted | None

    def part(self, place: slice | Tensor) -> Views:
        """Some of the views."""
        taken: dict[str, Any] = {
            name: value[place] for name, value in self._asdict().items() if name != "pasting"
        }
        pasting = self.pasting and Pasted(*(each[place] for each in self.pasting))
        return Views(**taken, pasting=pasting)


def draw_views(bank: FrameBank, settings: Augmentation, keys: Tensor) -> Views:
    """Draw what each view shows.

    Args:
        bank: The frames.
        settings: What is random, and how much; a frame's own scale_share and rotate come first.
        keys: (B,) int64, one a view, on the bank's device.
    """
    draws = counter.uniform(keys, 16 + 4 * _MOST_STUCK)
    columns = iter(draws.t().contiguous())  # one after the other, as each is used
    draw = columns.__next__
    frame = torch.searchsorted(bank.shares, draw(), right=True).clamp(max=len(bank.shares) - 1)
    low, high = (math.log(bound) for bound in settings.scale)
    factor = torch.exp(low + (high - low) * draw())
    factor = torch.where(draw() < bank.scale_share[frame], factor, 1.0)
    side = torch.round(settings.crop / (bank.scale[frame] * factor)).long().clamp(min=1)
    aim = bank.points[_pick(bank.first[frame], bank.targets[frame], draw(), len(bank.points))]
    towards = (draw() < settings.target_bias) & (bank.targets[frame] > 0)
    top = _place(bank.height[frame], side, aim[:, 0], towards, draw())
    left = _place(bank.width[frame], side, aim[:, 1], towards, draw())
    mirror = (draw() < 0.5) & settings.flip
    turns = torch.where(bank.rotate[frame], (4 * draw()).long(), 0)  # by 90 degrees, to the left
    gain = 1 + settings.gain * (2 * draw() - 1)
    offset = settings.offset * (2 * draw() - 1)
    noise = settings.noise * draw()
    count = torch.where(draw() < settings.stuck, 1 + (_MOST_STUCK * draw()).long(), 0)
    near, far = _STUCK
    stuck, stuck_at = [], []
    for number in range(_MOST_STUCK):
        value = (near + (far - near) * draw()) * torch.where(draw() < 0.5, -1, 1)
        stuck.append(torch.where(number < count, value, 0.0))
        stuck_at.append(torch.stack([(draw() * side).long(), (draw() * side).long()], dim=1))
    pasting = None
    if bank.pasting is not None and settings.paste:
        rotate = bank.rotate[frame]
        pasting = draw_pasting(bank.pasting, bank.shares, settings.paste, rotate, keys)
    return Views(
        frame=frame,
        side=side,
        top=top,
        left=left,
        flip_rows=turns >= 2,
        flip_columns=mirror ^ (turns == 1) ^ (turns == 2),
        transpose=turns % 2 == 1,
        gain=gain.float(),
        offset=offset.float(),
        noise=noise.float(),
        noise_key=counter.mix(keys, -1),
        stuck=torch.stack(stuck, dim=1).float(),
        stuck_at=torch.stack(stuck_at, dim=1),
        pasting=pasting,
    )


@torch.no_grad()
def cut_views(
    bank: FrameBank, settings: Augmentation, views: Views, side: int
) -> tuple[Tensor, Tensor]:
    """Cut, paste, scale, flip, turn and disturb.

    The mask goes through exactly the geometry of the frame. Flips, turns and a view at scale 1
    move its pixels unchanged; a scaled mask is interpolated like the frame and cut at one half,
    but keeps a pixel of each target. Enlarging is bilinear, and so is shrinking, over as many
    pixels as become one. Beyond a frame's border it goes on by reflection.

    Args:
        bank: The frames.
        settings: As given to `draw_views`.
        views: What it has drawn.
        side: Pixels that are read for each view along one side, at least the largest
            ``views.side``: more costs time and changes nothing.

    Returns:
        Images and masks, each (B, 1, crop, crop) float32, masks 0 or 1.
    """
    crop, device = settings.crop, bank.frames.device
    rows, columns, start = (
        _fold(views.top[:, None] + torch.arange(side, device=device), bank.height[views.frame]),
        _fold(views.left[:, None] + torch.arange(side, device=device), bank.width[views.frame]),
        bank.start[views.frame],
    )
    row_starts = start[:, None] + rows * bank.width[views.frame][:, None]  # (B, side)
    places = row_starts[:, :, None] + columns[:, None]  # (B, side, side)
    image, truth = bank.frames[places], bank.masks[places].float()
    points, there = _points_of(bank, views)
    if bank.pasting is not None and views.pasting is not None:
        added = paste_targets(bank.pasting, views.pasting, image, truth, views.side)
        points, there = torch.cat([points, added[0]], 1), torch.cat([there, added[1]], 1)
    if settings.stuck:
        _add_stuck_pixels(image, truth, views)
    scaled = views.side[:, None] != crop
    with torch.autocast(device.type, enabled=False):  # exact: the products of one and zeros
        down = _resampling(views.side, views.flip_rows, crop, side)  # (B, crop, side)
        across = _resampling(views.side, views.flip_columns, crop, side).transpose(1, 2)
        image, truth = down @ image @ across, down @ truth @ across
    truth = (truth > 0.5).float()
    _keep_points(truth, points, there & scaled, views)
    image, truth = (
        # Else the result lies in memory as the transposed one does.
        torch.where(views.transpose[:, None, None], each.transpose(1, 2), each).contiguous()
        for each in (image, truth)
    )
    image = image * views.gain[:, None, None] + views.offset[:, None, None]
    if settings.noise:
        noise = counter.normal(views.noise_key, crop**2).reshape(-1, crop, crop)
        image = image + noise * views.noise[:, None, None]
    return image[:, None], truth[:, None]


def _pick(first: Tensor, count: Tensor, share: Tensor, length: int) -> Tensor:
    """One number of each run of ``count`` from ``first`` on; any one where a run is empty."""
    return (first + (share * count).long()).clamp(max=length - 1)


def _place(length: Tensor, side: Tensor, aim: Tensor, towards: Tensor, share: Tensor) -> Tensor:
    """Where a window begins along one axis: inside the frame as far as the frame reaches."""
    low, high = (length - side).clamp(max=0), (length - side).clamp(min=0)
    aimed = torch.maximum(low, aim - side + 1)
    low, high = (
        torch.where(towards, aimed, low),
        torch.where(towards, torch.maximum(aimed, torch.minimum(high, aim)), high),
    )
    return low + (share * (high - low + 1)).long()


def _fold(index: Tensor, length: Tensor) -> Tensor:
    """Indices (B, n) folded back into 0..length-1, the border pixel repeated once per fold."""
    length = length[:, None]
    folded = index % (2 * length)
    return torch.where(folded < length, folded, 2 * length - 1 - folded)


def _points_of(bank: FrameBank, views: Views) -> tuple[Tensor, Tensor]:
    """A pixel (row, column) in the window of each target, (B, most, 2), and whether it is there."""
    number = torch.arange(bank.most, device=bank.points.device)
    which = (bank.first[views.frame][:, None] + number).clamp(max=len(bank.points) - 1)
    points = bank.points[which] - torch.stack([views.top, views.left], dim=1)[:, None]
    inside = ((points >= 0) & (points < views.side[:, None, None])).all(dim=2)
    return points, inside & (number < bank.targets[views.frame][:, None])


def _add_stuck_pixels(image: Tensor, truth: Tensor, views: Views) -> None:
    """Set pixels beside the targets to a far value, before anything enlarges the frame."""
    flat, taken = image.flatten(1), truth.flatten(1)
    places = views.stuck_at[:, :, 0] * image.shape[2] + views.stuck_at[:, :, 1]
    for value, place in zip(views.stuck.unbind(1), places.unbind(1), strict=True):
        at = place[:, None]
        free = (taken.gather(1, at) == 0) & (value[:, None] != 0)
        flat.scatter_(1, at, torch.where(free, value[:, None], flat.gather(1, at)))


def _resampling(side: Tensor, flip: Tensor, crop: int, most: int) -> Tensor:
    """What brings ``side`` pixels to ``crop``, in reverse order where it flips: (B, crop, most).

    Triangles about the new pixels' centers, as wide as a pixel of the coarser of both: torch's and
    Pillow's bilinear interpolation, with antialiasing where it shrinks.
    """
    pixels = torch.arange(crop, device=side.device)
    pixels = torch.where(flip[:, None], crop - 1 - pixels, pixels)
    center = (pixels + 0.5) * side[:, None].double() / crop - 0.5  # (B, crop)
    nearest = center.floor()
    taps = torch.arange(most, device=side.device)
    distance = (taps - nearest[:, :, None]).float() - (center - nearest).float()[:, :, None]
    reach = (side.float() / crop).clamp(min=1)[:, None, None]
    weight = (1 - distance.abs() / reach).clamp_(min=0)
    weight = weight * (taps < side[:, None])[:, None]
    return weight / weight.sum(dim=2, keepdim=True)


def _keep_points(truth: Tensor, points: Tensor, there: Tensor, views: Views) -> None:
    """Set a pixel of each target in the scaled truth (B, crop, crop).

    Interpolation would turn a target of a pixel or two into background, though it is still to be
    seen in the image.
    """
    crop = truth.shape[1]
    scaled = ((points + 0.5).double() * crop / views.side[:, None, None]).long()
    rows, columns = (
        torch.where(flip[:, None], crop - 1 - scaled[:, :, axis], scaled[:, :, axis])
        for axis, flip in enumerate((views.flip_rows, views.flip_columns))
    )
    places = torch.where(there, rows * crop + columns, 0)
    truth.flatten(1).scatter_add_(1, places, there.float())
    truth.clamp_(max=1)
