"""`pinglow serve` as a process of its own, and what it takes of the machine."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).parents[2]
READY_SECONDS = 120  # a model is loaded and warmed up, maybe beside other work


@dataclass(frozen=True)
class Usage:
    """What the processes of a service hold together."""

    memory: int  # bytes, pages that processes share counted once
    files: int  # descriptors
    threads: int
    processes: int
    temporary: int  # files and folders


class Service:
    """A running service on a free port of the loopback, in a folder of its own."""

    def __init__(self, *options: str, model: str = "pinglow-fast") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="siege-"))
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        self.log = self.folder / "log.jsonl"
        self.port = _free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "pinglow", "serve", "--model", model]
        command += ["--port", str(self.port), *options]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "HOME": str(self.folder)}
        # What is converted once is kept, or each start would wait for it.
        environment.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=log
            )

    def __enter__(self) -> Service:
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, by force if need be, and take its folder away."""
        everyone = self.family() if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(40)
        for one in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait_ready(self, seconds: float = READY_SECONDS) -> float:
        """Wait until /readyz says 200; the seconds that took."""
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            if self.process.poll() is not None:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"the service ended with {self.process.returncode}\n{tail}")
            if self.status("/readyz") == 200:
                return time.monotonic() - begin
            time.sleep(0.05)
        raise SystemExit(f"the service was not ready within {seconds:.0f} s")

    def status(self, path: str, token: str | None = None) -> int:
        """The status of GET; 0: nobody answers."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.address + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def family(self) -> list[psutil.Process]:
        """The HTTP process and all that it has started."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """The processes that hold a model."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def holds(self, port: int) -> bool:
        """Whether a connection from a port is open at the side of the service."""
        lines = psutil.Process(self.process.pid).net_connections("tcp")
        return any(line.raddr and line.raddr.port == port for line in lines)

    def count(self, metric: str) -> float:
        """The value of a metric that has no labels."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=10) as answer:
            found = re.search(rf"^{metric} (\S+)$", answer.read().decode(), re.MULTILINE)
        if found is None:
            raise SystemExit(f"there is no metric {metric}")
        return float(found[1])

    def usage(self) -> Usage:
        memory = files = threads = processes = 0
        for one in self.family():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory += one.memory_full_info().pss
                files += one.num_fds()
                threads += one.num_threads()
                processes += 1
        return Usage(
            memory,
            files,
            threads,
            processes,
            sum(len(folders) + len(files) for _, folders, files in os.walk(self.temporary)),
        )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def make_frames(count: int = 16, side: int = 256) -> list[bytes]:
    """PNG files of 16 bits: clouds, noise, and a target in each."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] / side
    frames = []
    for _ in range(count):
        phase = generator.uniform(0, 6, 4)
        clouds = np.sin(5 * rows + phase[0]) + np.sin(7 * columns + phase[1])
        clouds += np.sin(9 * (rows + columns) + phase[2])
        counts = 9000 + 300 * clouds + generator.normal(0, 12, (side, side))
        y, x = generator.integers(20, side - 20, 2)
        counts[y - 1 : y + 2, x - 1 : x + 2] += 260
        buffer = io.BytesIO()
        Image.fromarray(counts.astype(np.uint16)).save(buffer, "PNG")
        frames.append(buffer.getvalue())
    return frames


@contextlib.contextmanager
def watched(service: Service, every: float) -> Iterator[list[Usage]]:
    """Take the usage every so many seconds while something else goes on."""
    import threading

    seen: list[Usage] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            with contextlib.suppress(psutil.Error):
                seen.append(service.usage())
            stop.wait(every)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def level(values: Sequence[float]) -> float:
    """What something is most of the time, at the least: a quarter lies below. Jobs come and go."""
    return float(np.percentile(values, 25))


def report(promises: dict[str, bool]) -> int:
    """Print what was promised and whether it held; the exit code."""
    for promise, held in promises.items():
        print(f"{'ok    ' if held else 'BROKEN'} {promise}", flush=True)
    return 0 if all(promises.values()) else 1
