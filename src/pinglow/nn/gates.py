"""Channel attention that can be read from one image and set for another.

Channel attention pools over the whole image, so a tile of a frame sees other channels than the
frame does. With the frame's own gates every tile computes what the whole frame would. Source: ours.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pinglow.nn.attention import ChannelAttention


@dataclass
class _Board:
    """What the attentions of one network are told, and what they say, in one pass."""

    given: Tensor | None = None
    own: Tensor | float = 1.0
    seen: dict[int, Tensor] = field(default_factory=dict)


class _GatedAttention(nn.Module):
    """A channel attention, of which a board may fix the gates."""

    def __init__(self, attention: ChannelAttention, board: _Board, start: int) -> None:
        super().__init__()
        self.attention = attention
        self.board = board
        self.start = start
        self.width = attention.widen.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        gate = self.attention.gate(x)
        self.board.seen[self.start] = gate.flatten(1)
        if self.board.given is not None:
            given = self.board.given[:, self.start : self.start + self.width, None, None]
            gate = self.board.own * gate + (1 - self.board.own) * given
        return x * gate


class GatedNetwork(nn.Module):
    """A copy of a network whose channel attention can be read and set.

    Args:
        network: Maps (N, C, H, W) to logits (N, 1, H, W).

    Attributes:
        gates: Number of gates, G: the channels of all channel attentions.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.gates = 0
        self._board = _Board()
        for path, module in list(self.network.named_modules()):
            if isinstance(module, ChannelAttention):
                gated = _GatedAttention(module, self._board, self.gates)
                self.network.set_submodule(path, gated)
                self.gates += gated.width

    def forward(
        self, images: Tensor, gates: Tensor | None = None, own: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            images: (N, C, H, W).
            gates: (N or 1, G) in [0, 1], what channels are multiplied by; None: the images' own.
            own: Share of the images' own gates in [0, 1] where gates are given.

        Returns:
            Logits (N, 1, H, W), and the images' own gates (N, G).
        """
        board = self._board
        board.given, board.own, board.seen = gates, own, {}
        logits = self.network(images)
        seen = [board.seen[start] for start in sorted(board.seen)]
        board.given, board.seen = None, {}
        return logits, torch.cat(seen, dim=1) if seen else images.new_zeros(len(images), 0)
