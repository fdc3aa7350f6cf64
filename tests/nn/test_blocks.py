"""The residual block against its definition, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pinglow.nn import PinwheelUNet, fold_kernels, fold_norms
from pinglow.nn.blocks import ResidualBlock


@pytest.mark.parametrize(("inside", "outside"), [(4, 4), (4, 6)])
def test_block_is_its_definition(inside: int, outside: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(inside, outside, "learned").eval()
    x = torch.randn(2, inside, 9, 7)
    y = block.norm1(block.conv1(x)).clamp(min=0)
    y = block.spatial_attention(block.channel_attention(block.norm2(block.conv2(y))))
    skip = x
    if inside != outside:
        conv, norm = block.skip
        skip = norm(conv(x))
    given = x.clone()
    torch.testing.assert_close(block(x), (y + skip).clamp(min=0))
    assert torch.equal(x, given)  # its in-place steps leave the input alone


def test_skip_passes_everything_when_the_branch_is_silent() -> None:
    block = ResidualBlock(4, 4, "free").eval()
    torch.nn.init.zeros_(block.norm2.weight)
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(block(x), x.clamp(min=0))


def test_unknown_attention_is_refused() -> None:
    with pytest.raises(KeyError, match="cross"):
        ResidualBlock(4, 4, "cross")


def test_folding_norms_keeps_the_logits_and_leaves_none() -> None:
    torch.manual_seed(0)
    network = PinwheelUNet.fast()
    with torch.no_grad():
        network(5 + 3 * torch.randn(4, 1, 64, 64))  # statistics that do something
        network.eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, -1, 1)
        image = 5 + 3 * torch.randn(2, 1, 70, 41)
        folded = fold_norms(fold_kernels(network))
        torch.testing.assert_close(folded(image), network(image), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
