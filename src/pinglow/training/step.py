"""One training step up to its gradients; on a card, a CUDA graph that is captured once a phase.

A step is thousands of small kernels. Started one by one they leave a card idle most of the time; a
graph starts all of them at once, views and losses included.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from pinglow.errors import OptionError
from pinglow.files import cache_folder
from pinglow.inference.batches import does_not_fit
from pinglow.training.batches import TrainingBatches
from pinglow.training.recipe import Phase
from pinglow.training.task import TrainingTask

_WARM_UP: Final = 3  # runs before a capture, in which libraries choose their kernels


class Step:
    """Makes a batch, and its loss's gradients.

    Args:
        task: What is trained; on the device.
        batches: Where its batches come from.
        device: Where it is trained.
        bfloat16: Whether the network computes in bfloat16; losses never do.
        graph: Replay a CUDA graph; only for a task that is ``static``, on one card.
        compiled: Let torch.compile fuse the network's and the loss's operations.
        alone: Whether no other process shares the batch.
    """

    def __init__(
        self,
        task: TrainingTask,
        batches: TrainingBatches,
        device: torch.device,
        *,
        bfloat16: bool,
        graph: bool,
        compiled: bool = False,
        alone: bool = True,
    ) -> None:
        self._task, self._batches, self._device = task, batches, device
        self._bfloat16, self._alone = bfloat16, alone
        self._graphed = graph and task.static and device.type == "cuda"
        self._loss_of: Callable[..., Tensor] = task.batch_loss
        if compiled:
            keep_compiled()
            self._loss_of = torch.compile(task.batch_loss, dynamic=False)
        self._resident = batches.device.type == device.type
        self._number = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), device=device)
        self._batch: tuple[Tensor, Tensor] | None = None
        self._key: tuple[Phase, bool] | None = None
        self._replay: Callable[[], None] | None = None

    def __call__(self, number: int) -> Tensor:
        """Fill the gradients with those of a step, counted from 0, and return its loss, a scalar.

        Raises:
            OptionError: The batch does not fit on the card.
        """
        recipe = self._batches.recipe
        key = recipe.phase_at(number), self._task.is_warm(number)
        try:
            with _trying_kernels(self._device):
                self._make(number, *key)
        except Exception as error:  # of the compiler there are many kinds, with no common base
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise OptionError(
                    f"--compile does not work here ({str(error).strip().splitlines()[0][:150]}): "
                    "it needs a compiler for C++, and Triton on a card; leave it out"
                ) from error
            if not does_not_fit(error):
                raise
            reason = str(error).strip().splitlines()[0][:150]
            # The rest below: here the failed step still holds its memory.
        else:
            return self._loss
        with _trying_kernels(self._device):
            raise OptionError(self._advise(*key, reason))

    def forget(self) -> None:
        """Capture anew at the next step, and leave no gradients: after steps that were tried."""
        self._replay, self._key, self._batch = None, None, None
        self._task.network.zero_grad(set_to_none=True)

    def _make(self, number: int, phase: Phase, warm: bool) -> None:
        if not self._graphed:
            images, masks = (each.to(self._device) for each in self._batches.batch(number))
            self._run(images, masks, warm)
            return
        self._number.fill_(number)
        if not self._resident:
            self._load(number)
        if (phase, warm) != self._key:
            self._capture(phase, warm)
        assert self._replay is not None
        self._replay()

    def _run(self, images: Tensor, masks: Tensor, warm: bool) -> None:
        self._task.network.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            loss = self._loss_of(images, masks, warm)
        loss.backward()  # type: ignore[no-untyped-call]
        self._loss.copy_(loss.detach())

    def _load(self, number: int) -> None:
        """Bring a batch that was made on the CPU to where the graph reads it."""
        batch = self._batches.batch(number)
        if self._batch is None or self._batch[0].shape != batch[0].shape:
            self._key = None  # another size: another graph
            self._batch = (batch[0].to(self._device), batch[1].to(self._device))
        else:
            for place, values in zip(self._batch, batch, strict=True):
                place.copy_(values)

    def _capture(self, phase: Phase, warm: bool) -> None:
        """Record all that a step does; replaying it reads the step's number from the device."""
        self._replay, self._key = None, None  # frees what the last graph holds

        def run() -> None:
            batch = self._batches.make(self._number, phase) if self._resident else self._batch
            assert batch is not None
            self._run(*batch, warm)

        # Warming up moves BatchNorm's statistics.
        buffers = list(self._task.network.buffers())
        before = [each.clone() for each in buffers]
        stream: Any = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                run()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        # Gradients that the capture makes are written by each replay, not added to.
        self._task.network.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        full = False
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=stream):
                try:
                    run()
                except RuntimeError as error:
                    full = does_not_fit(error)
                    raise
        except RuntimeError as error:  # what ends a broken capture may raise something else
            if full:
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        self._replay, self._key = graph.replay, (phase, warm)

    def _advise(self, phase: Phase, warm: bool, reason: str) -> str:
        """Say what batch fits: the largest half of half of the one that does not."""
        self.forget()
        fits = phase.batch_size // 2
        if self._alone:  # else the others would wait for this one's sums
            fits = self._largest_that_fits(phase, warm)
        hint = f"use --set batch_size={fits}"
        if not fits:
            hint = f"use a smaller augmentation.crop ({reason})"
        return (
            f"a batch of {phase.batch_size} views of {phase.augmentation.crop} pixels does not "
            f"fit into the memory of {self._device}; {hint}"
        )

    def _largest_that_fits(self, phase: Phase, warm: bool) -> int:
        crop, batch_size = phase.augmentation.crop, phase.batch_size // 2
        while batch_size:
            self._task.network.zero_grad(set_to_none=True)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                empty: Any = torch.zeros(batch_size, 1, crop, crop, device=self._device)
                self._run(empty, torch.zeros_like(empty), warm)
            except RuntimeError as error:
                if not does_not_fit(error):
                    raise
                batch_size //= 2
            else:
                return batch_size
        return 0


@contextmanager
def _trying_kernels(device: torch.device) -> Iterator[None]:
    """Let cuDNN try its kernels once a size: views have few of them, validation frames many."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def keep_compiled() -> None:
    """Keep what torch.compile makes in the cache folder, so that the next run starts quickly."""
    folder = cache_folder()
    if folder is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
