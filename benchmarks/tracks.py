"""How well targets are found and linked in videos with known boxes.

    python benchmarks/tracks.py ../shared/data/ir-drone

Every NAME.mp4 in the folder has its boxes in NAME.csv (frame,x,y,w,h in pixels; x and y the upper
left corner). A labelled box counts as found if the centre of a target lies inside it, widened by 3
pixels. A track is false if none of its targets is in such a box; a switch is a labelled box whose
track is another than that of the box before.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track as progress
from rich.table import Table

from pinglow.data.video import probe_video, read_video
from pinglow.inference.predictor import Predictor
from pinglow.inference.tracking import OcSortTracker
from pinglow.structures import Target

WIDER = 3.0
Boxes = dict[int, list[tuple[float, float, float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="pinglow-fast")
    parser.add_argument("--json", type=Path, help="keep what was found here, or read it if there")
    arguments = parser.parse_args()

    found = find_targets_of(arguments.folder, arguments.model, arguments.json)
    table = Table(
        *("clip", "labelled boxes", "found, %", "tracked, %", "tracks", "false tracks"),
        *("false a minute", "switches", "single false targets a frame"),
    )
    total: dict[str, float] = defaultdict(float)
    for name, clip in found.items():
        boxes = read_boxes(arguments.folder / f"{name}.csv")
        row = score_clip(clip["frames"], boxes, clip["rate"])
        for key, value in row.items():
            total[key] += value
        table.add_row(name, *show(row))
    table.add_section()
    table.add_row("all", *show(total))
    Console(width=140).print(table)


def find_targets_of(folder: Path, model: str, cache: Path | None) -> dict[str, Any]:
    """Targets of each frame of each clip, as [x, y, left, top, width, height, area, score]."""
    if cache is not None and cache.is_file():
        stored: dict[str, Any] = json.loads(cache.read_text())
        return stored
    predictor = Predictor.load(model)
    found = {}
    for path in progress(sorted(folder.glob("*.mp4")), "predicting"):
        frames = [
            [[t.x, t.y, *t.bbox, t.area, t.score] for t in predictor(frame.counts).targets]
            for frame in read_video(path)
        ]
        found[path.stem] = {"rate": probe_video(path).rate, "frames": frames}
    if cache is not None:
        cache.write_text(json.dumps(found))
    return found


def read_boxes(path: Path) -> Boxes:
    boxes: Boxes = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if float(row["w"] or 0) > 0:
                x, y, w, h = (float(row[key]) for key in "xywh")
                boxes[int(row["frame"])].append((x, y, w, h))
    return boxes


def score_clip(frames: list[list[list[float]]], boxes: Boxes, rate: float) -> dict[str, float]:
    tracker = OcSortTracker(rate)
    row: dict[str, float] = defaultdict(float, minutes=len(frames) / rate / 60, frames=len(frames))
    seen: dict[int, bool] = {}
    before: int | None = None
    for number, values in enumerate(frames):
        targets = [
            Target(x, y, (int(left), int(top), int(w), int(h)), int(area), score)
            for x, y, left, top, w, h, area, score in values
        ]
        tracks = tracker.update(targets)
        for target, track in zip(targets, tracks, strict=True):
            hit = any(inside(target, box) for box in boxes.get(number, []))
            row["false_targets"] += not hit
            if track is not None:
                seen[track] = seen.get(track, False) or hit
        for box in boxes.get(number, []):
            hits = [track for t, track in zip(targets, tracks, strict=True) if inside(t, box)]
            row["boxes"] += 1
            row["found"] += bool(hits)
            linked = [track for track in hits if track is not None]
            row["tracked"] += bool(linked)
            if linked and before is not None and before not in linked:
                row["switches"] += 1
            before = linked[0] if linked else before
    row["tracks"] = len(seen)
    row["false"] = sum(not hit for hit in seen.values())
    return row


def inside(target: Target, box: tuple[float, float, float, float]) -> bool:
    x, y, w, h = box
    return -WIDER <= target.x - x <= w + WIDER and -WIDER <= target.y - y <= h + WIDER


def show(row: dict[str, float]) -> list[str]:
    boxes = max(1, row["boxes"])
    return [
        f"{row['boxes']:.0f}",
        f"{100 * row['found'] / boxes:.1f}",
        f"{100 * row['tracked'] / boxes:.1f}",
        f"{row['tracks']:.0f}",
        f"{row['false']:.0f}",
        f"{row['false'] / row['minutes']:.1f}",
        f"{row['switches']:.0f}",
        f"{row['false_targets'] / row['frames']:.3f}",
    ]


if __name__ == "__main__":
    main()
