"""GaussianConv2d against nn.Conv2d and explicit loops, and folding back to plain convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pinglow.nn import (
    ATTENTIONS,
    GaussianConv2d,
    GaussianPinwheelKernel,
    PinwheelUNet,
    fold_kernels,
)
from pinglow.nn.kernel import Orientation

STATIC: list[Orientation] = ["none", "fixed", "learned"]
BANKS: list[Orientation] = ["max", "steered"]
PLACINGS: list[dict[str, Any]] = [
    {},
    {"groups": 2},
    {"stride": 2, "padding": 2, "bias": False},
    {"groups": 4, "padding": "same", "dilation": 2, "padding_mode": "reflect"},
]
each_placing = pytest.mark.parametrize("placing", PLACINGS, ids=str)


def image(seed: int = 0, channels: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, 11, 13, generator=generator, dtype=dtype)


def widen(layer: GaussianConv2d) -> GaussianConv2d:
    """Give the layer another sigma than it starts with."""
    with torch.no_grad():
        layer.kernel.log_sigma += 0.5
    return layer


def bars(layer: GaussianConv2d, x: Tensor) -> Tensor:
    """Response of every bar of the bank alone, (n, N, C_out, H, W), without bias."""
    gaussian_bars = layer.kernel()  # (n, 1, kh, kw)
    return torch.stack([layer._conv_forward(x, layer.weight * bar, None) for bar in gaussian_bars])


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.sampled_from([1, 2, 3, 5, (3, 5), (1, 4)]),
    stride=st.sampled_from([1, 2, (2, 1)]),
    padding=st.sampled_from([0, 1, (2, 0), "same", "valid"]),
    dilation=st.sampled_from([1, 2, (1, 2)]),
    groups=st.sampled_from([1, 2, 4]),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    bias=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # even kernels, both layers
def test_without_shape_it_is_a_plain_convolution(
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    mode: Any,
    bias: bool,
) -> None:
    assume(padding != "same" or stride == 1)
    plain = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias, mode)
    shaped = GaussianConv2d(
        4, 8, kernel, stride, padding, dilation, groups, bias, mode,
        orientation="none", sigma=1e6,
    )  # fmt: skip
    missing, unexpected = shaped.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["kernel.log_sigma"]
    assert unexpected == []
    torch.testing.assert_close(shaped(image()), plain(image()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("orientation", [*STATIC, *BANKS])
def test_state_keys_are_those_of_a_convolution_and_the_kernels_own(
    orientation: Orientation,
) -> None:
    keys = set(GaussianConv2d(4, 8, 3, orientation=orientation).state_dict())
    own = {key for key in keys if key.startswith("kernel.")}
    assert keys - own == set(nn.Conv2d(4, 8, 3).state_dict())
    assert 1 <= len(own) <= 3


def test_the_weight_is_multiplied_by_the_gaussian() -> None:
    layer = GaussianConv2d(4, 8, 3, orientation="none", sigma=0.8, bias=False, padding=1)
    gaussian = torch.tensor([[2.0, 1, 2], [1, 0, 1], [2, 1, 2]]).mul(-1 / (2 * 0.8**2)).exp()
    expected = nn.functional.conv2d(image(), layer.weight * gaussian, padding=1)
    torch.testing.assert_close(layer(image()), expected)


def test_four_arms_do_nothing_at_three_taps_and_cut_at_five() -> None:
    for size, taps_off in ((3, 0), (5, 8)):
        masked = GaussianConv2d(4, 8, size, orientation="fixed", arms=4)
        free = GaussianConv2d(4, 8, size, orientation="none")
        free.load_state_dict(masked.state_dict())
        assert torch.equal(masked(image()), free(image())) == (taps_off == 0)
        assert (fold_kernels(masked).weight[0, 0] == 0).sum() == taps_off


@each_placing
@pytest.mark.parametrize("sigma", [0.6, 1.5])
def test_from_conv_keeps_a_trained_layers_outputs(placing: dict[str, Any], sigma: float) -> None:
    conv = nn.Conv2d(4, 8, 3, **placing).double().eval()
    layer = GaussianConv2d.from_conv(conv, sigma=sigma)
    assert not layer.training
    x = image(dtype=torch.float64)
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-12, atol=1e-12)


def test_from_conv_refuses_a_gaussian_that_vanishes_at_the_edge() -> None:
    conv = nn.Conv2d(4, 8, 15)
    with pytest.raises(ValueError, match="enlarge"):
        GaussianConv2d.from_conv(conv, sigma=0.3)
    layer = GaussianConv2d(4, 8, 15, sigma=0.3, orientation="none")
    with pytest.raises(ValueError, match="enlarge"):
        layer.load_state_dict(conv.state_dict(), strict=False)


@each_placing
@pytest.mark.parametrize("orientation", STATIC)
@pytest.mark.parametrize("arms", [1, 4])
def test_folded_layer_is_plain_and_equal(
    placing: dict[str, Any], orientation: Orientation, arms: int
) -> None:
    layer = widen(GaussianConv2d(4, 8, 5, orientation=orientation, arms=arms, **placing))
    folded = layer.reparameterize()
    assert type(folded) is nn.Conv2d
    torch.testing.assert_close(folded(image()), layer(image()), rtol=0, atol=1e-6)


@each_placing
@pytest.mark.parametrize("arms", [2, 3])
def test_max_is_the_bar_of_the_largest_response(placing: dict[str, Any], arms: int) -> None:
    layer = widen(GaussianConv2d(4, 8, 5, orientation="max", arms=arms, **placing))
    expected: Tensor | None = None
    for response in bars(layer, image()):
        stronger = expected is None or response.abs() > expected.abs()
        expected = response if expected is None else torch.where(stronger, response, expected)
    assert expected is not None
    bias = 0 if layer.bias is None else layer.bias.view(-1, 1, 1)
    torch.testing.assert_close(layer(image()), expected + bias, rtol=1e-5, atol=1e-6)


@each_placing
def test_steered_lies_between_the_mean_and_the_largest(placing: dict[str, Any]) -> None:
    layer = GaussianConv2d(4, 8, 5, orientation="steered", arms=3, **placing).double()
    x = image(dtype=torch.float64)
    responses = bars(layer, x)
    bias = 0 if layer.bias is None else layer.bias.view(-1, 1, 1)
    layer.kernel.log_sharpness.data.fill_(-30)
    torch.testing.assert_close(layer(x), responses.mean(0) + bias, rtol=1e-6, atol=1e-9)
    layer.kernel.log_sharpness.data.fill_(30)
    winner = responses.abs().argmax(0, keepdim=True)
    torch.testing.assert_close(layer(x), responses.gather(0, winner)[0] + bias)
    layer.kernel.log_sharpness.data.fill_(0.7)
    share = torch.softmax(responses.abs() * torch.tensor(0.7).double().exp(), 0)
    torch.testing.assert_close(layer(x), (share * responses).sum(0) + bias, rtol=1e-6, atol=1e-7)


def test_one_bar_in_a_bank_is_a_single_fixed_bar() -> None:
    single = GaussianConv2d(4, 8, 5, orientation="fixed", arms=1)
    for orientation in BANKS:
        bank = GaussianConv2d(4, 8, 5, orientation=orientation, arms=1)
        bank.load_state_dict(single.state_dict(), strict=False)
        torch.testing.assert_close(bank(image()), single(image()))


@pytest.mark.parametrize("orientation", [*STATIC, *BANKS])
def test_gradients_reach_every_parameter(orientation: Orientation) -> None:
    layer = GaussianConv2d(4, 8, 5, orientation=orientation, arms=2)
    layer(image()).square().mean().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@each_placing
@pytest.mark.parametrize("orientation", [*STATIC, *BANKS])
def test_fold_kernels_folds_layers_inside_a_model(
    placing: dict[str, Any], orientation: Orientation
) -> None:
    layer = widen(GaussianConv2d(4, 8, 5, orientation=orientation, arms=3, **placing))
    model = nn.Sequential(layer, nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_kernels(model)
    assert not any(isinstance(module, GaussianConv2d) for module in folded.modules())
    assert not any(module.training for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(image()), model(image()), rtol=0, atol=1e-6)
        for parameter in folded.parameters():
            parameter.zero_()
    assert model[0] is layer
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_fold_kernels_takes_a_bare_layer_and_keeps_sharing() -> None:
    layer = GaussianConv2d(4, 4, 3)
    assert type(fold_kernels(layer)) is nn.Conv2d
    folded = fold_kernels(nn.Sequential(layer, nn.ReLU(), layer))
    assert isinstance(folded, nn.Sequential)
    assert type(folded[0]) is nn.Conv2d
    assert folded[0] is folded[2]


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_fold_kernels_keeps_the_networks_logits(attention: str) -> None:
    torch.manual_seed(0)
    network = PinwheelUNet.fast(attention=attention).eval()
    x = torch.rand(1, 1, 32, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(x)
        folded = fold_kernels(network)
        torch.testing.assert_close(folded(x), before, rtol=0, atol=1e-6)
        assert torch.equal(network(x), before)
    left = [part for part in folded.modules() if isinstance(part, GaussianPinwheelKernel)]
    assert all(kernel.bank_size > 1 for kernel in left)  # only a bank still reduces
    assert not any("theta" in name for name, _ in folded.named_parameters())


@pytest.mark.parametrize("orientation", ["fixed", "learned", "max", "steered"])
def test_a_mask_needs_a_center_tap(orientation: Orientation) -> None:
    with pytest.raises(ValueError, match="odd"):
        GaussianConv2d(4, 8, (3, 4), orientation=orientation)
