"""GaussianConv2d, a drop-in for nn.Conv2d with a Gaussian × pinwheel shape on its taps.

Source: arXiv 2604.09991 (the place of the convolution in YOLOv8 and RetinaNet). Bank modes,
`from_conv` and folding are ours.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, Final, Literal, Self

import torch
from torch import Tensor, nn

from pinglow.nn.kernel import GaussianPinwheelKernel, Orientation


class GaussianConv2d(nn.Conv2d):
    """nn.Conv2d whose weight is multiplied by a Gaussian × pinwheel kernel.

    Takes nn.Conv2d's arguments and has its state keys, plus its own scalars under ``kernel.``.
    With a large sigma and ``orientation="none"`` it equals nn.Conv2d. At 3 × 3 the four-arm mask
    is all ones, so it acts only with fewer arms or larger kernels.

    Args:
        orientation: See `GaussianPinwheelKernel`.
        arms: Arms of the mask, or bars of the bank.
        clip: Clip the mask to a disc of radius k // 2.
        sigma: Start of sigma, in taps.

    Raises:
        ValueError: The kernel size is even and a mask is asked for, or another value is impossible.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        orientation: Orientation = "fixed",
        arms: int = 4,
        clip: bool = False,
        sigma: float = 1.5,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        height, width = self.kernel_size
        kernel = GaussianPinwheelKernel((height, width), orientation, arms, clip, sigma)
        self.kernel = kernel.to(device=device, dtype=dtype)

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        *,
        keep_outputs: bool = True,
        orientation: Orientation = "none",
        **shape: Any,
    ) -> Self:
        """Shape a trained layer.

        Args:
            conv: The trained layer.
            keep_outputs: Divide the free weights by the Gaussian, so that their product is the
                trained weight. Outputs are then the trained layer's, but for taps that a mask
                leaves out; with 4 learned arms at 3 × 3 that is none at the start. False: the
                weights are taken as they are, and the Gaussian acts from the start.
            orientation: As the class has it.
            **shape: arms, clip and sigma, as the class has them.

        Raises:
            ValueError: The Gaussian is too narrow for the kernel: it vanishes at the edge. Or as
                the class.
        """
        layer = cls(
            **_conv_arguments(conv), orientation=orientation, **shape, **_placement(conv.weight)
        )
        with torch.no_grad():
            divisor = torch.ones((), **_placement(conv.weight))
            if keep_outputs:
                divisor = layer._divisor()
            layer.weight.copy_(conv.weight / divisor)
            if conv.bias is not None and layer.bias is not None:
                layer.bias.copy_(conv.bias)
        for name, parameter in conv.named_parameters():  # frozen ones stay so
            layer.get_parameter(name).requires_grad_(parameter.requires_grad)
        return layer.train(conv.training)

    def _divisor(self) -> Tensor:
        """What makes a plain weight this layer's free one, (1, 1, kh, kw)."""
        gaussian = self.kernel.gaussian().detach().unsqueeze(1)
        if gaussian.min() < torch.finfo(gaussian.dtype).tiny:
            raise ValueError(
                f"sigma {self.kernel.sigma.min().item():g} is too narrow for kernel_size "
                f"{self.kernel_size}; enlarge it"
            )
        return gaussian

    @property
    def shape_options(self) -> dict[str, Any]:
        """The arguments of its own that it was made with, without sigma, which is learned."""
        kernel = self.kernel
        return {"orientation": kernel.orientation, "arms": kernel.arms, "clip": kernel.clip}

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        """Take a plain layer's weight for what the product with the Gaussian is to be.

        Such a state has no kernel; as free weights its numbers would mean a narrower layer.

        Raises:
            ValueError: As `from_conv`.
        """
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and not any(k.startswith(f"{prefix}kernel.") for k in state_dict):
            state_dict[f"{prefix}weight"] = weight / self._divisor().to(weight)
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) to (N, C_out, H', W')."""
        bank = self.kernel.bank_size > 1
        bias = None if bank else self.bias  # a bank's bias comes after the reduction
        responses: Tensor = self._conv_forward(x, self._shaped_weight(), bias)
        return _add_bias(self.kernel.reduce(responses), self.bias) if bank else responses

    def reparameterize(self) -> nn.Module:
        """A stand-in of equal outputs: a plain nn.Conv2d, or for a bank an n-fold one."""
        if self.kernel.bank_size == 1:
            return _plain_conv(self, self._shaped_weight(), self.bias)
        return FoldedBank(_plain_conv(self, self._shaped_weight(), None), self.kernel, self.bias)

    def _shaped_weight(self) -> Tensor:
        """(C_out · bank, C_in / groups, kh, kw), a channel's bank side by side, so groups hold."""
        shape: Tensor = self.kernel()  # (bank, 1, kh, kw)
        weight = self.weight * shape.unsqueeze(2)  # (bank, C_out, C_in / groups, kh, kw)
        return weight.transpose(0, 1).flatten(0, 1)


CONVOLUTIONS: Final[dict[str, Callable[..., nn.Conv2d]]] = {
    "plain": functools.partial(nn.Conv2d, kernel_size=3, padding=1),
    "gaussian": functools.partial(GaussianConv2d, kernel_size=3, padding=1, orientation="none"),
}
"""Named convolutions of residual blocks: (in_channels, out_channels) to one that keeps the size."""


class FoldedBank(nn.Module):
    """A bank of n plain kernels per output channel in one convolution, and their reduction.

    Args:
        conv: The n-fold convolution without bias, a channel's kernels side by side.
        kernel: Whose ``reduce`` joins the bank; copied.
        bias: (C_out,), added after the reduction.
    """

    def __init__(
        self, conv: nn.Conv2d, kernel: GaussianPinwheelKernel, bias: Tensor | None
    ) -> None:
        super().__init__()
        self.conv = conv
        self.kernel = copy.deepcopy(kernel)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) to (N, C_out, H', W')."""
        responses: Tensor = self.conv(x)
        return _add_bias(self.kernel.reduce(responses), self.bias)


def _add_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias.reshape(-1, 1, 1)


def _conv_arguments(conv: nn.Conv2d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    arguments = {name: getattr(conv, name) for name in (*names, "groups", "padding_mode")}
    return arguments | {"bias": conv.bias is not None}


def _placement(weight: Tensor) -> dict[str, Any]:
    return {"device": weight.device, "dtype": weight.dtype}


def _plain_conv(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A plain convolution placed as ``layer`` is, with these values."""
    arguments = _conv_arguments(layer) | {"out_channels": len(weight), "bias": bias is not None}
    conv = nn.Conv2d(**arguments, **_placement(weight))
    with torch.no_grad():
        conv.weight.copy_(weight)
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(bias)
    return conv.train(layer.training)
