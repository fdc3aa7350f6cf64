"""How much faster pinglow trains the MSHNet form than a plain loop, and where its time goes.

Both train the same network on the same 512 x 512 PNG files, crops of 256 x 256, batch 4, with
Adagrad, the variance loss and the location loss. The plain loop is written as public code of this
family is: every image is opened, resized, flipped and normalised for each batch, tensors are NCHW,
and the loss walks through the batch in Python. Ours is what `pinglow train mshnet` does:
`TrainingBatches`, `SegmentationTask` and Lightning's Trainer. They take turns.
Run `python benchmarks/bench_training.py`.
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import lightning
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from pinglow.data.synthetic import SENSORS, SceneSpec, write_dataset
from pinglow.nn import PinwheelUNet
from pinglow.nn.blocks import ResidualBlock
from pinglow.training.batches import TrainingBatches, cut_validation
from pinglow.training.recipe import Recipe, load_recipe
from pinglow.training.task import SegmentationTask

SIDE = 256


class PlainFrames(Dataset[tuple[Tensor, Tensor]]):
    """Every image from its file, every time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.random = np.random.default_rng(0)
        self.names = (folder / "train.txt").read_text().split()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.open(self.folder / "images" / f"{self.names[index]}.png").convert("RGB")
        mask = Image.open(self.folder / "masks" / f"{self.names[index]}.png").convert("L")
        if self.random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        side = int(SIDE * self.random.uniform(1.0, 4.0))
        image = image.resize((side, side), Image.Resampling.BILINEAR)
        mask = mask.resize((side, side), Image.Resampling.NEAREST)
        left, top = self.random.integers(0, side - SIDE + 1, size=2)
        box = (left, top, left + SIDE, top + SIDE)
        pixels = np.asarray(image.crop(box), dtype=np.float32).transpose(2, 0, 1) / 255
        pixels = (pixels - [[[0.485]], [[0.456]], [[0.406]]]) / [[[0.229]], [[0.224]], [[0.225]]]
        truth = np.asarray(mask.crop(box), dtype=np.float32)[None] / 255
        grey = pixels[:1].astype(np.float32)  # one channel in, as for ours
        return torch.from_numpy(grey), torch.from_numpy(truth)


def plain_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Variance-weighted soft IoU and location, image by image."""
    probability = torch.sigmoid(logits)
    total = torch.zeros(())
    for p, y in zip(probability, mask, strict=True):
        shared, a, t = (p * y).sum(), p.sum(), y.sum()
        spread = ((a - t) / 2) ** 2
        weight = (torch.min(a, t) + spread) / (torch.max(a, t) + spread + 1e-6)
        total = total + 1 - weight * (shared + 1) / (a + t - shared + 1)
        height, width = p.shape[-2:]
        xs = torch.arange(0, width).view(1, 1, width).repeat(1, height, 1) / width
        ys = torch.arange(0, height).view(1, height, 1).repeat(1, 1, width) / height
        polar = []
        for values in (p, y):
            x, v = (xs * values).mean(), (ys * values).mean()
            polar.append((torch.sqrt(x * x + v * v + 1e-8), torch.arctan(v / (x + 1e-8))))
        (rho_p, phi_p), (rho_t, phi_t) = polar
        total = total + 1 - torch.min(rho_p, rho_t) / (torch.max(rho_p, rho_t) + 1e-8)
        total = total + 4 / math.pi**2 * (phi_p - phi_t) ** 2
    return total / len(logits)


class PlainAttention(nn.Module):
    """CBAM's spatial attention as everybody writes it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        mean, peak = torch.mean(x, dim=1, keepdim=True), torch.max(x, dim=1, keepdim=True)[0]
        return x * torch.sigmoid(self.conv(torch.cat([mean, peak], dim=1)))


def plain_loop(folder: Path, recipe: Recipe) -> Callable[[int], float]:
    """Return a function that trains for some steps and says how long each took (median)."""
    torch.manual_seed(0)
    network = PinwheelUNet.mshnet()
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            block.spatial_attention = PlainAttention(block.spatial_attention.conv)
    optimizer = torch.optim.Adagrad(network.parameters(), lr=0.05)
    loader = DataLoader(PlainFrames(folder), recipe.batch_size, shuffle=True, drop_last=True)
    pool = nn.MaxPool2d(2, 2)

    def run(steps: int) -> float:
        network.train()
        times: list[float] = []
        while True:
            start = time.perf_counter()
            for images, masks in loader:
                fused, *sides = network.forward_pyramid(images)
                loss, truth = plain_loss(fused, masks), masks
                for level, side in enumerate(sides):
                    truth = pool(truth) if level else truth
                    loss = loss + plain_loss(side, truth)
                loss = loss / (len(sides) + 1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
                times.append(time.perf_counter() - start)
                if len(times) == steps:
                    return median(times)
                start = time.perf_counter()

    return run


class Clock(lightning.Callback):
    """Times from one step's end to the next one's."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


class Endless(torch.utils.data.IterableDataset[tuple[Tensor, Tensor]]):
    """The batches of a recipe, one turn going on where the last one ended."""

    def __init__(self, supply: TrainingBatches) -> None:
        self.supply, self.number = supply, 0

    def __iter__(self) -> Any:
        while True:
            yield self.supply.batch(self.number)
            self.number += 1


def our_run(recipe: Recipe) -> tuple[Callable[[int], float], SegmentationTask, TrainingBatches]:
    """Return the same kind of function for ours, and its parts."""
    task = SegmentationTask(recipe)
    supply = TrainingBatches(recipe, cut_validation(recipe))
    endless = Endless(supply)

    def run(steps: int) -> float:
        clock = Clock()
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_steps=steps + 1,
            gradient_clip_val=recipe.optimizer.gradient_clip or None,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(task, DataLoader(endless, batch_size=None))
        return median(np.diff(clock.ends))

    return run, task, supply


def show_parts(task: SegmentationTask, supply: TrainingBatches, steps: int) -> None:
    """Print where a step's wall time goes, and the operators that take most of it."""
    built: Any = task.configure_optimizers()
    optimizer = built["optimizer"]
    parts: dict[str, list[float]] = {
        name: [] for name in ("batch", "forward", "loss", "backward", "optimiser")
    }
    task.train()

    def step(number: int) -> None:
        marks = [time.perf_counter()]
        images, masks = supply.batch(number)
        marks.append(time.perf_counter())
        images = images.contiguous(memory_format=torch.channels_last)
        fused, *sides = task.network.forward_pyramid(images)
        marks.append(time.perf_counter())
        losses = [task._loss(task.loss, fused, masks)]
        for level, side in enumerate(sides):
            truth = F.max_pool2d(masks, 2**level, ceil_mode=True) if level else masks
            losses.append(task._loss(task.loss, side, truth))
        loss = torch.stack(losses).mean()
        marks.append(time.perf_counter())
        optimizer.zero_grad()
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        marks.append(time.perf_counter())
        for name, seconds in zip(parts, np.diff(marks), strict=True):
            parts[name].append(float(seconds))

    for number in range(steps):
        step(number)
    whole = sum(median(times) for times in parts.values())
    print("\nwhere the rest of the time goes, milliseconds per step (median)")
    for name, times in parts.items():
        print(f"  {name:10}{1e3 * median(times):9.1f}{100 * median(times) / whole:7.1f} %")
    with profile(activities=[ProfilerActivity.CPU]) as record:
        step(steps)
    events = sorted(record.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print("\ntop operators of one step (own time)")
    for event in events[:8]:
        share = 100 * event.self_cpu_time_total / total
        print(f"  {event.key:48}{event.count:5} calls{share:7.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="interleaved; the median counts")
    parser.add_argument("--steps", type=int, default=6, help="steps of each loop in a turn")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "scenes"
        write_dataset(folder, 24, SceneSpec(width=2 * SIDE, height=2 * SIDE, sensor=SENSORS[8]))
        sets = f"data.sets=[{{folder = '{folder.as_posix()}', split = 'train'}}]"
        still = ["loss.warmup_steps=0"]
        recipe = load_recipe("mshnet", [sets, *still])
        theirs = plain_loop(folder, recipe)
        ours, task, supply = our_run(recipe)
        theirs(2), ours(2)  # warm up
        turns = [(theirs(arguments.steps), ours(arguments.steps)) for _ in range(arguments.turns)]
        ratio = median(their / our for their, our in turns)
        for name, seconds in zip(("plain loop", "pinglow"), zip(*turns, strict=True), strict=True):
            step = median(seconds)
            print(f"{name:12}{1e3 * step:8.0f} ms a step{recipe.batch_size / step:8.2f} images/s")
        print(f"pinglow trains {ratio:.2f} times as many images per second")
        show_parts(task, supply, 4)


if __name__ == "__main__":
    main()
