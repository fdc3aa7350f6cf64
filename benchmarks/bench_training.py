"""How much faster pinglow trains the MSHNet form than a plain loop, and where its time goes.

Both train the same network on the same 512 x 512 PNG files, crops of 256 x 256, batch 4, with
Adagrad, the variance loss and the location loss. The plain loop is `plain_loop.py`, ours is what
`pinglow train mshnet` does in each step. They take turns.
Run `python benchmarks/bench_training.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812
from torch.profiler import ProfilerActivity, profile

from pinglow.data.synthetic.scenes import SENSORS, SceneSpec, write_dataset
from pinglow.training.batches import TrainingBatches, collect_frames
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe
from pinglow.training.segmentation import SegmentationTask
from pinglow.training.splits import cut_validation
from pinglow.training.step import Step
from plain_loop import SIDE, plain_loop


def our_run(recipe: Recipe) -> tuple[Callable[[int], float], SegmentationTask, TrainingBatches]:
    """Return the same kind of function for ours, and its parts."""
    device = torch.device("cpu")
    task = SegmentationTask(recipe)
    supply = TrainingBatches(recipe, collect_frames(recipe, cut_validation(recipe)))
    step = Step(task, supply, device, bfloat16=False, graph=False)
    optimizer = task.build_optimizer(device)
    done = 0

    def run(steps: int) -> float:
        nonlocal done
        task.network.train()
        times = []
        for _ in range(steps):
            begin = time.perf_counter()
            float(step(done))
            optimizer.step()
            task.follow(done)
            done += 1
            times.append(time.perf_counter() - begin)
        return median(times)

    return run, task, supply


def show_parts(task: SegmentationTask, supply: TrainingBatches, steps: int) -> None:
    """Print where a step's wall time goes, and the operators that take most of it."""
    optimizer = task.build_optimizer(torch.device("cpu"))
    parts: dict[str, list[float]] = {
        name: [] for name in ("batch", "forward", "loss", "backward", "optimizer")
    }
    task.train()

    def step(number: int) -> None:
        marks = [time.perf_counter()]
        images, masks = supply.batch(number)
        marks.append(time.perf_counter())
        images = images.contiguous(memory_format=torch.channels_last)
        fused, *sides = task.network.forward_pyramid(images)
        marks.append(time.perf_counter())
        losses = [task._loss(fused, masks, warm=False)]
        for level, side in enumerate(sides):
            truth = F.max_pool2d(masks, 2**level, ceil_mode=True) if level else masks
            losses.append(task._loss(side, truth, warm=False))
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
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "scenes"
        write_dataset(folder, 24, SceneSpec(width=2 * SIDE, height=2 * SIDE, sensor=SENSORS[8]))
        sets = f"data.sets=[{{folder = '{folder.as_posix()}', split = 'train'}}]"
        still = ["loss.warmup_steps=0"]
        recipe = load_recipe("mshnet", [sets, *still])
        theirs = plain_loop(folder, recipe.batch_size)
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
