"""How fast pinglow trains on a GPU, against the card's own limits and against a plain loop.

Sections, each of which is in the JSON file as soon as an entry of it is measured:

    card        rate of a large bfloat16 matrix product, and of a large copy
    plain       the plain loop of `plain_loop.py`, at its own batch of 4 and at 64
    work        a view's operations, and the bytes that a step moves: for each view, and anyway
    rows        each form at each batch: views a second, and its share of the card's rates
    first_step  start of a process to the end of its first step; the second time on warm caches
    best        each form's fastest row: its share of the views a second that are asked for, how
                many times the plain loop's, how many kernels a step is, and what takes longest

Operations are those of convolutions, counted by PyTorch. Bytes are what a step's operations read
and write when each is a kernel of its own, so a fused step may reach more than all of the
bandwidth. What cannot be measured has its reason there, and the rest goes on.

Run `make bench-gpu`; or, from a checkout without installing, where the packages of pinglow's extra
`train` are there, `PYTHONPATH=src python benchmarks/bench_gpu.py --out FILE`. `--device cpu --dry`
tries all of it on a processor with small numbers.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pinglow.backends.device import choose_device
from pinglow.backends.torch import TorchBackend
from pinglow.data.augment.views import FrameBank
from pinglow.data.synthetic.scenes import SENSORS, SceneSpec, write_dataset
from pinglow.files import write_whole
from pinglow.training.batches import TrainingBatches, collect_frames, place_frames
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe
from pinglow.training.segmentation import SegmentationTask
from pinglow.training.splits import cut_validation
from pinglow.training.step import Step
from plain_loop import plain_loop

ASKED = {"fast": 20_000, "base": 10_000, "paper": 4_000}  # views a second on one H100
CHILD_SECONDS = 90  # that a process may take to its first step


class Report:
    """What has been measured so far, in a file that is whole after every entry.

    Args:
        path: The file.
        device: On which is measured; its memory is free at the start of each entry.
        minutes: After which no entry is begun.
    """

    def __init__(self, path: Path, device: torch.device, minutes: float) -> None:
        self._path, self._device = path, device
        self._end = time.monotonic() + 60 * minutes
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
        self._content: dict[str, Any] = {"device": name, "asked": ASKED}

    def add(
        self,
        section: str,
        about: dict[str, Any],
        measure: Callable[..., dict[str, Any]],
        *arguments: Any,
    ) -> dict[str, Any]:
        """Measure, and keep what comes out, or why nothing does."""
        entry = dict(about)
        try:
            if time.monotonic() > self._end:
                raise TimeoutError("no time is left for it, see --minutes")
            gc.collect()  # graphs of the last entry are in cycles
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(self._device)
            entry |= measure(*arguments)
        except Exception as error:  # of any kind: the other entries matter
            entry["failed"] = reason(error)
        self._content.setdefault(section, []).append(entry)
        write_whole(self._path, json.dumps(self._content, indent=1).encode())
        values = (f"{name} {rounded(value)}" for name, value in entry.items() if name != "top")
        print(f"{section}: {', '.join(values)}", flush=True)
        return entry


def reason(error: Exception) -> str:
    """One line: what went wrong, and the end of what a child process said of it."""
    said = (getattr(error, "stderr", None) or b"").decode(errors="replace")
    line = " ".join(f"{type(error).__name__}: {error} {said}".split())
    return line if len(line) < 600 else f"{line[:200]} ... {line[-400:]}"


def rounded(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)


def timed(action: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Mean seconds of an action, started again without waiting for the last one to end."""

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    begin = wait()
    while wait() - begin < 0.3:  # an idle card has a low clock
        action()
    begin = wait()
    for _ in range(repeats):
        action()
    return (wait() - begin) / repeats


def measure_card(device: torch.device) -> dict[str, Any]:
    side, length = (8192, 2**30) if device.type == "cuda" else (512, 2**24)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 9, (length,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "tflop_s": 2e-12 * side**3 / timed(lambda: a @ b, device, 20),
        "tb_s": 2e-12 * length / timed(lambda: target.copy_(source), device, 20),
    }


class CountBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums what operations read and write; those that only look at memory anew count nothing."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            leaves = tree_leaves((args, kwargs, out))
            self.total += sum(each.nbytes for each in leaves if isinstance(each, Tensor))
        return out


class Form:
    """A recipe on the scenes, which are read when they are first needed.

    Args:
        name: The recipe's.
        folder: The scenes.
        crop: Pixels of a view along one side.
        device: Where it is trained.
    """

    def __init__(self, name: str, folder: Path, crop: int, device: torch.device) -> None:
        self.name, self.device = name, device
        self._changes = {
            "data.sets": [{"folder": str(folder), "split": "train"}],
            "augmentation.crop": crop,
            "loss.warmup_steps": 0,
            "validate_every": 1000,
            "steps": 100_000,
        }

    @cached_property
    def recipe(self) -> Recipe:
        return load_recipe(self.name, self._changes)

    @cached_property
    def bank(self) -> FrameBank:
        return place_frames(collect_frames(self.recipe, cut_validation(self.recipe)), self.device)

    def open_run(self, mode: str, batch: int) -> Callable[[], None]:
        """A function that does the next training step."""
        torch.manual_seed(0)
        if mode == "compiled":
            torch.compiler.reset()  # after some versions of a function it compiles no more
        recipe = self.recipe.model_copy(update={"batch_size": batch})
        task = SegmentationTask(recipe).to(self.device)
        step = Step(
            task,
            TrainingBatches(recipe, self.bank),
            self.device,
            bfloat16=self.device.type == "cuda",
            graph=mode != "eager",
            compiled=mode == "compiled",
        )
        optimizer = task.build_optimizer(self.device)
        parameters = list(task.network.parameters())
        task.network.train()
        numbers = itertools.count()

        def run() -> None:
            number = next(numbers)
            step(number)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            task.follow(number)

        return run

    def count_work(self) -> dict[str, Any]:
        """What a step takes: the optimizer's share, for one, does not grow with the batch."""
        flops, moved = {}, {}
        for batch in (2, 4):
            run = self.open_run("eager", batch)
            run()
            counted = CountBytes()  # type: ignore[no-untyped-call]
            with FlopCounterMode(display=False) as counter, counted:
                run()
            flops[batch] = sum(
                count
                for operation, count in counter.get_flop_counts()["Global"].items()
                if "convolution" in str(operation)  # not how views are cut, in float32
            )
            moved[batch] = counted.total
        view = (moved[4] - moved[2]) / 2
        return {
            "gflop_view": 1e-9 * (flops[4] - flops[2]) / 2,
            "gb_view": 1e-9 * view,
            "gb_fixed": 1e-9 * (moved[4] - 4 * view),
        }

    def time_steps(
        self, mode: str, batch: int, repeats: int, card: dict[str, Any], work: dict[str, Any]
    ) -> dict[str, Any]:
        _ = self.bank  # read before the clock starts
        begin = time.perf_counter()
        run = self.open_run(mode, batch)
        run()
        prepared = time.perf_counter() - begin
        seconds = timed(run, self.device, repeats)
        row = {"views_s": batch / seconds, "ms": 1e3 * seconds, "prepared_s": prepared}
        if "failed" not in card | work:
            row["of_peak"] = work["gflop_view"] * batch / seconds / 1e3 / card["tflop_s"]
            moved = work["gb_fixed"] + work["gb_view"] * batch
            row["of_bandwidth"] = moved / seconds / 1e3 / card["tb_s"]
        if self.device.type == "cuda":
            row["gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        return row

    def profile_step(self, mode: str, batch: int) -> dict[str, Any]:
        """How many kernels a step is, and those that take most of it: name, share, calls."""
        kind = self.device.type.upper()  # on a processor operations instead
        run = self.open_run(mode, batch)
        run(), run()
        with profile(activities=[getattr(ProfilerActivity, kind)]) as record:
            run()
            if kind == "CUDA":
                torch.cuda.synchronize(self.device)
        own = "self_device_time_total" if kind == "CUDA" else "self_cpu_time_total"
        times = {
            each: getattr(each, own)
            for each in record.key_averages()
            if each.device_type.name == kind and not each.is_user_annotation
        }
        top = sorted(times, key=lambda each: -times[each])[:12]
        total = sum(times.values())
        return {
            "kernels": sum(each.count for each in times),
            "top": [[each.key[:90], round(times[each] / total, 4), each.count] for each in top],
        }


def measure_plain(
    folder: Path, batch: int, device: torch.device, workers: int, steps: int
) -> dict[str, Any]:
    run = plain_loop(folder, batch, device=str(device), workers=workers)
    # Uses up the two batches that each worker has ready when the card has chosen its kernels.
    run(2 * workers + 3)
    seconds = run(steps)
    return {"views_s": batch / seconds, "ms": 1e3 * seconds}


def first_step(folder: Path, device: torch.device, run: Path) -> dict[str, Any]:
    """Seconds of a whole process that trains one step and validates a few frames."""
    command = [sys.executable, "-m", "pinglow", "train", "base", "--data", f"{folder}:train"]
    command += ["--device", str(device), "--run", str(run), "--set", "steps=1"]
    command += ["--set", "data.validation=0.01"]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=CHILD_SECONDS)
    return {"seconds": time.perf_counter() - begin}


def measure_all(
    report: Report, options: argparse.Namespace, device: torch.device, place: Path
) -> None:
    folder = place / "scenes"
    spec = SceneSpec(width=512, height=512, sensor=SENSORS[8])
    write_dataset(folder, options.frames, spec)
    card = report.add("card", {}, measure_card, device)
    plain = []
    for batch in (4, 64) if device.type == "cuda" else (4,):
        arguments = (folder, batch, device, options.workers, 3 if options.dry else 40)
        plain.append(report.add("plain", {"batch": batch}, measure_plain, *arguments))
    forms = [Form(name, folder, options.crop, device) for name in options.forms.split(",")]
    works = [report.add("work", {"form": form.name}, form.count_work) for form in forms]
    # Small batches of all forms first: they need the least time and memory.
    rows: dict[tuple[Form, str], list[dict[str, Any]]] = {}
    for batch in map(int, options.batches.split(",")):
        for mode in options.modes.split(","):
            for form, work in zip(forms, works, strict=True):
                about = {"form": form.name, "mode": mode, "batch": batch}
                given = (mode, batch, options.repeats, card, work)
                row = report.add("rows", about, form.time_steps, *given)
                rows.setdefault((form, mode), []).append(row)
    for turn in (1, 2):
        report.add("first_step", {"turn": turn}, first_step, folder, device, place / f"run{turn}")
    theirs = max(each.get("views_s", 0) for each in plain)
    # Last: what a profiler leaves attached slows all that follows.
    for (form, mode), found in rows.items():
        best = max(found, key=lambda row: row.get("views_s", 0))
        if "views_s" not in best:
            continue  # nothing of it runs
        about = {"form": form.name, "mode": mode, "batch": best["batch"]}
        about["of_asked"] = best["views_s"] / ASKED.get(form.name, float("inf"))
        about["of_plain"] = best["views_s"] / (theirs or float("inf"))
        report.add("best", about, form.profile_step, mode, best["batch"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--forms", default="fast,base,paper", help="recipes")
    parser.add_argument("--batches", default="64,256,1024")
    parser.add_argument("--modes", default="graph", help="of graph, eager, compiled")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=10, help="steps that are timed together")
    parser.add_argument("--frames", type=int, default=32, help="synthetic, 512 x 512")
    parser.add_argument("--workers", type=int, default=8, help="of the plain loop")
    parser.add_argument("--minutes", type=float, default=5, help="after which nothing is begun")
    parser.add_argument("--out", type=Path, default=Path("out/bench-gpu.json"))
    parser.add_argument("--dry", action="store_true", help="small numbers, which mean nothing")
    options = parser.parse_args()
    if options.dry:
        options.batches, options.crop, options.repeats = "2", 64, 1
        options.frames, options.workers = 8, 0
    device = torch.device(str(choose_device(options.device, [TorchBackend])))
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    report = Report(options.out, device, options.minutes)
    with tempfile.TemporaryDirectory() as place:
        measure_all(report, options, device, Path(place))
    print(options.out)


if __name__ == "__main__":
    main()
