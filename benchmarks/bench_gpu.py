"""How fast pinglow trains on a GPU, against the card's own limits and against a plain loop.

For each form and batch: views a second, milliseconds and kernels a step, and the share of the
card's bfloat16 rate and of its memory bandwidth, both measured in this run, by a large matrix
product and a large copy. The operations of a step are those of its convolutions, counted by
PyTorch; its bytes are what its operations read and write when each is a kernel of its own, so a
fused step may reach more than all of the bandwidth. Then the time from the start of a process to
its first step, twice: the second time on warm caches. Last the plain loop (`plain_loop.py`, eight
workers).

Run `python benchmarks/bench_gpu.py`, or `make bench-gpu`; `--device cpu --dry` tries all of it on a
processor with small numbers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pinglow.backends.device import choose_device
from pinglow.backends.torch import TorchBackend
from pinglow.data.synthetic.scenes import SENSORS, SceneSpec, write_dataset
from pinglow.errors import OptionError
from pinglow.training.batches import TrainingBatches, collect_frames, place_frames
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe
from pinglow.training.segmentation import SegmentationTask
from pinglow.training.splits import cut_validation
from pinglow.training.step import Step
from plain_loop import plain_loop

FORMS = ("fast", "base", "paper")
ASKED = {"fast": 20_000, "base": 10_000, "paper": 4_000}  # views a second on one H100
COLUMNS = ("form", "mode", "batch", "views/s", "ms", "kernels", "of peak", "of bandwidth", "GiB")


class CountBytes(TorchDispatchMode):
    """Sums what operations read and write; those that only look at memory anew count nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [
                each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)
            ]
            self.total += sum(each.nbytes for each in tensors)
        return out


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(action: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds of an action, after three that are not counted."""
    times = []
    for turn in range(repeats + 3):
        wait(device)
        begin = time.perf_counter()
        action()
        wait(device)
        if turn >= 3:
            times.append(time.perf_counter() - begin)
    return median(times)


def measure_card(device: torch.device) -> dict[str, float]:
    """Operations a second of a bfloat16 matrix product, and bytes a second of a copy."""
    side, length = (8192, 2**30) if device.type == "cuda" else (512, 2**24)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 9, (length,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "flops": 2 * side**3 / timed(lambda: a @ b, device, 10),
        "bytes": 2 * length / timed(lambda: target.copy_(source), device, 10),
    }


def open_run(recipe: Recipe, device: torch.device, mode: str) -> tuple[Callable[[int], Any], Any]:
    """A function that does a whole training step by its number, and what it is made of."""
    torch.manual_seed(0)
    task = SegmentationTask(recipe).to(device)
    bank = place_frames(collect_frames(recipe, cut_validation(recipe)), device)
    step = Step(
        task,
        TrainingBatches(recipe, bank),
        device,
        bfloat16=device.type == "cuda",
        graph=mode != "eager",
        compiled=mode == "compiled",
    )
    optimizer = task.build_optimizer(device)
    parameters = list(task.network.parameters())
    task.network.train()

    def run(number: int) -> None:
        step(number)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        task.follow(number)

    return run, task


def count_kernels(action: Callable[[], object], device: torch.device) -> int:
    """Kernels that an action starts; on a processor, operations."""
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=kinds) as record:
        action()
        wait(device)
    kind = torch.autograd.DeviceType.CUDA if device.type == "cuda" else None
    events = record.events() or []
    return sum(kind is None or each.device_type == kind for each in events)


def work_of(recipe: Recipe, device: torch.device) -> tuple[int, int]:
    """Operations of the convolutions and bytes of all operations of one view's share of a step."""
    small = recipe.model_copy(update={"batch_size": 4})
    run, _ = open_run(small, device, "eager")
    run(0)
    flops = FlopCounterMode(display=False)
    with flops:
        run(1)
    with CountBytes() as moved:
        run(2)
    return flops.get_total_flops() // 4, moved.total // 4


def measure_form(
    name: str,
    sets: str,
    batches: list[int],
    modes: list[str],
    device: torch.device,
    card: dict[str, float],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    crop = [f"augmentation.crop={options.crop}", "loss.warmup_steps=0", "validate_every=1000"]
    recipe = load_recipe(name, [sets, *crop, "steps=100000"])
    flops, moved = work_of(recipe, device)
    rows = []
    for mode in modes:
        for batch in batches:
            row: dict[str, Any] = {"form": name, "mode": mode, "batch": batch}
            try:
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(device)
                begin = time.perf_counter()
                run, _ = open_run(recipe.model_copy(update={"batch_size": batch}), device, mode)
                number = iter(range(10**6))
                action = lambda run=run, number=number: run(next(number))  # noqa: E731
                action()
                wait(device)
                row["prepared_s"] = time.perf_counter() - begin
                seconds = timed(action, device, options.repeats)
                row |= {
                    "ms": 1e3 * seconds,
                    "views_s": batch / seconds,
                    "kernels": count_kernels(action, device),
                    "of_peak": flops * batch / seconds / card["flops"],
                    "of_bandwidth": moved * batch / seconds / card["bytes"],
                }
                if device.type == "cuda":
                    row["gib"] = torch.cuda.max_memory_allocated(device) / 2**30
                    row["top"] = top_kernels(action, device)
            except (OptionError, torch.OutOfMemoryError) as error:
                row["failed"] = str(error)[:200]
            rows.append(row)
            show(row)
    return rows


def top_kernels(action: Callable[[], object], device: torch.device) -> list[list[Any]]:
    """The kernels that take most of a step: name, share of the time, calls."""
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        action()
        wait(device)
    events = sorted(record.key_averages(), key=lambda each: -each.self_device_time_total)
    total = sum(each.self_device_time_total for each in events) or 1
    return [[e.key[:90], round(e.self_device_time_total / total, 4), e.count] for e in events[:12]]


def show(row: dict[str, Any]) -> None:
    if "failed" in row:
        print(f"{row['form']:6}{row['mode']:>9}{row['batch']:6}  {row['failed']}", flush=True)
        return
    print(
        f"{row['form']:6}{row['mode']:>9}{row['batch']:6}{row['views_s']:10.0f}{row['ms']:9.2f}"
        f"{row['kernels']:8}{100 * row['of_peak']:8.1f} %{100 * row['of_bandwidth']:8.0f} %"
        f"{row.get('gib', 0):8.1f}   {row['prepared_s']:.1f} s to the first step",
        flush=True,
    )


def first_step(folder: Path, device: str, work: Path) -> list[float]:
    """Seconds of a whole process that trains one step and validates two frames, twice."""
    seconds = []
    for turn in range(2):
        command = [sys.executable, "-m", "pinglow", "train", "base", "--data", f"{folder}:train"]
        command += ["--device", device, "--run", str(work / f"run{turn}"), "--set", "steps=1"]
        begin = time.perf_counter()
        subprocess.run([*command, "--set", "data.validation=0.01"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
    return seconds


def measure_plain(folder: Path, device: torch.device, steps: int, workers: int) -> dict[str, Any]:
    """Views a second of the plain loop at its own batch of 4, and at 64."""
    found = {}
    for batch in (4, 64) if device.type == "cuda" else (4,):
        run = plain_loop(folder, batch, device=device.type, workers=workers)
        run(3)
        found[str(batch)] = batch / run(steps)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--batches", default="64,128,256,512,1024")
    parser.add_argument("--modes", default="graph", help="of graph, eager, compiled")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--frames", type=int, default=96, help="synthetic, 512 x 512")
    parser.add_argument("--workers", type=int, default=8, help="of the plain loop")
    parser.add_argument("--out", type=Path, default=Path("out/bench-gpu.json"))
    parser.add_argument("--dry", action="store_true", help="small numbers, to try it")
    options = parser.parse_args()
    if options.dry:
        options.batches, options.crop, options.repeats = "2", 64, 1
        options.frames, options.workers = 8, 0
    device = torch.device(str(choose_device(options.device, [TorchBackend])))
    card = measure_card(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    print(f"{name}: {card['flops'] / 1e12:.1f} TFLOP/s, {card['bytes'] / 1e12:.2f} TB/s")
    print(" ".join(COLUMNS))
    result: dict[str, Any] = {"device": name, "card": card, "rows": [], "asked": ASKED}
    torch.backends.cudnn.benchmark = device.type == "cuda"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "scenes"
        spec = SceneSpec(width=512, height=512, sensor=SENSORS[8])
        write_dataset(folder, options.frames, spec)
        sets = f"data.sets=[{{folder = '{folder.as_posix()}', split = 'train'}}]"
        batches = [int(each) for each in options.batches.split(",")]
        for form in options.forms.split(","):
            result["rows"] += measure_form(
                form, sets, batches, options.modes.split(","), device, card, options
            )
        result["first_step_s"] = first_step(folder, options.device, Path(place))
        print("start to first step, whole process:", result["first_step_s"])
        steps = 3 if options.dry else 40
        result["plain_views_s"] = measure_plain(folder, device, steps, options.workers)
        print("plain loop, views/s by batch:", result["plain_views_s"])
    for form in options.forms.split(","):
        speeds = [row.get("views_s", 0) for row in result["rows"] if row["form"] == form]
        ratio = max(speeds) / max(result["plain_views_s"].values())
        if not options.dry:  # there the views are smaller than the plain loop's
            asked = f"{max(speeds):.0f} views/s of {ASKED[form]} asked"
            print(f"{form}: {asked}, {ratio:.1f} x the plain loop")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1))
    print(options.out)


if __name__ == "__main__":
    main()
