"""Kill workers, nodes and drivers of a Ray cluster of two nodes: no frame may be lost or doubled.

Two raylets on this machine are the nodes; all of it listens on loopback and asks for a token. An
archive is run on them again and again, and each time, at another moment, something is killed
(SIGKILL): a worker, the second node, the driver, or the first node with the driver on it. The run
goes on, or where the driver is dead the same command is started again. It has to end in the same
tables as a run of one process, byte for byte. All that was started is stopped at the end.

    make cluster-kill                               20 moments
    python tools/cluster_kill.py --moments 4        one of each kind
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.parquet as pq
import tifffile
from PIL import Image

from pinglow.archive.merge import merge
from pinglow.archive.place import open_place
from pinglow.archive.status import choose_results

KINDS = ("worker", "node", "driver", "head")
LONGEST = 300  # seconds of a run
TABLES = ("targets.parquet", "frames.parquet", "targets.csv", "coco.json")

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 stays 127.0.0.1
    "RAY_USAGE_STATS_ENABLED": "0",
    # A dead node is noticed within seconds.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}


class Cluster:
    """Two nodes, in a session of processes of their own."""

    def __init__(self, log: IO[bytes]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--nodes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            self._listen()
        except BaseException:
            self.stop()
            raise

    def add_node(self) -> None:
        """A second node, in the place of one that is dead."""
        assert self._process.stdin is not None
        self._process.stdin.write("add\n")
        self._process.stdin.flush()
        self._listen()

    def processes(self) -> dict[int, str]:
        """What runs in it: command lines by number."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    after = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(after[3]) == self._process.pid and after[0] != "Z":
                        line = (entry / "cmdline").read_bytes()
                        found[int(entry.name)] = line.replace(b"\0", b" ").decode()
                except OSError:  # it has just ended
                    continue
        return found

    def workers(self) -> list[int]:
        """The actors that have a model, or load one."""
        return [pid for pid, line in self.processes().items() if line.startswith("ray::MapWorker")]

    def stop(self) -> None:
        """End all of it."""
        while left := self.processes():
            for pid in left:
                kill(pid)
            time.sleep(0.1)
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                told = json.loads(line)
                self.address, self.raylets = told["address"], told["raylets"]
                return
        raise SystemExit("the cluster did not start")


def serve_nodes() -> None:
    """Start two nodes, and another one for each line that comes; until no more lines come."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
    cluster = Cluster()
    head = cluster.add_node(**size, include_dashboard=False, no_monitor=True)
    for _ in itertools.chain([None], sys.stdin):
        other = cluster.add_node(**size)
        raylets = [node.all_processes["raylet"][0].process.pid for node in (head, other)]
        print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def make_frames(folder: Path, count: int) -> int:
    """Images, a tar file and a stack of frames with a target each; how many frames there are."""
    random = np.random.default_rng(0)
    folder.mkdir()

    def frame() -> np.ndarray:
        counts = random.normal(3000, 20, (64, 64))
        y, x = random.integers(5, 58, 2)
        counts[y : y + 2, x : x + 2] += 600
        return counts.astype(np.uint16)

    def png() -> bytes:
        file = io.BytesIO()
        Image.fromarray(frame()).save(file, "PNG")
        return file.getvalue()

    for number in range(count):
        (folder / f"{number:05d}.png").write_bytes(png())
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for number in range(20):
            content = png()
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    pages = np.stack([frame() for _ in range(10)])
    tifffile.imwrite(folder / "stack.tif", pages, photometric="minisblack")
    return count + 20 + 10


def start(frames: Path, out: Path, log: IO[bytes], *options: str) -> subprocess.Popen[bytes]:
    """Start an archive run."""
    command = ["archive", "run", str(frames), "--out", str(out), *options]
    return subprocess.Popen([sys.executable, "-m", "pinglow", *command], stdout=log, stderr=log)


def wait(run: subprocess.Popen[bytes]) -> int:
    """Its exit code; that of one that takes too long is -9."""
    try:
        return run.wait(LONGEST)
    except subprocess.TimeoutExpired:
        run.kill()
        return run.wait()


def count_parts(out: Path) -> int:
    return sum(1 for _ in out.glob("*/parts/*/*.parquet"))


def read_tables(out: Path, tables: Path) -> tuple[dict[str, bytes], Counter[Any]]:
    """The merged tables, and how often each frame is in them."""
    place = open_place(str(out))
    merge(place.below(choose_results(place, None)), tables)
    rows = pq.read_table(tables / "frames.parquet", columns=["source", "frame"]).to_pylist()
    frames = Counter((row["source"], row["frame"]) for row in rows)
    return {name: (tables / name).read_bytes() for name in TABLES}, frames


class Trial:
    """Runs with something killed, and what came of them."""

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.failures = folder, 0
        self.frames = folder / "frames"
        count = make_frames(self.frames, images)
        self.units = images + 2
        self.log = (folder / "log").open("ab")
        begin = time.monotonic()
        if wait(start(self.frames, folder / "one", self.log)):
            raise SystemExit(f"the run of one process failed: see {self.log.name}")
        self.expected, self.once = read_tables(folder / "one", folder / "tables")
        assert sorted(self.once.values()) == [1] * count
        print(f"{count} frames in {self.units} units; one process: {since(begin)}", flush=True)
        self.cluster = Cluster(self.log)

    def run(self, kind: str, parts: int) -> None:
        """Kill something once so many parts are there."""
        begin = time.monotonic()
        out = self.folder / "out"
        command = (self.frames, out, self.log, "--ray", self.cluster.address)
        run = start(*command)
        while count_parts(out) < parts and run.poll() is None:
            time.sleep(0.02)
        there = count_parts(out)
        missed = run.poll() is not None
        if kind == "driver":
            run.kill()
        else:
            workers = self.cluster.workers()
            victims = {"worker": workers[:1], "node": self.cluster.raylets[1:]}
            for pid in victims.get(kind, self.cluster.raylets[:1]):
                kill(pid)
        code, runs = wait(run), 1
        if kind == "head":
            self.cluster.stop()
            self.cluster = Cluster(self.log)
        elif kind == "node":
            self.cluster.add_node()
        # A run whose driver is alive goes on by itself.
        while code and kind in ("driver", "head") and runs < 3:
            code, runs = wait(start(*command[:-1], self.cluster.address)), runs + 1
        self._judge(kind, there, code, runs, missed, since(begin))
        shutil.rmtree(out)

    def _judge(self, kind: str, there: int, code: int, runs: int, missed: bool, took: str) -> None:
        out = self.folder / "out"
        tables, frames = read_tables(out, self.folder / "tables")
        lost = len(self.once.keys() - frames.keys())
        doubled = sum(number - 1 for number in frames.values())
        equal = tables == self.expected
        good = code == 0 and not lost and not doubled and equal and not missed
        self.failures += not good
        print(
            f"{'' if good else 'FAILED '}{kind} killed with {there} of {self.units} parts there: "
            f"{'ended before' if missed else 'went on' if runs == 1 else 'run again'}, exit code "
            f"{code}, {lost} lost, {doubled} doubled, tables {'equal' if equal else 'DIFFER'}; "
            f"{took}",
            flush=True,
        )


def since(begin: float) -> str:
    return f"{time.monotonic() - begin:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=20, help="how many runs")
    parser.add_argument("--images", type=int, default=200, help="of each run")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    parser.add_argument("--nodes", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.nodes:
        serve_nodes()
        return
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="kill-"))
    os.environ["RAY_TMPDIR"] = str(folder)
    trial = None
    try:
        trial = Trial(folder, given.images)
        for moment in range(given.moments):
            parts = 1 + (trial.units - 40) * moment // max(1, given.moments - 1)
            trial.run(KINDS[moment % len(KINDS)], parts)
        failures = trial.failures
    finally:
        if trial is not None:
            trial.cluster.stop()
        if given.keep:
            print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{given.moments - failures} of {given.moments} moments: nothing lost, nothing doubled")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
