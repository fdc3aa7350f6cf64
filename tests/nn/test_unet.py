"""PinwheelUNet: sizes, shapes, its start, and that all of it learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pinglow.nn import (
    ATTENTIONS,
    CONVOLUTIONS,
    GaussianConv2d,
    PinwheelUNet,
    fold_kernels,
    fold_norms,
)

SMALL: dict[str, Any] = {"widths": (4, 6, 8), "depths": (1, 2, 1)}
sides = st.integers(32, 71)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def image(height: int, width: int, channels: int = 1, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.rand(count, channels, height, width, generator=generator)


def test_published_parameter_count_of_mshnet() -> None:
    assert parameters(PinwheelUNet.mshnet(in_channels=3)) == 4_065_513


def test_fast_form_has_half_a_million_parameters() -> None:
    assert round(parameters(PinwheelUNet.fast()) / 1e6, 2) == 0.52


def test_paper_form_saves_the_free_attention_taps() -> None:
    blocks = 1 + 2 + 2 + 2 + 2 + 2 + 2 + 2 + 1  # encoder, then decoder
    saved = parameters(PinwheelUNet.mshnet()) - parameters(PinwheelUNet.paper())
    assert saved == blocks * (2 * 7 * 7 - 3)


@settings(deadline=None, max_examples=20)
@given(height=sides, width=sides, patch=st.sampled_from([1, 2, 3]))
def test_shapes_of_the_output_and_the_pyramid(height: int, width: int, patch: int) -> None:
    network = PinwheelUNet(**SMALL, patch=patch).eval()
    x = image(height, width)
    with torch.no_grad():
        logits = network(x)
        fused, *levels = network.forward_pyramid(x)
    assert logits.shape == x.shape
    assert torch.equal(logits, fused)
    halved = (math.ceil(height / 2), math.ceil(width / 2))
    assert [tuple(level.shape[-2:]) for level in levels] == [(height, width), halved]


def test_named_forms_take_sizes_that_do_not_divide() -> None:
    x = image(33, 47)
    for form, levels in ((PinwheelUNet.paper, 4), (PinwheelUNet.fast, 3)):
        with torch.no_grad():
            pyramid = form().eval().forward_pyramid(x)
        assert pyramid[0].shape == (1, 1, 33, 47)
        for level, logits in enumerate(pyramid[1:]):
            assert logits.shape == (1, 1, math.ceil(33 / 2**level), math.ceil(47 / 2**level))
        assert len(pyramid) == 1 + levels


@pytest.mark.parametrize("patch", [1, 2])
def test_forward_is_its_definition(patch: int) -> None:
    torch.manual_seed(0)
    network = PinwheelUNet(**SMALL, in_channels=2, patch=patch).eval()
    nn.init.normal_(network.fuse.weight)  # off its start, where most of it is zero
    x = image(32, 40, channels=2)
    steps = [(y, x) for y in range(patch) for x in range(patch)]
    parts = [x[:, c, i::patch, j::patch] for c in range(2) for i, j in steps]
    fine = network.encoder[0](network.stem(torch.stack(parts, dim=1)))
    middle = network.encoder[1](nn.functional.max_pool2d(fine, 2))
    coarse = network.encoder[2](nn.functional.max_pool2d(middle, 2))

    def larger(features: Tensor) -> Tensor:
        return nn.functional.interpolate(features, scale_factor=2, mode="bilinear")

    middle = network.decoder[1](torch.cat([middle, larger(coarse)], dim=1))
    fine = network.decoder[0](torch.cat([fine, larger(middle)], dim=1))
    sides = [network.heads[0](fine), network.heads[1](middle)]
    fused = network.fuse(torch.cat([sides[0], larger(sides[1])], dim=1))
    for actual, expected in zip(network.forward_pyramid(x), [fused, *sides], strict=True):
        full = torch.empty_like(actual)
        for part, (i, j) in enumerate(steps):
            full[:, 0, i::patch, j::patch] = expected[:, part]
        torch.testing.assert_close(actual, full)


@pytest.mark.parametrize("size", [(33, 47), (32, 41), (45, 32)])
def test_padding_reflects_at_the_bottom_and_the_right(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = PinwheelUNet(**SMALL, patch=2).eval()
    height, width = size
    x = image(height, width)
    margins = ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8))
    padded = torch.from_numpy(np.pad(x.numpy(), margins, mode="reflect"))
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(padded)[..., :height, :width])


def test_images_of_a_batch_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    network = PinwheelUNet(**SMALL).eval()
    x = image(32, 33, count=3)
    with torch.no_grad():
        alone = torch.cat([network(one) for one in x.split(1)])
        torch.testing.assert_close(network(x), alone)
        assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
@pytest.mark.parametrize("form", [PinwheelUNet.fast, PinwheelUNet.mshnet])
def test_small_images_are_refused(form: Any, size: tuple[int, int]) -> None:
    for run in (form().eval(), form().eval().forward_pyramid):
        with pytest.raises(ValueError, match=f"{size[1]} x {size[0]}.*at least 32"):
            run(image(*size))


@pytest.mark.parametrize("size", [(65, 65), (64, 65), (32, 32)])
def test_deep_networks_pad_by_more_than_reflection_can(size: tuple[int, int]) -> None:
    network = PinwheelUNet(widths=(2,) * 8, depths=(1,) * 8).eval()
    with torch.no_grad():
        assert network(image(*size)).shape == (1, 1, *size)


@pytest.mark.parametrize("form", [PinwheelUNet.fast, PinwheelUNet.mshnet])
def test_every_pixel_starts_near_the_prior(form: Any) -> None:
    torch.manual_seed(0)
    network = form().eval()
    for head in network.heads:
        nn.init.zeros_(head.weight)  # what is left is the bias: one per cent
    with torch.no_grad():
        fused, *levels = network.forward_pyramid(image(64, 64))
    for level in levels:
        torch.testing.assert_close(torch.sigmoid(level), torch.full_like(level, 0.01))
    # Only one tap of the fusing kernel is not zero, so the edge is no exception.
    torch.testing.assert_close(torch.sigmoid(fused), torch.full_like(fused, 0.01))


def test_fused_output_starts_as_the_mean_of_the_levels() -> None:
    torch.manual_seed(0)
    network = PinwheelUNet(**SMALL).eval()
    with torch.no_grad():
        fused, fine, coarse = network.forward_pyramid(image(32, 32))
        coarse = nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    torch.testing.assert_close(fused, (fine + coarse) / 2)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("patch", [1, 2])
def test_every_parameter_gets_a_gradient(attention: str, patch: int) -> None:
    torch.manual_seed(0)
    network = PinwheelUNet(**SMALL, attention=attention, patch=patch)
    x = image(40, 48, count=2)
    outputs = [logits.sigmoid().square().mean() for logits in network.forward_pyramid(x)]
    torch.stack(outputs).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_few_steps_learn_one_image() -> None:
    torch.manual_seed(0)
    network = PinwheelUNet(**SMALL, patch=2)
    x = image(32, 32, count=2)
    mask = torch.zeros_like(x)
    mask[0, 0, 10:13, 20:23] = mask[1, 0, 22:25, 5:8] = 1
    x = 0.2 * x + 0.8 * mask
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = nn.functional.binary_cross_entropy_with_logits(network(x), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (4, 8), "depths": (1,)}, "same length"),
        ({"widths": (4,), "depths": (1,)}, "at least 2"),
        ({"attention": "cross"}, "'cross'"),
        ({"convolution": "round"}, "'round'"),
        ({"patch": 0}, "patch"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PinwheelUNet(**arguments)


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_shaped_convolutions_stand_in_the_finest_levels_and_fold_away(convolution: str) -> None:
    torch.manual_seed(0)
    network = PinwheelUNet(1, (4, 8, 16), (1, 1, 1), convolution=convolution, shaped_levels=1)
    shaped = {name for name, m in network.named_modules() if isinstance(m, GaussianConv2d)}
    finest = ("encoder.0.0", "decoder.0.0")
    expected = {f"{block}.conv{n}" for block in finest for n in (1, 2)}
    assert shaped == (set() if convolution == "plain" else expected)
    image = torch.randn(1, 1, 40, 36)
    with torch.no_grad():
        logits = network.eval()(image)
        folded = fold_norms(fold_kernels(network))
        torch.testing.assert_close(folded(image), logits, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, GaussianConv2d) for module in folded.modules())
