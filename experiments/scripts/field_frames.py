"""Make training folders of clips with boxes, and of streets and clouds without targets.

python experiments/scripts/field_frames.py DIR OUT

DIR has ir-drone, roadscene and lwir-clouds. OUT gets clips, roadscene and lwir-clouds, each with
images, masks, train.txt and val.txt. A clip gives every 45th frame, with masks grown from its boxes
as `pinglow data import` does. Every 14th clip validates, and two blocks of the streets and clouds.
OUT/held links those clips, for tracks.py and large_targets.py, and the streets of val.txt.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinglow.data.cores import grow_core
from pinglow.io.frames import read_frame
from pinglow.io.labels.marks import Box
from pinglow.io.video import read_video

EVERY, FIRST = 45, 20  # frames of a clip
HELD = slice(7, None, 14)  # clips that validate
BLOCKS = (1 / 5, 3 / 5)  # where a block of a tenth that validates begins
GAP = 2  # frames beside a block that nobody uses: neighbors are alike


def make_folder(folder: Path) -> None:
    """A data folder without frames."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)


def write_frame(folder: Path, name: str, frame: NDArray[Any], mask: NDArray[np.bool_]) -> None:
    """A frame and its mask as PNG."""
    Image.fromarray(frame).save(folder / "images" / f"{name}.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")


def write_list(path: Path, names: list[str]) -> None:
    """One name a line."""
    path.write_text("".join(f"{name}\n" for name in names))


def make_clips(source: Path, folder: Path) -> None:
    """Frames of clips with masks grown from their boxes."""
    make_folder(folder)
    clips = sorted(source.glob("*.mp4"))
    names: dict[bool, list[str]] = {True: [], False: []}
    for path in clips:
        boxes = defaultdict(list)
        with path.with_suffix(".csv").open() as file:
            for row in csv.DictReader(file):
                box = Box(*(float(row[key]) for key in ("x", "y", "w", "h")))
                boxes[int(row["frame"])].append(box)
        for number, frame in enumerate(read_video(path)):
            if number % EVERY != FIRST:
                continue
            counts = np.asarray(frame.counts, dtype=np.uint8)
            mask = np.zeros(counts.shape, dtype=np.bool_)
            for box in boxes[number]:
                core = grow_core(counts, box, "auto", path.stem)
                height, width = core.pixels.shape
                rows = slice(core.top, core.top + height)
                mask[rows, core.left : core.left + width] |= core.pixels
            name = f"{path.stem}_{number:03d}"
            write_frame(folder, name, counts, mask)
            names[path in clips[HELD]].append(name)
    write_list(folder / "train.txt", names[False])
    write_list(folder / "val.txt", names[True][::4])


def make_clear(source: Path, folder: Path) -> None:
    """Frames without targets."""
    make_folder(folder)
    paths = sorted((source / "images").iterdir())
    near, val = set[int](), list[int]()
    for begin in BLOCKS:
        start, length = int(len(paths) * begin), len(paths) // 10
        val += range(start, start + length)
        near |= set(range(start - GAP, start + length + GAP))
    for path in paths:
        frame = read_frame(path)
        write_frame(folder, path.stem, frame, np.zeros(frame.shape, dtype=np.bool_))
    train = [path.stem for number, path in enumerate(paths) if number not in near]
    write_list(folder / "train.txt", train)
    write_list(folder / "val.txt", [paths[number].stem for number in val])


def link_held(source: Path, out: Path) -> None:
    """Links to the clips and streets that validate, in folders like those of the source."""
    held = out / "held"
    streets = (out / "roadscene" / "val.txt").read_text().split()
    paths = [
        each
        for clip in sorted((source / "ir-drone").glob("*.mp4"))[HELD]
        for each in (clip, clip.with_suffix(".csv"))
    ]
    paths += [each for each in (source / "roadscene" / "images").iterdir() if each.stem in streets]
    for path in paths:
        link = held / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    make_clips(arguments.data / "ir-drone", arguments.out / "clips")
    for name in ("roadscene", "lwir-clouds"):
        make_clear(arguments.data / name, arguments.out / name)
    link_held(arguments.data, arguments.out)


if __name__ == "__main__":
    main()
