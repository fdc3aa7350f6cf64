"""A plain training loop of the MSHNet form, written as public code of this family is.

Every image is opened, resized, flipped and normalized for each batch, by Pillow; tensors are NCHW
and float32; operations are started one by one; the loss walks through the batch in Python, and each
step's loss is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from pinglow.nn import PinwheelUNet
from pinglow.nn.blocks import ResidualBlock

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
        gray = pixels[:1].astype(np.float32)  # one channel in, as for ours
        return torch.from_numpy(gray), torch.from_numpy(truth)


def plain_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Variance-weighted soft IoU and location, image by image."""
    probability = torch.sigmoid(logits)
    total = logits.new_zeros(())
    for p, y in zip(probability, mask, strict=True):
        shared, a, t = (p * y).sum(), p.sum(), y.sum()
        spread = ((a - t) / 2) ** 2
        weight = (torch.min(a, t) + spread) / (torch.max(a, t) + spread + 1e-6)
        total = total + 1 - weight * (shared + 1) / (a + t - shared + 1)
        height, width = p.shape[-2:]
        xs = torch.arange(0, width, device=p.device).view(1, 1, width).repeat(1, height, 1) / width
        ys = (
            torch.arange(0, height, device=p.device).view(1, height, 1).repeat(1, 1, width) / height
        )
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


def plain_loop(
    folder: Path,
    batch_size: int,
    network: PinwheelUNet | None = None,
    device: str = "cpu",
    workers: int = 0,
) -> Callable[[int], float]:
    """Return a function that trains for some steps and says how long each took, loading and all."""
    torch.manual_seed(0)
    network = (network or PinwheelUNet.mshnet()).to(device)
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            conv = getattr(block.spatial_attention, "conv", None)
            if isinstance(conv, nn.Conv2d):
                block.spatial_attention = PlainAttention(conv)
    optimizer = torch.optim.Adagrad(network.parameters(), lr=0.05)
    frames = PlainFrames(folder)
    # Without end: at each end of a short list workers would begin anew, with nothing made ahead.
    endless = RandomSampler(frames, replacement=True, num_samples=2**40)
    loader = DataLoader(
        frames, batch_size, sampler=endless, num_workers=workers, pin_memory=device != "cpu"
    )
    batches = iter(loader)
    pool = nn.MaxPool2d(2, 2)

    def run(steps: int) -> float:
        network.train()
        start = time.perf_counter()
        for _ in range(steps):
            images, masks = (each.to(device) for each in next(batches))
            fused, *sides = network.forward_pyramid(images)
            loss, truth = plain_loss(fused, masks), masks
            for level, side in enumerate(sides):
                truth = pool(truth) if level else truth
                loss = loss + plain_loss(side, truth)
            loss = loss / (len(sides) + 1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
        return (time.perf_counter() - start) / steps

    return run
