"""Shaping and folding a whole network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pinglow.nn import GaussianConv2d, fold_kernels, shape_convolutions
from pinglow.nn.swap import copy_shapes


def small() -> nn.Sequential:
    """A network with a layer that a framework has hung attributes on, and one used twice."""
    torch.manual_seed(0)
    shared = nn.Conv2d(4, 4, 3, padding=1)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1), shared, nn.ReLU(), shared
    )
    for number, layer in enumerate(network):
        layer.i, layer.f, layer.type = number, -1, type(layer).__name__  # as ultralytics does
    return network


IMAGES = torch.randn(2, 1, 9, 11, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [{"orientation": "none"}, {"orientation": "learned"}])
def test_outputs_stay_and_point_convolutions_are_left(options: dict[str, str]) -> None:
    network = small()
    wanted = network(IMAGES)
    assert shape_convolutions(network, ".*", **options) == ["0", "2", "4"]
    assert type(network[1]) is nn.Conv2d
    assert isinstance(network[0], GaussianConv2d)
    torch.testing.assert_close(network(IMAGES), wanted)


def test_a_layer_used_twice_still_is_one() -> None:
    network = small()
    shape_convolutions(network, ".*")
    assert network[2] is network[4]
    folded = fold_kernels(network)
    assert folded[2] is folded[4]  # type: ignore[index]


def test_attributes_that_a_framework_has_hung_on_a_layer_stay() -> None:
    network = small()
    shape_convolutions(network, ".*")
    assert [(layer.i, layer.f) for layer in network] == [
        (0, -1),
        (1, -1),
        (4, -1),
        (3, -1),
        (4, -1),
    ]
    assert [layer.i for layer in fold_kernels(network)] == [0, 1, 4, 3, 4]  # type: ignore[attr-defined]
    assert network[0].type == "Conv2d"


def test_the_whole_path_has_to_match() -> None:
    network = nn.Sequential(nn.Sequential(*small()))
    assert shape_convolutions(network, "0[.]0") == ["0.0"]
    with pytest.raises(ValueError, match="where='0' matches no convolution"):
        shape_convolutions(network, "0")


def test_what_cannot_be_shaped_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 4))
    with pytest.raises(ValueError, match="0: kernel_size \\(4, 4\\) has no center tap"):
        shape_convolutions(network, "0", orientation="learned")


def test_another_network_gets_the_same_shapes() -> None:
    example = small()
    shape_convolutions(example, "0", orientation="steered", arms=3, clip=True, sigma=0.9)
    shape_convolutions(example, "2", orientation="fixed", arms=2)
    network = small()
    copy_shapes(network, example)
    network.load_state_dict(example.state_dict())
    torch.testing.assert_close(network(IMAGES), example(IMAGES))
    assert [type(layer) for layer in network] == [type(layer) for layer in example]
    before = copy.deepcopy(network.state_dict())
    copy_shapes(network, example)  # already alike: nothing to do
    assert network.state_dict().keys() == before.keys()


def test_frozen_layers_stay_frozen() -> None:
    network = small()
    network[0].weight.requires_grad_(False)
    shape_convolutions(network, "0|2")
    assert not network[0].weight.requires_grad
    assert network[0].bias.requires_grad
    assert network[2].weight.requires_grad


def test_a_plain_layers_state_means_the_product() -> None:
    """Loaded into a shaped network it gives the plain network's outputs; ours stays ours."""
    plain, shaped = small(), small()
    shape_convolutions(shaped, ".*", sigma=0.7)
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    missing, unexpected = shaped.load_state_dict(state, strict=False)
    assert {key.split(".", 1)[1] for key in missing} == {"kernel.log_sigma"}
    assert not unexpected
    torch.testing.assert_close(shaped(IMAGES), plain(IMAGES))
    torch.testing.assert_close(state["0.weight"], plain[0].weight.detach())  # the caller's
    wanted = shaped(IMAGES).detach()
    shaped.load_state_dict(copy.deepcopy(shaped.state_dict()))
    torch.testing.assert_close(shaped(IMAGES), wanted)
