"""What 10^9 frames on 100 nodes take from an object store: requests, keys, parts, hours and money.

A calculation, not a measurement. Sizes of parts and manifests are those that pinglow writes; what a
page of names takes, how fast a node is and all prices are assumptions, which are options.

    python experiments/scripts/archive_scale.py
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from pinglow import Predictor
from pinglow.archive.parts import Rows
from pinglow.archive.plans import _chunk_content
from pinglow.archive.units import Unit, key_of

PAGE = 1000  # names of a page of a listing
KEY = 64  # bytes of a key in memory


@dataclass(frozen=True)
class Layout:
    """How frames lie in the store."""

    name: str
    per_object: int  # frames
    per_unit: int
    reads: int  # GET requests of a unit


LAYOUTS = (
    Layout("a frame a file", 1, 1, 1),
    Layout("tar files of 1,000", 1000, 1000, 350),  # 1 MiB at a time
    Layout("clips of 90,000", 90_000, 2000, 700),
)


def part_bytes(frames: int, targets: float) -> int:
    """Size of a part, with so many targets a frame."""
    random = np.random.default_rng(0)
    counts = random.normal(3000, 20, (64, 64))
    empty = Predictor.load("pinglow-fast", backend="onnxruntime")
    found = []
    for _ in range(8):
        frame = counts.copy()
        y, x = random.integers(5, 58, 2)
        frame[y : y + 2, x : x + 2] += 600
        found.append(empty(frame))
    nothing = empty(counts)
    rows = Rows()
    for number in range(frames):
        hit = random.random() < targets
        rows.add(
            f"s3://bucket/2026/11/28/camera-07/{number // 1000:09d}.tar/{number:09d}.png",
            number,
            None,
            (512, 512),
            found[number % 8] if hit else nothing,
        )
    return len(rows.content())


def manifest_bytes() -> float:
    """Bytes of a unit in a manifest."""
    units = [
        Unit(f"s3://bucket/2026/11/28/camera-07/{number:09d}.png", f"{number:032x}", size=350_000)
        for number in range(5000)
    ]
    return len(_chunk_content([(key_of(unit, "0" * 64, "{}"), unit) for unit in units])) / 5000


def say(name: str, values: list[str]) -> None:
    print(f"| {name} | {' | '.join(values)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    number = parser.add_argument
    number("--frames", type=float, default=1e9)
    number("--nodes", type=int, default=100)
    number("--targets", type=float, default=0.1, help="a frame")
    number("--frame-bytes", type=float, default=350e3, help="of a frame as it is stored")
    number("--rate", type=float, default=250, help="frames a second and node")
    number("--page-seconds", type=float, default=0.1, help="of a page of 1,000 names")
    number("--merge-rate", type=float, default=200, help="parts a second that a merge reads")
    number("--list-price", type=float, default=0.005, help="US$ for 1,000 LIST or PUT requests")
    number("--get-price", type=float, default=0.0004, help="US$ for 1,000 GET requests")
    number("--month-price", type=float, default=0.023, help="US$ for a GB and month")
    number("--node-price", type=float, default=0.71, help="US$ for an hour of a node")
    given = parser.parse_args()

    columns = []
    for layout in LAYOUTS:
        objects = given.frames / layout.per_object
        units = given.frames / layout.per_unit
        part = part_bytes(layout.per_unit, given.targets)
        pages, key_pages = objects / PAGE, units / PAGE + 256
        shared = pages * given.nodes  # each node lists all and takes its share of the names
        gets = units * layout.reads
        fixed = units * (given.list_price + layout.reads * given.get_price) / 1000
        one = fixed + (pages + key_pages) * given.list_price / 1000
        many = fixed + (shared + key_pages * given.nodes) * given.list_price / 1000
        columns.append(
            {
                "objects": f"{objects:,.0f}",
                "units, and parts": f"{units:,.0f}",
                "bytes of a part": f"{part:,}",
                "all parts, GB": f"{units * part / 1e9:,.1f}",
                "manifest, GB": f"{units * manifest_bytes() / 1e9:,.2f}",
                "LIST requests, listed once": f"{pages:,.0f}",
                "hours of that, one after the other": f"{pages * given.page_seconds / 3600:,.2f}",
                f"LIST requests, {given.nodes} shards of one prefix": f"{shared:,.0f}",
                "LIST requests for keys": f"{key_pages:,.0f}",
                "keys in memory, GB a lister": f"{units * KEY / 1e9:,.3f}",
                "GET requests": f"{gets:,.0f}",
                "PUT requests": f"{units:,.0f}",
                "requests, US$, listed once": f"{one:,.0f}",
                f"requests, US$, {given.nodes} shards of one prefix": f"{many:,.0f}",
                "parts, US$ a month": f"{units * part / 1e9 * given.month_price:,.2f}",
                "hours of a merge": f"{units / given.merge_rate / 3600:,.1f}",
            }
        )
    hours = given.frames / given.rate / given.nodes / 3600
    print(
        f"{given.frames:,.0f} frames on {given.nodes} nodes at {given.rate:g} frames a second: "
        f"{hours:.1f} hours, US$ {hours * given.nodes * given.node_price:,.0f} for the nodes; "
        f"{given.rate * given.frame_bytes * 8 / 1e9:.2f} Gbit/s into each. The frames themselves "
        f"take {given.frames * given.frame_bytes / 1e12:,.0f} TB, US$ "
        f"{given.frames * given.frame_bytes / 1e9 * given.month_price:,.0f} a month.\n"
    )
    say("", [layout.name for layout in LAYOUTS])
    say("---", ["---:"] * len(LAYOUTS))
    for name in columns[0]:
        say(name, [column[name] for column in columns])


if __name__ == "__main__":
    main()
