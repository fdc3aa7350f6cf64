"""Augmentation: one random view of a frame and its mask. Ours; numpy and torch core ops only."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from pinglow.structures import BoolArray, FloatArray

_MOST_STUCK: Final = 4
_STUCK: Final = (3.0, 10.0)  # normalised: 10 to 11,000 spreads away from the median


class Augmentation(BaseModel):
    """Settings of what is random in training: `random_view`, and pasted targets."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    crop: int = Field(default=256, ge=32, le=8192, description="side of a view, pixels")
    target_bias: float = Field(
        default=0.6, ge=0, le=1, description="share of views that hold a target for sure"
    )
    paste: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of frames that get one to three targets of other frames first",
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
        if not 0 < scale[0] <= scale[1] < np.inf:
            raise ValueError("use [smallest, largest] factor, both above 0")
        return scale


def random_view(
    frame: FloatArray,
    mask: BoolArray,
    corners: NDArray[np.int64],
    scale: float,
    settings: Augmentation,
    random: Generator,
) -> tuple[Tensor, Tensor]:
    """Cut, enlarge, flip, turn and disturb.

    The mask goes through exactly the geometry of the frame. Flips, turns and a view at scale 1
    move its pixels unchanged; a scaled mask is interpolated like the frame and cut at one half,
    but keeps a pixel of each target.

    Args:
        frame: (H, W), normalised.
        mask: (H, W).
        corners: (n, 2) int: a pixel (y, x) of each target, for views drawn towards targets.
        scale: Enlargement by the input rule.
        settings: What is random, and how much.
        random: Source of all randomness.

    Returns:
        Image and mask, each (1, crop, crop) float32, the mask 0 or 1.
    """
    if random.random() < settings.scale_share:
        low, high = np.log(settings.scale)
        scale *= float(np.exp(random.uniform(low, high)))
    side = max(1, round(settings.crop / scale))
    top, left = _place(frame.shape, side, corners, settings.target_bias, random)
    image = torch.from_numpy(_cut(frame, top, left, side))[None, None]  # (1, 1, side, side)
    truth = torch.from_numpy(_cut(mask, top, left, side).astype(np.float32))[None, None]
    # Not drawn for at all without them: such recipes keep the batches they had.
    if settings.stuck and random.random() < settings.stuck:
        _add_stuck_pixels(image[0, 0], truth[0, 0], random)
    if side != settings.crop:
        size = (settings.crop, settings.crop)
        shrink = side > settings.crop
        image = F.interpolate(image, size, mode="bilinear", antialias=shrink)
        truth = (F.interpolate(truth, size, mode="bilinear", antialias=shrink) > 0.5).float()
        _keep_points(truth, corners, top, left, side)
    if settings.flip and random.random() < 0.5:
        image, truth = image.flip(-1), truth.flip(-1)
    if settings.rotate:
        turns = int(random.integers(4))
        image, truth = image.rot90(turns, (-2, -1)), truth.rot90(turns, (-2, -1))
    image = image * random.uniform(1 - settings.gain, 1 + settings.gain)
    image = image + random.uniform(-settings.offset, settings.offset)
    if settings.noise:
        sigma = settings.noise * random.random()
        disturbance = random.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
        image = image + torch.from_numpy(disturbance)
    return image[0].contiguous(), truth[0].contiguous()


def _add_stuck_pixels(image: Tensor, truth: Tensor, random: Generator) -> None:
    """Set pixels beside the targets to a far value, before anything enlarges the frame."""
    count = int(random.integers(1, _MOST_STUCK + 1))
    rows, columns = random.integers(image.shape[0], size=(2, count))
    values = random.uniform(*_STUCK, size=count) * random.choice([-1, 1], size=count)
    free = truth[rows, columns] == 0
    image[rows, columns] = torch.where(
        free, torch.from_numpy(values.astype(np.float32)), image[rows, columns]
    )


def _place(
    shape: tuple[int, ...],
    side: int,
    corners: NDArray[np.int64],
    target_bias: float,
    random: Generator,
) -> tuple[int, int]:
    """Top-left corner of a window, inside the frame as far as the frame reaches."""
    aim = corners[random.integers(len(corners))] if len(corners) else None
    towards = random.random() < target_bias
    place = []
    for axis, length in enumerate(shape):
        low, high = min(0, length - side), max(0, length - side)
        if towards and aim is not None:
            low = max(low, int(aim[axis]) - side + 1)
            high = max(low, min(high, int(aim[axis])))
        place.append(int(random.integers(low, high + 1)))
    return place[0], place[1]


def _keep_points(
    truth: Tensor,
    corners: NDArray[np.int64],
    top: int,
    left: int,
    side: int,
) -> None:
    """Set a pixel of each target in the scaled truth (1, 1, crop, crop).

    Interpolation would turn a target of a pixel or two into background, though it is still to be
    seen in the image.
    """
    places = corners - (top, left)
    places = places[((places >= 0) & (places < side)).all(axis=1)]
    scaled = ((places + 0.5) * truth.shape[-1] / side).astype(np.int64)
    truth[0, 0, scaled[:, 0], scaled[:, 1]] = 1


def _cut(values: NDArray[np.generic], top: int, left: int, side: int) -> NDArray[np.generic]:
    """(side, side) window; beyond the frame's border it goes on by reflection."""
    rows = _reflect(np.arange(top, top + side), values.shape[0])
    columns = _reflect(np.arange(left, left + side), values.shape[1])
    return np.ascontiguousarray(values[rows][:, columns])


def _reflect(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Indices folded back into 0..length-1, the border pixel repeated once per fold."""
    folded = index % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)
