"""The processes of a run: one, or one a device, started by --devices or by torchrun.

Lightning Fabric starts them and finds each its device. A batch is sliced among them, BatchNorm
takes its statistics over all slices and gradients are averaged, so the weights come out as those
of a single process, to rounding.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from pinglow.backends.device import choose_device
from pinglow.backends.torch import TorchBackend
from pinglow.errors import OptionError

Item = TypeVar("Item")


class World:
    """What a process knows of the others.

    Attributes:
        device: Its own.
        rank: Its number, from 0.
        size: How many there are.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1) -> None:
        self.device, self.rank, self.size = device, rank, size

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def largest(self, value: float) -> float:
        """The largest of what all processes say: so that they decide alike."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return float(told)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.size == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total / self.size

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Bring all gradients to their mean over the processes, in one message."""
        if self.size == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        flat = self.mean(torch.cat([each.flatten() for each in gradients]))
        parts = torch.split(flat, [each.numel() for each in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's share: every ``size``-th, none twice."""
        return list(items[self.rank :: self.size])

    def gather(self, mine: list[Any]) -> list[Any]:
        """The items of all shares, in the order that they had before `share`."""
        if self.size == 1:
            return mine
        parts: list[list[Any]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(parts, mine)
        total = sum(map(len, parts))
        return [parts[place % self.size][place // self.size] for place in range(total)]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            distributed.barrier()


def open_world(device: str = "auto", devices: int = 1) -> World:
    """Start the other processes, or find them where torchrun has started them.

    Args:
        device: Of the first process; see `choose_device`.
        devices: How many processes, each on a device of its own (on the CPU they share it).

    Raises:
        OptionError: The device is not there, or there are fewer of them.
    """
    chosen = torch.device(str(choose_device(device, [TorchBackend])))
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if devices < 1:
        raise OptionError(f"--devices is {devices}; use 1 or more")
    if chosen.type == "cuda" and devices > torch.cuda.device_count():
        raise OptionError(
            f"--devices is {devices}, but this machine has {torch.cuda.device_count()} CUDA "
            "devices: use at most as many"
        )
    if devices * nodes == 1:
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        return World(chosen)
    if chosen.index:
        raise OptionError(
            f"--device {device} is one device and --devices asks for {devices}: leave out its "
            "number, and choose with CUDA_VISIBLE_DEVICES"
        )
    with quiet_lightning():
        from lightning.fabric import Fabric  # seconds, which one process saves

        fabric = Fabric(accelerator=chosen.type, devices=devices, num_nodes=nodes, strategy="ddp")
        fabric.launch()
    return World(fabric.device, fabric.global_rank, fabric.world_size)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with the statistics of the slices of all processes, on any device.

    PyTorch's own SyncBatchNorm does it for GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        mean = _sum(values.sum(dim=(0, 2, 3))) / count
        centered = values - mean[:, None, None]
        variance = _sum(centered.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            share = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (count / (count - 1)), share)
            self.num_batches_tracked.add_(1)
        factor = (variance + self.eps).rsqrt() * self.weight  # (C,)
        return torch.addcmul(self.bias[:, None, None], centered, factor[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of the gradients of all."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        distributed.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


def share_norms(network: nn.Module) -> None:
    """Let the BatchNorms of a network take their statistics over all processes, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            # Only what it computes changes: parameters, buffers and keys stay.
            module.__class__ = SharedBatchNorm2d


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning from telling what it has found on the machine."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Its own use of torch, from torch 2.9 on.
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
