"""What `pinglow archive run` costs beside the network, and whether its memory stays flat.

Each figure is printed beside what is promised of it:

- overhead: the same frames by the bare Predictor and by an archive run (listing, reading PNGs, one
  part a file), in turns; the ratio of the medians;
- memory: many small frames, as tar shards and as single files; resident memory in ten windows;
- scaling: units a second of two processes against one, each with one thread;
- listing: names of a store with a million objects, which are made up page by page.

Run `python benchmarks/bench_archive.py`; --dry runs all of it on few frames, which says nothing of
the figures. --only names one.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.archive.listing import list_sources
from pinglow.archive.local import run_units
from pinglow.archive.place import open_place
from pinglow.archive.run import run_archive
from pinglow.archive.settings import Settings, make_settings
from pinglow.archive.units import key_of, make_units
from pinglow.archive.work import Outcome, work_on

MIB = 2**20


def make_frame(random: np.random.Generator, side: int) -> NDArray[np.uint16]:
    counts = random.normal(3000, 20, (side, side))
    y, x = random.integers(5, side - 6, 2)
    counts[y : y + 2, x : x + 2] += 600
    return counts.astype(np.uint16)


def png(frame: NDArray[np.uint16]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Memory:
    """Resident memory, a few times a second."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def windows(self, count: int = 10) -> list[float]:
        """The largest of each tenth of the time, MiB."""
        parts = np.array_split(np.array(self.samples), count)
        return [float(part.max()) / MIB for part in parts if len(part)]

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._ended.wait(0.05):
            self.samples.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)


def overhead(folder: Path, settings: Settings, frames: int, rounds: int) -> None:
    random = np.random.default_rng(0)
    images = [make_frame(random, 256) for _ in range(frames)]
    (folder / "in").mkdir()
    for number, image in enumerate(images):
        (folder / "in" / f"{number:05d}.png").write_bytes(png(image))
    predictor = settings.load_predictor()

    def loaded(units: Any, _: Settings, place: Any, *, retry: bool) -> Iterator[Outcome]:
        return work_on(units, predictor, place, retry=retry)

    bare, archive = [], []
    for number in range(rounds + 1):
        begin = time.perf_counter()
        for image in images:
            predictor(image)
        middle = time.perf_counter()
        out = open_place(str(folder / f"out{number}"))
        done = run_archive([str(folder / "in")], settings, out, runner=loaded)
        end = time.perf_counter()
        assert done.frames == frames
        if number:  # the first round warms up
            bare.append(1000 * (middle - begin) / frames)
            archive.append(1000 * (end - middle) / frames)
    ratio = median(archive) / median(bare)
    print(
        f"overhead: {median(bare):.2f} ms a frame of 256 x 256 bare, {median(archive):.2f} ms in "
        f"an archive, {100 * (ratio - 1):+.1f} % ({frames} frames, {rounds} rounds; promised: "
        "under 5 %)"
    )


def memory(folder: Path, settings: Settings, frames: int) -> None:
    random = np.random.default_rng(0)
    contents = [png(make_frame(random, 64)) for _ in range(min(frames, 1000))]
    for kind in ("tar shards", "single files"):
        place = folder / kind
        place.mkdir()
        write_frames(place, contents, frames, shards=kind == "tar shards")
        begin = time.perf_counter()
        with Memory() as watched:
            done = run_archive([str(place)], settings, open_place(str(folder / f"out {kind}")))
        seconds = time.perf_counter() - begin
        assert done.frames == frames, done.problems[:3]
        windows = watched.windows()
        print(
            f"memory: {frames:,} frames of 64 x 64 as {kind}: {frames / seconds:.0f} a second, "
            f"MiB in ten windows {' '.join(f'{each:.0f}' for each in windows)} "
            f"(second to last {windows[-1] - windows[1]:+.0f}; promised: flat)"
        )
        shutil.rmtree(place)
        shutil.rmtree(folder / f"out {kind}")


def write_frames(place: Path, contents: list[bytes], frames: int, *, shards: bool) -> None:
    if not shards:
        for number in range(frames):
            name = place / f"{number // 1000:04d}" / f"{number:06d}.png"
            name.parent.mkdir(exist_ok=True)
            name.write_bytes(contents[number % len(contents)])
        return
    for first in range(0, frames, 1000):
        with tarfile.open(place / f"shard-{first // 1000:06d}.tar", "w") as tar:
            for number in range(first, min(first + 1000, frames)):
                content = contents[number % len(contents)]
                info = tarfile.TarInfo(f"{number:06d}.png")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def scaling(folder: Path, settings: Settings, frames: int, rounds: int) -> None:
    random = np.random.default_rng(0)
    (folder / "in").mkdir()
    for number in range(frames):
        (folder / "in" / f"{number:05d}.png").write_bytes(png(make_frame(random, 256)))
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers in rates:
            times: list[float] = []
            run_archive(
                [str(folder / "in")],
                settings,
                open_place(str(folder / f"out{number}-{workers}")),
                runner=partial(run_units, workers=workers),
                on_progress=lambda _, times=times: times.append(time.perf_counter()),
            )
            # From a tenth of the units on, when all processes have their model.
            first = frames // 10
            rates[workers].append((frames - first) / (times[-1] - times[first - 1]))
    one, two = (median(rates[workers]) for workers in (1, 2))
    print(
        f"scaling: {one:.1f} frames of 256 x 256 a second in one process, {two:.1f} in two, "
        f"{two / one:.2f} times ({len(os.sched_getaffinity(0))} cores; promised: 1.8 times "
        "where there are two free cores)"
    )


class Names(fsspec.AbstractFileSystem):
    """A store with many objects, whose names are made up as they are asked for."""

    protocol = "names"
    count = 0

    def split_path(self, path: str) -> tuple[str, str, None]:
        bucket, _, key = self._strip_protocol(path).partition("/")
        return bucket, key, None

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "directory", "size": 0}

    def call_s3(self, _: str, **asked: Any) -> dict[str, Any]:
        """A page of S3's ListObjectsV2."""
        first = int(asked.get("ContinuationToken", 0))
        end = min(first + 1000, self.count)
        return {
            "Contents": [
                {
                    "Key": f"2026/11/28/camera-{number % 16:02d}/{number:09d}.png",
                    "Size": 9000,
                    "ETag": f'"{number:032x}"',
                }
                for number in range(first, end)
            ],
            "IsTruncated": end < self.count,
            "NextContinuationToken": str(end),
        }


def listing(names: int) -> None:
    fsspec.register_implementation("names", Names, clobber=True)
    Names.count = names
    with Memory() as watched:
        time.sleep(0.2)
        before = watched.samples[-1]
        begin = time.perf_counter()
        first, seen = 0.0, 0
        for unit in make_units(list_sources(["names://bucket/2026"], print)):
            key_of(unit, "0" * 64, "{}")
            first = first or time.perf_counter() - begin
            seen += 1
        seconds = time.perf_counter() - begin
    assert seen == names
    print(
        f"listing: {names:,} names and their keys in {seconds:.1f} s, {names / seconds:,.0f} a "
        f"second, the first after {1000 * first:.0f} ms; memory grew by "
        f"{(max(watched.samples) - before) / MIB:.1f} MiB (promised: not all names are held)"
    )


def main() -> None:
    figures = ("overhead", "scaling", "listing", "memory")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="few frames")
    parser.add_argument("--only", choices=figures, action="append", help="repeat for several")
    parser.add_argument("--frames", type=int, help="of the figure of memory (default: 100,000)")
    parser.add_argument("--folder", type=Path, help="where frames and results are put for a while")
    given = parser.parse_args()
    settings = make_settings("pinglow-fast")
    few = given.dry
    for name in given.only or figures:
        with tempfile.TemporaryDirectory(prefix="bench-archive-", dir=given.folder) as place:
            folder = Path(place)
            if name == "overhead":
                overhead(folder, settings, 10 if few else 100, 1 if few else 5)
            elif name == "scaling":
                scaling(folder, settings, 40 if few else 200, 1 if few else 3)
            elif name == "listing":
                listing(10_000 if few else 1_000_000)
            else:
                memory(folder, settings, given.frames or (100 if few else 100_000))


if __name__ == "__main__":
    main()
