"""How many cores a process keeps busy: what the user, the container and its number say."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pinglow import process
from pinglow.process import limit_of_cores, take_share


@pytest.fixture(autouse=True)
def _free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(process, "_CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # whose threads are set, too
    del sys.modules["torch"]


@pytest.mark.parametrize(
    ("text", "count"),
    [("400000 100000", 4), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", None)],
)
def test_a_container_s_limit_is_its_cores(
    text: str, count: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert limit_of_cores() is None
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert limit_of_cores() == count
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert limit_of_cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert limit_of_cores() == count


@pytest.mark.parametrize(("processes", "share"), [(1, ""), (2, "4"), (3, "2"), (20, "1")])
def test_processes_share_the_cores(
    processes: int, share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # as good as not set
    take_share(processes)
    assert os.environ["OMP_NUM_THREADS"] == share


def test_the_user_s_number_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    take_share(2)
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_runtimes_keep_to_it(name: str) -> None:
    script = f"""
        import os, threading
        from contextlib import suppress
        from pinglow import Predictor
        import numpy as np

        free = os.sched_getaffinity(0)
        predictor = Predictor.load("pinglow-fast", backend={name!r})
        seen, done = [], threading.Event()

        def watch():
            while not done.is_set():
                threads = os.listdir("/proc/self/task")
                seen.append(len(threads))
                # Kept to one core each, processes beside each other would all take the same.
                for each in threads:
                    with suppress(ProcessLookupError):
                        assert os.sched_getaffinity(int(each)) == free
            os._exit(0)

        watching = threading.Thread(target=watch, daemon=True)
        threading.excepthook = lambda failure: os._exit(1)
        watching.start()
        predictor(np.zeros((300, 300), np.uint16))
        print(max(seen), flush=True)
        done.set()
    """
    counts = []
    for threads in ("1", "7"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        counts.append(int(done.stdout))
    assert counts[1] > counts[0]
