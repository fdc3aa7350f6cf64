"""An archive run on a Ray cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pinglow.archive import ray as runner
from pinglow.archive.merge import merge
from pinglow.archive.place import open_place
from pinglow.archive.plans import Keyed
from pinglow.archive.ray import run_on_ray
from pinglow.archive.run import run_archive
from pinglow.archive.settings import make_settings
from pinglow.archive.units import Unit
from pinglow.cli.archive import run
from pinglow.errors import MissingExtraError, OptionError


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Five frames with a target each, and a file that is none."""
    folder = tmp_path / "frames"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(5):
        counts = random.normal(3000, 20, (48, 48))
        counts[20:22, 10 + 5 * number : 12 + 5 * number] += 600
        Image.fromarray(counts.astype(np.uint16)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def members(session: int) -> dict[int, str]:
    """The processes of a session."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if os.getsid(int(entry.name)) == session:
                    line = (entry / "cmdline").read_bytes()
                    found[int(entry.name)] = line.decode(errors="replace")
            except OSError:
                continue
    return {pid: line for pid, line in found.items() if line}


def listens(pid: int) -> set[str]:
    """The addresses on which a process listens, as the kernel writes them."""
    sockets = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_a_cluster_does_what_one_process_does_and_listens_on_loopback(
    frames: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray.data", reason="needs Ray: pip install '.[ray]'")
    options = ["--backend", "onnxruntime", "--ray", "local", "--workers", "1"]
    command = ["archive", "run", str(frames), "--out", str(tmp_path / "two"), *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "pinglow", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    addresses: set[str] = set()
    while process.poll() is None and not list(tmp_path.glob("two/*/parts/*/*")):
        time.sleep(0.1)
    for pid in members(process.pid):
        try:
            addresses |= listens(pid)
        except OSError:
            continue
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "5 frames, 5 targets" in out
    assert "broken.png" in err
    assert "Warning" not in err
    assert addresses
    assert addresses <= LOOPBACK
    assert not members(process.pid)

    settings = make_settings("pinglow-fast", backend="onnxruntime")
    run_archive([str(frames)], settings, open_place(str(tmp_path / "one")))
    for name in ("one", "two"):
        merge(open_place(str(tmp_path / name)).below(settings.name), tmp_path / f"{name} tables")
    for table in ("targets.csv", "coco.json", "frames.parquet", "targets.parquet"):
        one, two = ((tmp_path / f"{name} tables" / table).read_bytes() for name in ("one", "two"))
        assert one == two


def test_without_ray_the_extra_is_named(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in (*runner._ENVIRONMENT, "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    settings = make_settings("pinglow-fast", backend="onnxruntime")
    with pytest.raises(MissingExtraError, match=r"--ray needs ray.*\[ray\]"):
        next(run_on_ray(iter([]), settings, open_place(str(tmp_path))))


def test_units_are_listed_as_windows_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_WINDOW", 10)
    listed = 0

    def units() -> Iterator[Keyed]:
        nonlocal listed
        for listed in range(1, 36):
            yield f"{listed:064x}", Unit(f"/{listed}.png", "")

    windows = runner._windows(units(), workers=1)
    assert len(next(windows)) == 10
    assert listed <= 20
    assert [len(window) for window in windows] == [10, 10, 5]


@pytest.mark.parametrize(
    ("address", "here"),
    [("local", True), ("127.0.0.1:6379", True), ("localhost:6379", True), ("10.0.0.5:6379", False)],
)
def test_only_this_machine_is_bound_to_loopback(address: str, here: bool) -> None:
    assert runner._is_here(address) is here


def test_a_share_of_a_card_is_for_a_cluster() -> None:
    with pytest.raises(OptionError, match="--gpus-per-worker is for --ray"):
        run(["frames"], "out", gpus=0.5)
