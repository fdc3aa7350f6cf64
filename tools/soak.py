"""Kill commands, fill their disks, share a model among threads and forks: nothing may be lost.

Each command is first run undisturbed. Then it is run again and again and killed (SIGKILL) at
another point each time: before the n-th change that it makes to its files, or after some time. The
command that goes on has to end in the same files as the undisturbed one, and with no others.

    make soak                                          50 points of each command
    python tools/soak.py --points 5 --only synth       a part
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak_command import LONGEST, Outcome, run_command

os.environ.setdefault("OMP_NUM_THREADS", "1")  # training repeats bit for bit on one thread

DISKS = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 400, 800, 1600)  # tenths of a percent

RECIPE = """\
name = "tiny"
steps = 6
validate_every = 3
batch_size = 2
ema_decay = 0.9
network = { type = "PinwheelUNet", widths = [4, 8], depths = [1, 1] }
loss = { warmup_steps = 2 }
optimizer = { warmup_steps = 1 }
augmentation = { crop = 32 }
input_rule = { max_scale = 1.0 }

[data]
root = "ROOT"
validation = 0.25
sets = [{ folder = "scenes", split = "train" }]
"""
STUDY = """\
name = "s"
recipe = "recipe.toml"
seeds = [0]
arms = [{ name = "x" }, { name = "y", set = { batch_size = 4 } }]
"""


@dataclass(frozen=True)
class Task:
    """A command, what goes on after it was killed, and what is compared at the end."""

    name: str
    command: str
    again: list[str]  # the first that is accepted
    results: str  # a folder
    ignored: tuple[str, ...] = ()  # beginnings of what differs from run to run


# OpenVINO changes its program for a shape that comes often, and with it a score's last digit.
PREDICT = "predict IN/scenes/images --backend onnxruntime --save csv,jsonl,mask,overlay --out OUT/o"
TASKS = [
    Task("predict", PREDICT, [f"{PREDICT} --resume"], "o"),
    Task(
        "train",
        "train IN/recipe.toml --run OUT/run",
        ["train --resume OUT/run", "train IN/recipe.toml --run OUT/run"],
        "run",
        ("tensorboard/", "last.ckpt", "curves.png"),
    ),
    Task(
        "study",
        "study IN/study.toml --out OUT/s --work OUT/work",
        ["study IN/study.toml --out OUT/s --work OUT/work"],
        "s",
    ),
    Task(
        "export",
        "export IN/tiny.safetensors --format onnx --out OUT/e",
        ["export IN/tiny.safetensors --format onnx --out OUT/e"],
        "e",
    ),
    Task(
        "synth",
        "data synth OUT/d --count 12 --size 64x64",
        [
            "data synth OUT/d --count 12 --size 64x64",
            "data synth OUT/d --count 12 --size 64x64 --overwrite",
        ],
        "d",
    ),
    Task(
        "convert",
        "data convert IN/scenes --split train --split val --to yolo --out OUT/y",
        ["data convert IN/scenes --split train --split val --to yolo --out OUT/y --overwrite"],
        "y",
    ),
]


# --- what is compared -----------------------------------------------------------------------------


def read_results(folder: Path, task: Task) -> dict[str, str]:
    """A digest of each file of a command's results, without what time alone decides."""
    place = folder / task.results
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.is_file() and not name.startswith(task.ignored):
            found[name] = hashlib.sha256(_timeless(path, folder)).hexdigest()[:12]
    return found


def _timeless(path: Path, folder: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".csv" and b"minutes" in content.split(b"\n", 1)[0]:
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        return repr([{k: v for k, v in row.items() if k != "minutes"} for row in rows]).encode()
    if path.suffix == ".json" and b'"curve"' in content:
        result = json.loads(content) | {"minutes": 0}
        for row in result["curve"]:
            row["minutes"] = ""
        return json.dumps(result).encode()
    if path.suffix == ".safetensors":  # the card tells minutes
        (length,) = struct.unpack_from("<Q", content)
        return content[8 + length :]
    return content.replace(str(folder).encode(), b"OUT")


def compare(expected: dict[str, str], found: dict[str, str]) -> str | None:
    """How the results differ; None: they do not. What a killed writer leaves hidden is not one."""
    left = {name for name in found.keys() - expected.keys() if not _is_part(name)}
    lost = expected.keys() - found.keys()
    other = {name for name in expected.keys() & found.keys() if expected[name] != found[name]}
    parts = (("left over", left), ("lost", lost), ("other", other))
    said = "; ".join(f"{word}: {', '.join(sorted(names)[:5])}" for word, names in parts if names)
    return said or None


def _is_part(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.startswith(".") and last.endswith(".part")


# --- the parts of the soak ------------------------------------------------------------------------


class Soak:
    """Runs the parts and counts what they find."""

    def __init__(self, place: Path, points: int) -> None:
        self.given, self.points = place / "given", points
        self.out = place / "out"
        self.failures: list[str] = []

    def fill(self, command: str) -> list[str]:
        return [
            each.replace("IN/", f"{self.given}/").replace("OUT/", f"{self.out}/")
            for each in command.split()
        ]

    def fresh(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def undisturbed(self, task: Task) -> tuple[dict[str, str], Outcome]:
        self.fresh()
        done = run_command(self.fill(task.command), self.out)
        if done.code:
            raise SystemExit(f"{task.name} fails undisturbed:\n{done.said}")
        return read_results(self.out, task), done

    def go_on(self, task: Task) -> str | None:
        """Go on with a command that was stopped; why it cannot."""
        refused = ""
        for command in task.again:
            done = run_command(self.fill(command), self.out)
            if done.code == 0 or "has done all of its" in done.said:  # it was killed at its end
                return None
            if done.code != 2 or "Traceback" in done.said:
                return f"exit code {done.code}: {done.said.strip()[-1500:]}"
            refused = done.said.strip()
        return f"refused: {refused[-500:]}"

    def kill(self, task: Task) -> None:
        """Kill a command at points that are spread over its changes and its time."""
        expected, whole = self.undisturbed(task)
        rng = random.Random(task.name)
        by_change = self.points - self.points // 5
        counts: Counter[str] = Counter()
        for point in range(self.points):
            self.fresh()
            if point < by_change:
                at = 1 + point * whole.changes // by_change
                what = f"before change {at} of {whole.changes}"
                done = run_command(self.fill(task.command), self.out, kill_at=at)
            else:
                after = rng.uniform(0, whole.seconds)
                what = f"after {after:.2f} of {whole.seconds:.2f} s"
                done = run_command(self.fill(task.command), self.out, kill_after=after)
            counts["killed" if done.code < 0 else "ended before"] += 1
            reason = self.go_on(task)
            if reason is not None and "delete it" in reason:
                counts["began anew in an emptied folder"] += 1
                self.fresh()
                reason = self.go_on(task)
            reason = reason or compare(expected, read_results(self.out, task))
            if reason:
                counts["WRONG"] += 1
                self.failures.append(f"{task.name}, killed {what}: {reason}")
        self.tell(f"kill {task.name}", counts, whole)

    def fill_disk(self, task: Task) -> None:
        """Run a command where files, or all of them together, may have no more than some size."""
        expected, whole = self.undisturbed(task)
        files = [path.stat().st_size for path in self.out.rglob("*") if path.is_file()]
        counts: Counter[str] = Counter()
        for share in DISKS:
            self._fill_one(task, expected, counts, largest=max(files) * share // 1000)
            self._fill_one(task, expected, counts, size=sum(files) * share // 1000)
        self.tell(f"disk {task.name}", counts, whole)

    def _fill_one(
        self,
        task: Task,
        expected: dict[str, str],
        counts: Counter[str],
        largest: int | None = None,
        size: int | None = None,
    ) -> None:
        self.fresh()
        with small_disk(self.out, size) as there:
            if not there:
                counts["not tried: mounting a disk needs root"] += 1
                return
            done = run_command(self.fill(task.command), self.out, largest=largest)
            where = f"of {size} bytes" if largest is None else f"with files of {largest} bytes"
            if done.code == 0:
                counts["fitted"] += 1
                return
            lines = [line for line in done.said.splitlines() if line.startswith("error: ")]
            if done.code != 2 or len(lines) != 1 or "Traceback" in done.said:
                counts["WRONG"] += 1
                said = done.said.strip()[-1500:]
                self.failures.append(f"{task.name}, disk {where}: exit code {done.code}\n{said}")
                return
            counts["one sentence"] += 1
            if largest is None:
                subprocess.run(["mount", "-o", "remount,size=1g", str(self.out)], check=True)
            reason = self.go_on(task)
            if reason is not None and "delete it" in reason:
                counts["began anew in an emptied folder"] += 1
                return
            reason = reason or compare(expected, read_results(self.out, task))
            if reason:
                counts["WRONG"] += 1
                self.failures.append(f"{task.name}, after a disk {where}: {reason}")

    def tell(self, what: str, counts: Counter[str], whole: Outcome) -> None:
        figures = ", ".join(f"{word} {number}" for word, number in counts.items())
        print(
            f"{what}: {figures} ({whole.changes} changes, {whole.seconds:.1f} s undisturbed)",
            flush=True,
        )


@contextmanager
def small_disk(folder: Path, size: int | None) -> Iterator[bool]:
    """A disk of so many bytes in the folder's place; None: leave it as it is."""
    if size is None:
        yield True
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def share_model(backend: str, way: str) -> str:
    """One predictor in eight threads, or in forks made after it was used; what came of it."""
    script = Path(__file__).with_name("soak_sharing.py")
    command = [sys.executable, str(script), backend, way]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return "HANGS"
    if done.returncode:
        return "WRONG: " + (done.stdout + done.stderr).strip()[-800:]
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=50, help="at which each command is killed")
    names = [task.name for task in TASKS]
    parser.add_argument("--only", choices=names, action="append", help="default: all commands")
    parser.add_argument("--part", choices=("kill", "disk", "sharing"), action="append")
    asked = parser.parse_args()
    parts = asked.part or ["kill", "disk", "sharing"]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        soak = Soak(Path(name), asked.points)
        prepare(soak.given)
        for task in TASKS:
            if task.name in (asked.only or names):
                if "kill" in parts:
                    soak.kill(task)
                if "disk" in parts:
                    soak.fill_disk(task)
    if "sharing" in parts:
        for backend in ("onnxruntime", "openvino", "torch"):
            for way in ("threads", "forks"):
                told = share_model(backend, way)
                print(f"{way} {backend}: {told}", flush=True)
                if told.startswith(("WRONG", "HANGS")):
                    soak.failures.append(f"{way}, {backend}: {told}")
    for reason in soak.failures:
        print(f"\nWRONG {reason}")
    print(f"{len(soak.failures)} failures in {(time.monotonic() - begin) / 60:.0f} minutes")
    return int(bool(soak.failures))


def prepare(given: Path) -> None:
    """Import what commands need, run nothing that starts threads, and write what they read."""
    import importlib

    import torch

    from pinglow.data.synthetic.scenes import SceneSpec, write_dataset
    from pinglow.models.card import ModelCard
    from pinglow.models.registry import build_network
    from pinglow.models.weights import save_model

    for module in ("cli.main", "study.run", "study.jobs", "training.fit", "inference.pipeline"):
        importlib.import_module(f"pinglow.{module}")
    for module in ("torch._dynamo", "torch.utils.tensorboard", "matplotlib.pyplot", "tifffile"):
        importlib.import_module(module)
    spec = SceneSpec(width=64, height=64, targets=(1, 2), snr=(20, 30))
    write_dataset(given / "scenes", 14, spec, kinds=("gradient",))
    config = {"type": "PinwheelUNet", "widths": [4, 8], "depths": [1, 1]}
    torch.manual_seed(0)
    card = ModelCard(name="tiny", network=config, parameters=1)
    save_model(given / "tiny.safetensors", build_network(config), card)
    trace_once(given / "tiny.safetensors")
    (given / "recipe.toml").write_text(RECIPE.replace("ROOT", str(given)))
    (given / "study.toml").write_text(STUDY)


def trace_once(weights: Path) -> None:
    """Give all exports the graph of these weights: to trace it takes many seconds and no file."""
    import onnx

    from pinglow.models import conversion
    from pinglow.models.weights import load_network

    trace = conversion._trace
    kept: list[bytes] = []

    def keep(*given: Any) -> Any:
        kept.append(trace(*given).SerializeToString())
        return onnx.load_from_string(kept[0])

    conversion._trace = keep
    conversion.convert_to_onnx(*load_network(weights))
    conversion._trace = lambda *_: onnx.load_from_string(kept[0])


if __name__ == "__main__":
    sys.exit(main())
