from __future__ import annotations

import pytest
import torch
from torch import nn

from pinglow.nn import GatedNetwork, PinwheelUNet


def make_network() -> PinwheelUNet:
    torch.manual_seed(0)
    return PinwheelUNet(1, (4, 8, 8), (1, 2, 1), "learned", patch=2).eval()


def test_without_gates_it_is_the_network() -> None:
    network = make_network()
    gated = GatedNetwork(network).eval()
    images = torch.randn(3, 1, 40, 52)
    logits, seen = gated(images)
    assert torch.equal(logits, network(images))
    # Encoder 4, 8 + 8, 8; decoder 8 + 8, 4.
    assert gated.gates == 48
    assert seen.shape == (3, 48)
    assert ((seen > 0) & (seen < 1)).all()
    assert len(network.state_dict()) == len(gated.state_dict())


def test_a_networks_own_gates_change_nothing_and_others_do() -> None:
    gated = GatedNetwork(make_network()).eval()
    images = torch.randn(2, 1, 40, 52)
    logits, seen = gated(images)
    same, again = gated(images, seen)
    assert torch.allclose(same, logits, atol=1e-6)
    assert torch.allclose(again, seen, atol=1e-6)
    other, _ = gated(images, 1 - seen)
    assert not torch.allclose(other, logits, atol=1e-4)
    kept, _ = gated(images, 1 - seen, own=1.0)
    assert torch.allclose(kept, logits, atol=1e-6)


def test_with_fixed_gates_a_pixel_depends_on_its_surroundings_only() -> None:
    gated = GatedNetwork(make_network()).eval()
    images = torch.randn(1, 1, 64, 320)
    changed = images.clone()
    changed[..., 300:] += 5
    _, gates = gated(images)
    near, far = slice(0, 64), slice(256, 320)
    fixed = [gated(each, gates)[0] for each in (images, changed)]
    assert torch.allclose(fixed[0][..., near], fixed[1][..., near], atol=1e-6)
    assert not torch.allclose(fixed[0][..., far], fixed[1][..., far], atol=1e-3)
    free = [gated(each)[0] for each in (images, changed)]
    assert not torch.allclose(free[0][..., near], free[1][..., near], atol=1e-6)


@pytest.mark.parametrize("gates", [None, torch.zeros(1, 0)])
def test_a_network_without_channel_attention_has_no_gates(gates: torch.Tensor | None) -> None:
    gated = GatedNetwork(nn.Conv2d(1, 1, 1))
    images = torch.randn(2, 1, 5, 5)
    logits, seen = gated(images, gates)
    assert torch.equal(logits, gated.network(images))
    assert seen.shape == (2, 0)
