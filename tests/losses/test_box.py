"""Box losses against torchvision, and against their formulas on plain numbers, box by box."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pinglow.losses import BOX_LOSSES, ciou_loss, diff_box_loss, sd_box_loss

Corners = tuple[float, float, float, float]
BoxLoss = Callable[[Tensor, Tensor], Tensor]
each_loss = pytest.mark.parametrize("loss", BOX_LOSSES.values(), ids=BOX_LOSSES.keys())


def random_boxes(count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 20
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 15 + 0.5
    return torch.cat([corner, corner + size], dim=1).to(dtype)


def terms(p: Corners, t: Corners) -> tuple[float, float, float]:
    """IoU, rho²/c² and alpha · v of one pair, as the CIoU paper has them."""
    shared = math.prod(
        max(0, min(p[i + 2], t[i + 2]) - max(p[i], t[i]))
        for i in (0, 1)
    )  # fmt: skip
    iou = shared / (area(p) + area(t) - shared)
    rho2 = sum(((p[i] + p[i + 2]) / 2 - (t[i] + t[i + 2]) / 2) ** 2 for i in (0, 1))
    c2 = sum((max(p[i + 2], t[i + 2]) - min(p[i], t[i])) ** 2 for i in (0, 1))
    angle_p, angle_t = (math.atan2(box[2] - box[0], box[3] - box[1]) for box in (p, t))
    v = 4 / math.pi**2 * (angle_t - angle_p) ** 2
    return iou, rho2 / c2, v * v / (1 - iou + v) if v else 0.0


def area(box: Corners) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def sd(p: Corners, t: Corners, delta: float, true_area: float | None = None) -> float:
    iou, distance, aspect = terms(p, t)
    b = min(delta * (area(t) if true_area is None else true_area) / 81, delta)
    return (1 - delta + b) * (1 - iou + aspect) + (1 + delta - b) * distance


def diff(p: Corners, t: Corners) -> float:
    iou, distance, aspect = terms(p, t)
    w = (area(p) + area(t)) / (area(p) + area(t) + 2 * abs(area(p) - area(t)))
    return 1 - w * iou + distance + aspect


def square(side: float, x: float = 10.0, y: float = 10.0) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ciou_is_torchvisions_with_its_gradient(dtype: torch.dtype) -> None:
    ops = pytest.importorskip("torchvision.ops", reason="torchvision needs pip install '.[detect]'")
    predicted, true = (random_boxes(300, seed, dtype) for seed in (0, 1))
    predicted[:20] = true[:20]  # nothing to improve
    predicted[20:40] += 100  # no overlap
    predicted.requires_grad_()
    ours, theirs = ciou_loss(predicted, true), ops.complete_box_iou_loss(predicted, true)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    (our_gradient,) = torch.autograd.grad(ours.sum(), predicted)
    (their_gradient,) = torch.autograd.grad(theirs.sum(), predicted)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-5, rtol=0)


@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_losses_are_their_formulas(delta: float) -> None:
    predicted, true = random_boxes(100, seed=2), random_boxes(100, seed=3)
    given_area = torch.linspace(0, 120, 100, dtype=torch.float64)
    pairs = [(tuple(p), tuple(t)) for p, t in zip(predicted.tolist(), true.tolist(), strict=True)]
    for ours, expected in (
        (sd_box_loss(predicted, true, delta), [sd(p, t, delta) for p, t in pairs]),
        (
            sd_box_loss(predicted, true, delta, true_area=given_area),
            [
                sd(p, t, delta, number)
                for (p, t), number in zip(pairs, given_area.tolist(), strict=True)
            ],
        ),
        (diff_box_loss(predicted, true), [diff(p, t) for p, t in pairs]),
    ):
        assert ours.tolist() == pytest.approx(expected, abs=1e-12)


def test_sd_of_large_boxes_is_ciou() -> None:
    true = random_boxes(50, seed=4)
    true[:, 2:] = true[:, :2] + 9  # 81 pixels: from here on
    true[25:, 2:] += 30
    predicted = random_boxes(50, seed=5)
    torch.testing.assert_close(sd_box_loss(predicted, true), ciou_loss(predicted, true))


def test_sd_of_tiny_boxes_leans_on_the_distance() -> None:
    true = torch.tensor([square(1e-3)], dtype=torch.float64)
    predicted = true + 1e-4
    iou, distance, aspect = terms(tuple(predicted[0].tolist()), tuple(true[0].tolist()))
    expected = 0.7 * (1 - iou + aspect) + 1.3 * distance
    assert sd_box_loss(predicted, true, delta=0.3).item() == pytest.approx(expected, abs=1e-6)


def test_the_true_area_makes_sd_free_of_the_unit() -> None:
    predicted, true = random_boxes(50, seed=6), random_boxes(50, seed=7)
    pixels = (true[:, 2] - true[:, 0]) * (true[:, 3] - true[:, 1])
    in_strides = sd_box_loss(predicted / 8, true / 8, true_area=pixels)
    torch.testing.assert_close(in_strides, sd_box_loss(predicted, true))
    assert not torch.allclose(in_strides, sd_box_loss(predicted / 8, true / 8))


@settings(deadline=None)
@given(
    side=st.floats(0.5, 50), first=st.floats(0.01, 100), second=st.floats(0.01, 100),
)  # fmt: skip
def test_diff_of_concentric_squares_rises_away_from_the_true_size(
    side: float, first: float, second: float
) -> None:
    """On either side of it, and above CIoU."""
    near, far = sorted((first, second), key=lambda value: abs(math.log(value / side)))
    if (first - side) * (second - side) < 0 or abs(near - far) < 1e-6:
        return
    true = torch.tensor([square(side)] * 3, dtype=torch.float64)
    predicted = torch.tensor([square(side), square(near), square(far)], dtype=torch.float64)
    none, less, more = diff_box_loss(predicted, true).tolist()
    assert none == pytest.approx(0, abs=1e-12)
    assert less < more
    assert more > ciou_loss(predicted, true)[2].item()


def test_diff_of_equal_areas_is_ciou() -> None:
    predicted, true = random_boxes(50, seed=8), random_boxes(50, seed=9)
    size = true[:, 2:] - true[:, :2]
    predicted[:, 2:] = predicted[:, :2] + size.flip(1) * torch.tensor([2.0, 0.5])
    torch.testing.assert_close(diff_box_loss(predicted, true), ciou_loss(predicted, true))


def test_gradient_is_the_numerical_one_where_the_aspect_is_right() -> None:
    """Elsewhere alpha, which the backward pass holds constant, is in the way."""
    predicted = random_boxes(20, seed=10)
    true = torch.cat([predicted[:, :2], predicted[:, :2]], dim=1) + torch.tensor([1.0, 2, 9, 10])
    predicted[:, 2:] = predicted[:, :2] + 3
    for loss in BOX_LOSSES.values():
        assert torch.autograd.gradcheck(
            # Moved and stretched alike, so that v stays 0.
            lambda shift, scale, loss=loss: loss(predicted * scale + shift, true),
            (
                torch.full((20, 1), 0.1, dtype=torch.float64, requires_grad=True),
                torch.full((20, 1), 1.1, dtype=torch.float64, requires_grad=True),
            ),
        )


@each_loss
def test_steps_down_the_gradient_bring_every_box_home(loss: BoxLoss) -> None:
    true = torch.tensor([square(8)] * 5, dtype=torch.float64)
    predicted = torch.tensor(
        [square(2), square(30), square(8, x=14), square(4, x=20, y=2), [6.0, 9, 14, 11]],
        dtype=torch.float64,
        requires_grad=True,
    )
    optimizer = torch.optim.Adam([predicted], lr=0.5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 500)
    for _ in range(500):
        optimizer.zero_grad()
        loss(predicted, true).sum().backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(predicted.detach(), true, atol=0.05, rtol=0)


DEGENERATE = [
    square(0),  # a point
    square(0, x=10, y=30),
    [6.0, 10, 14, 10],  # a line
    [14.0, 14, 6, 6],  # corners in the wrong order
    [1000.0, 14, -1000, 6],
    [300.0, 300, 200, 200],
    square(1e-9),
    square(1e5),
    square(4, x=-500, y=1e4),
    square(8),
]


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("true", [square(8), square(0), square(1e-3), [6.0, 10, 14, 10]])
def test_any_predicted_box_has_a_finite_loss_and_gradient(
    loss: BoxLoss, dtype: torch.dtype, true: list[float]
) -> None:
    predicted = torch.tensor(DEGENERATE, dtype=dtype, requires_grad=True)
    losses = loss(predicted, torch.tensor([true] * len(DEGENERATE), dtype=dtype))
    (gradient,) = torch.autograd.grad(losses.sum(), predicted)
    assert gradient.isfinite().all()
    assert ((losses >= 0) & (losses <= 3)).all()
    assert gradient.abs().max() < 1e4


@each_loss
@settings(deadline=None, max_examples=100)
@given(
    numbers=st.lists(st.floats(-300, 300, width=32), min_size=4, max_size=4),
    sides=st.tuples(st.floats(0, 50, width=32), st.floats(0, 50, width=32)),
)
@example(numbers=[-1.0, -1e-45, 0.0, 0.0], sides=(0.0, 0.0))  # an area that no float32 divides by
def test_range_whatever_the_corners(
    loss: BoxLoss, numbers: list[float], sides: tuple[float, float]
) -> None:
    predicted = torch.tensor([numbers], requires_grad=True)
    value = loss(predicted, torch.tensor([[5.0, 7, 5 + sides[0], 7 + sides[1]]]))
    (gradient,) = torch.autograd.grad(value.sum(), predicted)
    assert gradient.isfinite().all()
    assert -1e-6 <= value.item() <= 3


@each_loss
def test_a_box_without_area_is_drawn_to_the_target(loss: BoxLoss) -> None:
    true = torch.tensor([square(8)] * 2)
    predicted = torch.tensor([square(0, x=30), [34.0, 14, 26, 6]], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(predicted, true).sum(), predicted)
    assert (gradient[:, 0] + gradient[:, 2] > 0).all()  # a step down moves its center left
    assert gradient[1, 2] > gradient[1, 0]  # and brings corners in the wrong order together


@each_loss
def test_no_pairs(loss: BoxLoss) -> None:
    predicted = torch.zeros(0, 4, requires_grad=True)
    losses = loss(predicted, torch.zeros(0, 4))
    losses.sum().backward()
    assert losses.shape == (0,)
    assert predicted.grad is not None


@each_loss
def test_half_precision_is_taken_in_single(loss: BoxLoss) -> None:
    predicted, true = (random_boxes(30, seed).mul(40).half() for seed in (11, 12))
    inside = loss(predicted, true)  # areas up to 360 000, above what half precision holds
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss(predicted.float(), true.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(predicted.float(), true.float()), inside)


@each_loss
def test_shapes_that_do_not_fit_are_refused(loss: BoxLoss) -> None:
    shapes = ((2, 4), (1, 4)), ((2, 5), (2, 5)), ((4,), (4,))
    for first, second in shapes:
        with pytest.raises(ValueError, match="need one shape"):
            loss(torch.zeros(first), torch.zeros(second))


def test_sd_refuses_numbers_out_of_range() -> None:
    boxes = random_boxes(3, seed=13)
    for delta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="delta"):
            sd_box_loss(boxes, boxes, delta=delta)
    for count in (1, 4):
        with pytest.raises(ValueError, match="true_area"):
            sd_box_loss(boxes, boxes, true_area=torch.zeros(count))
