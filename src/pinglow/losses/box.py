"""Box losses of detectors, one number per matched pair: CIoU, SD, and the scale weight on boxes.

Sources: CIoU, Zheng et al., https://arxiv.org/abs/1911.08287; SD ("SDB"), PConv,
https://arxiv.org/abs/2412.16986. "diff" is ours: arXiv 2604.09991 puts its weight into detectors,
too, but gives no formula for boxes to hand.

Boxes are corners (x0, y0, x1, y1) in pixels of the loss grid. A predicted box whose corners are in
the wrong order has no area; its edges still count for the distance, so that it is drawn in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from pinglow.losses.scale import scale_weight

_TINY: Final = 1e-7  # areas up to it count as none: no 0/0, no endless gradients
_SD_AREA: Final = 81.0  # pixels, from which on SD is CIoU


class _Geometry(NamedTuple):
    """What the losses are made of, each (n,); names as in the CIoU paper."""

    iou: Tensor
    distance: Tensor  # rho² / c²
    aspect: Tensor  # alpha · v
    predicted_area: Tensor
    true_area: Tensor


def ciou_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """1 - IoU + rho²/c² + alpha · v.

    rho is the distance of the centers, c the diagonal of the smallest box around both,
    v = 4/pi² · (atan(w/h of true) - atan(w/h of predicted))², and alpha = v / (1 - IoU + v), which
    is a constant in the backward pass.

    Args:
        predicted: (n, 4) corners in pixels.
        true: (n, 4) corners in pixels, each x0 <= x1 and y0 <= y1.

    Returns:
        (n,) in [0, 3], float32 at least; 0 for equal boxes that have an area.

    Raises:
        ValueError: The shapes differ or are not (n, 4).
    """
    pair = _compare(predicted, true)
    return 1 - pair.iou + pair.distance + pair.aspect


def sd_box_loss(
    predicted: Tensor, true: Tensor, delta: float = 0.5, true_area: Tensor | None = None
) -> Tensor:
    """The scale-dynamic loss: boxes of small targets lean on the distance, large ones on overlap.

    (1 - delta + b) (1 - IoU + alpha · v) + (1 + delta - b) rho²/c² with b = min(delta · T / 81,
    delta), T the true area; from T = 81 on it is `ciou_loss`.

    Args:
        predicted: (n, 4) corners.
        true: (n, 4) corners, each x0 <= x1 and y0 <= y1.
        delta: Largest shift between the two terms, in [0, 1].
        true_area: (n,) T in pixels of the loss grid, where the corners are in another unit, such
            as divided by a stride; by default the area of ``true``.

    Returns:
        (n,) in [0, 3].

    Raises:
        ValueError: The shapes do not fit, or delta is out of its range.
    """
    if not 0 <= delta <= 1:
        raise ValueError(f"delta is {delta}; use a value in [0, 1]")
    pair = _compare(predicted, true)
    area = pair.true_area if true_area is None else true_area.to(pair.true_area)
    if area.shape != pair.iou.shape:
        raise ValueError(f"true_area {tuple(area.shape)} needs one number per box: {len(true)}")
    shift = (delta * area / _SD_AREA).clamp(max=delta)
    overlap = 1 - pair.iou + pair.aspect
    return (1 - delta + shift) * overlap + (1 + delta - shift) * pair.distance


def diff_box_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """CIoU with the paper's scale weight on the IoU (ours): 1 - w · IoU + rho²/c² + alpha · v.

    w = (A + T) / (A + T + 2 abs(A - T)) of the predicted and the true area, see `scale_weight`;
    alpha is CIoU's. Boxes of equal area have w = 1.

    Args:
        predicted: (n, 4) corners.
        true: (n, 4) corners, each x0 <= x1 and y0 <= y1.

    Returns:
        (n,) in [0, 3].

    Raises:
        ValueError: The shapes differ or are not (n, 4).
    """
    pair = _compare(predicted, true)
    weight = scale_weight(pair.predicted_area, pair.true_area, "diff")
    return 1 - weight * pair.iou + pair.distance + pair.aspect


BOX_LOSSES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "ciou": ciou_loss,
    "sdb": sd_box_loss,
    "diff": diff_box_loss,
}
"""Box losses by the name that detector recipes use."""


def _compare(predicted: Tensor, true: Tensor) -> _Geometry:
    """Overlap, distance and aspect of (n, 4) pairs, in at least float32."""
    if predicted.shape != true.shape or predicted.ndim != 2 or predicted.shape[1] != 4:
        raise ValueError(
            f"predicted {tuple(predicted.shape)} and true {tuple(true.shape)} need one shape (n, 4)"
        )
    # Areas of large boxes overflow in half precision.
    exact = torch.promote_types(predicted.dtype, torch.float32)
    px0, py0, px1, py1 = predicted.to(exact).unbind(1)
    tx0, ty0, tx1, ty1 = true.to(exact).unbind(1)

    width, height = (px1 - px0).clamp(min=0), (py1 - py0).clamp(min=0)
    true_width, true_height = tx1 - tx0, ty1 - ty0
    predicted_area, true_area = width * height, true_width * true_height
    shared_width = (torch.minimum(px1, tx1) - torch.maximum(px0, tx0)).clamp(min=0)
    shared_height = (torch.minimum(py1, ty1) - torch.maximum(py0, ty0)).clamp(min=0)
    shared = shared_width * shared_height
    iou = _ratio(shared, predicted_area + true_area - shared)

    # All four edges: the box around both then holds both centers, also of corners in wrong order.
    hull_width = _span(px0, px1, tx0, tx1)
    hull_height = _span(py0, py1, ty0, ty1)
    rho2 = ((px0 + px1 - tx0 - tx1) ** 2 + (py0 + py1 - ty0 - ty1) ** 2) / 4
    distance = _ratio(rho2, hull_width**2 + hull_height**2)

    # A box without area has no aspect; its slope would have an endless gradient.
    some = torch.minimum(predicted_area, true_area) > _TINY
    turn = _slope(true_width, true_height, some) - _slope(width, height, some)
    v = 4 / math.pi**2 * turn**2
    with torch.no_grad():
        alpha = _ratio(v, 1 - iou + v)
    return _Geometry(iou, distance, alpha * v, predicted_area, true_area)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Divide, with 0 where the denominator is next to nothing; gradients stay finite."""
    some = below > _TINY
    return torch.where(some, above / torch.where(some, below, 1), 0)


def _slope(width: Tensor, height: Tensor, some: Tensor) -> Tensor:
    """atan(w/h) of boxes with some area, 0 of the others."""
    return torch.atan(torch.where(some, width / torch.where(some, height, 1), 0))


def _span(*edges: Tensor) -> Tensor:
    """Largest minus smallest of tensors of one shape."""
    stacked = torch.stack(edges)
    return stacked.amax(0) - stacked.amin(0)
