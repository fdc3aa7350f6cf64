"""Channel and spatial attention against references written pixel by pixel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinglow.nn import (
    ATTENTIONS,
    ChannelAttention,
    FreeSpatialAttention,
    GaussianPinwheelAttention,
    fold_kernels,
)
from pinglow.nn.attention import blocked_conv2d

COUNTS = {"free": 98, "gaussian": 1, "fixed": 1, "learned": 3, "max": 1, "steered": 2}
PINWHEELS = [name for name in ATTENTIONS if name != "free"]
STATIC = ["gaussian", "fixed", "learned"]


def features() -> Tensor:
    return torch.randn(2, 5, 9, 11, generator=torch.Generator().manual_seed(0))


def windows(pooled: Tensor, kernel: Tensor) -> Tensor:
    """Correlate (N, H, W) with (k, k), zeros outside, by sums over windows."""
    reach = len(kernel) // 2
    count, height, width = pooled.shape
    padded = torch.zeros(count, height + 2 * reach, width + 2 * reach)
    padded[:, reach : reach + height, reach : reach + width] = pooled
    result = torch.empty_like(pooled)
    for y in range(height):
        for x in range(width):
            window = padded[:, y : y + len(kernel), x : x + len(kernel)]
            result[:, y, x] = (window * kernel).sum((1, 2))
    return result


def attention(name: str) -> GaussianPinwheelAttention:
    module = ATTENTIONS[name]()
    assert isinstance(module, GaussianPinwheelAttention)
    return module


def test_channel_attention_is_cbams() -> None:
    torch.manual_seed(0)
    module = ChannelAttention(5, ratio=2)
    x = features()
    narrow, widen = (conv.weight[:, :, 0, 0] for conv in (module.narrow, module.widen))
    assert narrow.shape == (2, 5)

    def mlp(pooled: Tensor) -> Tensor:
        return (pooled @ narrow.T).clamp(min=0) @ widen.T

    scale = torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.amax((2, 3))))
    torch.testing.assert_close(module(x), x * scale[:, :, None, None])


def test_channel_attention_keeps_one_hidden_channel() -> None:
    assert ChannelAttention(5, ratio=16).narrow.weight.shape == (1, 5, 1, 1)


def test_free_attention_is_cbams() -> None:
    torch.manual_seed(0)
    module = FreeSpatialAttention(3)
    x = features()
    mean, peak = module.conv.weight[0]
    response = windows(x.mean(1), mean) + windows(x.amax(1), peak)
    torch.testing.assert_close(module(x), x * torch.sigmoid(response)[:, None])


@pytest.mark.parametrize("name", ATTENTIONS)
def test_number_of_scalars(name: str) -> None:
    module = ATTENTIONS[name]()
    assert sum(parameter.numel() for parameter in module.parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", PINWHEELS)
def test_pinwheel_attention_is_its_definition(name: str) -> None:
    module = attention(name)
    x = features()
    bank = [shape / shape.sum() for shape in module.kernel()[:, 0]]
    # The same kernel on both maps, written out.
    responses = torch.stack([windows(x.mean(1), k) + windows(x.amax(1), k) for k in bank])
    if name == "steered":
        response = (torch.softmax(responses.abs(), 0) * responses).sum(0)
    else:  # of one kernel, that one
        response = responses.gather(0, responses.abs().argmax(0, keepdim=True))[0]
    torch.testing.assert_close(module(x), x * torch.sigmoid(response)[:, None])


@pytest.mark.parametrize("name", PINWHEELS)
def test_a_flat_map_keeps_its_level_inside(name: str) -> None:
    """Kernels have sum 1, so a constant input is weighted by sigmoid(mean + max)."""
    y = attention(name)(torch.full((1, 3, 15, 15), 0.7))
    expected = 0.7 * torch.sigmoid(torch.tensor(1.4))
    torch.testing.assert_close(y[..., 4:-4, 4:-4], expected.expand(1, 3, 7, 7))


def test_named_forms_are_those_of_the_paper() -> None:
    learned, fixed = attention("learned").kernel, attention("fixed").kernel
    assert (learned.orientation, learned.arms, learned.clip) == ("learned", 1, True)
    assert (fixed.orientation, fixed.arms, fixed.clip) == ("fixed", 4, False)
    assert learned.kernel_size == fixed.kernel_size == (7, 7)


@pytest.mark.parametrize("name", STATIC)
def test_a_single_kernel_becomes_one_convolution(name: str) -> None:
    module = attention(name)
    x = features()
    conv = fold_kernels(module).response
    assert type(conv) is nn.Conv2d
    pooled = x.mean(1, keepdim=True) + x.amax(1, keepdim=True)
    expected = x * torch.sigmoid(conv(pooled))
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PINWHEELS)
@pytest.mark.parametrize("training", [True, False])
def test_fold_kernels_keeps_outputs_and_mode(name: str, training: bool) -> None:
    module = attention(name).train(training)
    folded = fold_kernels(module)
    assert not any(isinstance(part, GaussianPinwheelAttention) for part in folded.modules())
    assert folded.training == training
    torch.testing.assert_close(folded(features()), module(features()), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"kernel_size": 6}, {"arms": 0}, {"sigma": 0.2}, {"orientation": "spiral"}]
)
def test_impossible_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        GaussianPinwheelAttention(**arguments)


@pytest.mark.parametrize("size", [1, 3, 7, 9])
@pytest.mark.parametrize("channels", [(1, 1), (2, 1), (1, 4)])
def test_a_blocked_convolution_is_the_plain_one(size: int, channels: tuple[int, int]) -> None:
    torch.manual_seed(size)
    inputs, outputs = channels
    for shape in ((4, 4), (8, 20), (32, 16)):
        x = torch.randn(2, inputs, *shape, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(outputs, inputs, size, size, dtype=torch.float64, requires_grad=True)
        blocked, plain = (
            blocked_conv2d(x, weight),
            torch.nn.functional.conv2d(x, weight, padding=size // 2),
        )
        torch.testing.assert_close(blocked, plain, rtol=0, atol=1e-12)
        cotangent = torch.randn_like(plain)
        for one, other in zip(
            torch.autograd.grad(blocked, (x, weight), cotangent),
            torch.autograd.grad(plain, (x, weight), cotangent),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(ATTENTIONS))
@pytest.mark.parametrize("shape", [(16, 24), (15, 22)])
def test_training_and_use_attend_alike(name: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = ATTENTIONS[name]()
    x = torch.randn(2, 5, *shape)
    torch.testing.assert_close(attention.train()(x), attention.eval()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [9, 11, 13])
def test_larger_kernels_attend_alike_in_training_and_use(size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 16, 24)
    for attention in (FreeSpatialAttention(size), GaussianPinwheelAttention(size, sigma=4.0)):
        trained, used = attention.train()(x), attention.eval()(x)
        torch.testing.assert_close(trained, used, rtol=1e-5, atol=1e-6)
