"""How many boxes are found by their width, and false targets in streets, with --large and without.

python experiments/scripts/large_targets.py DIR [--model pinglow-fast]
DIR has ir-drone (clips with boxes) and roadscene (frames without targets). Of each clip with boxes
of at least 30 pixels eight frames are taken, where the box is widest and narrower. A box is found
if a target's center lies in it.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import defaultdict
from pathlib import Path

from pinglow.inference.predictor import Predictor
from pinglow.io.frames import read_only_frame
from pinglow.io.source import Selection, open_source

WIDTHS = (0, 30, 45, 55, 70)
Box = tuple[float, float, float, float]


def read_boxes(path: Path) -> dict[int, list[Box]]:
    boxes = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            x, y, width, height = (float(row[key]) for key in ("x", "y", "w", "h"))
            boxes[int(row["frame"])].append((x, y, width, height))
    return boxes


def choose_frames(boxes: dict[int, list[Box]]) -> set[int]:
    """Five frames with a box of at least 45 pixels and three with one of 30 to 45."""
    widest = {frame: max(max(box[2:]) for box in each) for frame, each in boxes.items()}
    groups = (
        ([frame for frame, width in widest.items() if width >= 45], 5),
        ([frame for frame, width in widest.items() if 30 <= width < 45], 3),
    )
    chooser = random.Random(1)
    return {frame for group, n in groups for frame in chooser.sample(group, min(n, len(group)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="pinglow-fast")
    arguments = parser.parse_args()
    predictors = {
        name: Predictor.load(arguments.model, large=large)
        for name, large in (("once", False), ("--large", True))
    }
    found: dict[str, list[int]] = {name: [0] * len(WIDTHS) for name in predictors}
    totals, false = [0] * len(WIDTHS), dict.fromkeys(predictors, 0)
    frames = 0
    for labels in sorted((arguments.data / "ir-drone").glob("*.csv")):
        boxes = read_boxes(labels)
        chosen = choose_frames(boxes)
        if not chosen:
            continue
        for frame in open_source(labels.with_suffix(".mp4")).select(Selection(1, 0, None)):
            if frame.index not in chosen:
                continue
            frames += 1
            for name, predictor in predictors.items():
                targets = predictor(frame.counts).targets
                hit = set()
                for x, y, width, height in boxes[frame.index]:
                    place = sum(max(width, height) >= least for least in WIDTHS) - 1
                    inside = {
                        number
                        for number, target in enumerate(targets)
                        if -1 <= target.x - x <= width and -1 <= target.y - y <= height
                    }
                    hit |= inside
                    found[name][place] += bool(inside)
                    totals[place] += name == "once"
                false[name] += len(targets) - len(hit)
    streets = sorted((arguments.data / "roadscene" / "images").iterdir())
    lamps = {
        name: sum(len(predictor(read_only_frame(path)).targets) for path in streets)
        for name, predictor in predictors.items()
    }
    print(
        "boxes of at least", *(f"{width} px: {n}" for width, n in zip(WIDTHS, totals, strict=True))
    )
    for name in predictors:
        print(
            f"{name}: found {found[name]}, false {false[name] / frames:.3f} a frame of the clips, "
            f"{lamps[name] / len(streets):.3f} a frame of the streets"
        )


if __name__ == "__main__":
    main()
