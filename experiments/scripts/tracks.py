"""How well targets are found and linked in videos with known boxes.

    python experiments/scripts/tracks.py ir-drone
    python experiments/scripts/tracks.py ir-drone --compare  # other trackers and reaches,
                                          # on the clips and on simulated targets of 3 x 3 pixels
    python experiments/scripts/tracks.py ir-drone --camera   # with and without the camera's motion,
                                          # on labeled boxes of which 15 % are missed

Every NAME.mp4 in the folder has its boxes in NAME.csv (frame,x,y,w,h in pixels; x and y the upper
left corner). A labeled box counts as found if the center of a target lies inside it, widened by 3
pixels. A track is false if none of its targets is in such a box; a switch is a labeled box whose
track is another than that of the box before.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track as progress
from rich.table import Table

from pinglow.inference.camera_motion import CameraMotion
from pinglow.inference.predictor import Predictor
from pinglow.inference.tracking import Tracker
from pinglow.io.video import probe_video, read_video
from pinglow.structures import Detections, Target

WIDER = 3.0
SPEEDS = (1, 3, 6)
Boxes = dict[int, list[tuple[float, float, float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="pinglow-fast")
    parser.add_argument("--json", type=Path, help="keep what was found here, or read it if there")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--camera", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="with --camera: each N-th clip")
    arguments = parser.parse_args()
    if arguments.camera:
        compare_camera(arguments.folder, arguments.every)
        return

    found = find_targets_of(arguments.folder, arguments.model, arguments.json)
    table = Table(
        *("clip", "boxes", "found, %", "tracked, %", "tracks", "false tracks"),
        *("false a minute", "switches", "false targets a frame"),
    )
    if arguments.compare:
        for name, make in others().items():
            table.add_row(name, *show(score_all(arguments.folder, found, make)[1]))
            rows = [
                np.mean([simulate(seed, make, speed) for seed in range(6)], 0) for speed in SPEEDS
            ]
            print(
                f"{name}: at {', '.join(map(str, SPEEDS))} px a frame, tracked",
                *(
                    f"{100 * tracked:.0f} % with {switches:.1f} switches;"
                    for switches, tracked in rows
                ),
            )
    else:
        rows, total = score_all(arguments.folder, found, Tracker)
        for name, row in rows.items():
            table.add_row(name, *show(row))
        table.add_section()
        table.add_row("all", *show(total))
    Console(width=130).print(table)


def compare_camera(folder: Path, every: int) -> None:
    """Tracks of labeled boxes in clips that have one a frame, by whether the camera moves."""
    table = Table(
        "clip", "moves, % of frames", "px a frame", "ms a frame", "tracked, %", "switches"
    )
    sums: dict[bool, list[Any]] = {True: [], False: []}
    for path in progress(sorted(folder.glob("*.mp4"))[::every], "tracking"):
        boxes = read_boxes(path.with_suffix(".csv"))
        if len(boxes) < 100 or any(len(each) > 1 for each in boxes.values()):
            continue
        random = np.random.default_rng(0)
        rate = probe_video(path).rate
        plain, steady, motion = Tracker(rate, compensate=False), Tracker(rate), CameraMotion()
        seen = {"plain": [0, 0, 0], "steady": [0, 0, 0]}  # tracked, switches, track before
        shifts, seconds, count = [], 0.0, 0
        for frame in read_video(path):
            targets = [each for each in boxes.get(frame.index, []) if random.random() > 0.15]
            false = random.uniform(0, 250, (random.poisson(0.3), 2))
            places = [*targets, *((x, y, 3.0, 3.0) for x, y in false.tolist())]
            found = Detections(np.array(places).reshape(-1, 4), np.full(len(places), 0.9))
            begin = perf_counter()
            shifts.append(max(map(abs, motion.update(frame.counts, found.targets))))
            seconds += perf_counter() - begin
            count += len(targets)
            for name, tracker in (("plain", plain), ("steady", steady)):
                tracks = tracker.update(found, frame.counts)
                if targets and tracks[0] is not None:
                    row = seen[name]
                    row[0] += 1
                    row[1] += row[2] not in (0, tracks[0])
                    row[2] = tracks[0]
        moves = [shift for shift in shifts if shift]
        row = [len(moves), np.median(moves or [0]), len(shifts), seconds, count, seen]
        sums[len(moves) > 0.02 * len(shifts)].append(row)
        if moves:
            table.add_row(path.stem, *show_camera([row]))
    for moving, rows in sums.items():
        table.add_row(f"{len(rows)} {'moving' if moving else 'still'}", *show_camera(rows))
    Console(width=130).print(table)


def show_camera(rows: list[Any]) -> list[str]:
    frames = max(1, sum(row[2] for row in rows))
    boxes = max(1, sum(row[4] for row in rows))
    pairs = [
        [sum(row[5][name][at] for row in rows) for name in ("plain", "steady")] for at in (0, 1)
    ]
    return [
        f"{100 * sum(row[0] for row in rows) / frames:.0f}",
        f"{np.median([row[1] for row in rows] or [0]):.1f}",
        f"{1000 * sum(row[3] for row in rows) / frames:.1f}",
        " -> ".join(f"{100 * each / boxes:.1f}" for each in pairs[0]),
        " -> ".join(map(str, pairs[1])),
    ]


def others() -> dict[str, Callable[[float], Tracker]]:
    """Trackers of the library, with the same buffer and confirmation where they have them."""
    import trackers

    kinds: dict[str, Callable[[int], Any]] = {
        "SORT": lambda kept: trackers.SORTTracker(
            lost_track_buffer=kept, minimum_consecutive_frames=3, minimum_iou_threshold=0.05
        ),
        "ByteTrack": lambda kept: trackers.ByteTrackTracker(
            lost_track_buffer=kept,
            minimum_consecutive_frames=3,
            minimum_iou_threshold=0.05,
            track_activation_threshold=0.5,
            high_conf_det_threshold=0.5,
        ),
        "C-BIoU": lambda kept: trackers.CBIoUTracker(
            lost_track_buffer=kept,
            minimum_consecutive_frames=3,
            track_activation_threshold=0.5,
            high_conf_det_threshold=0.5,
        ),
        "OC-SORT": lambda kept: trackers.OCSORTTracker(
            lost_track_buffer=kept,
            minimum_consecutive_frames=3,
            minimum_iou_threshold=0.05,
            high_conf_det_threshold=0.5,
        ),
    }
    return {
        f"{name}, reach {reach}": lambda rate, make=make, reach=reach: Tracker(  # type: ignore[misc]
            rate, reach=reach, links=make(max(1, round(0.5 * rate)))
        )
        for name, make in kinds.items()
        for reach in (0, 6, 12, 24)
    }


def simulate(seed: int, make: Callable[[float], Tracker], speed: float) -> tuple[float, float]:
    """Four targets in 150 frames of 320 x 320; 15 % are missed, 0.3 a frame are false.

    Returns:
        Switches of a target's track, and the share of the found targets that were in a track.
    """
    random = np.random.default_rng(seed)
    tracker = make(25.0)
    places = random.uniform(60, 260, (4, 2))
    angle = random.uniform(0, 2 * np.pi, 4)
    moves = speed * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    last: dict[int, int] = {}
    switches = tracked = total = 0
    for _ in range(150):
        places = places + moves + random.normal(0, 0.3, places.shape)
        moves = np.where((places < 5) | (places > 315), -moves, moves)
        places = places.clip(4, 316)
        seen = [(each, place) for each, place in enumerate(places) if random.random() > 0.15]
        seen += [(-1, random.uniform(4, 316, 2)) for _ in range(random.poisson(0.3))]
        places_seen = np.array([place for _, place in seen]).reshape(-1, 2)
        widened = np.concatenate([places_seen - 1, np.full(places_seen.shape, 3.0)], axis=1)
        found = Detections(widened, random.uniform(0.6, 1, len(seen)))
        for (each, _), track in zip(seen, tracker.update(found), strict=True):
            if each < 0:
                continue
            total += 1
            tracked += track is not None
            if track is not None:
                switches += last.setdefault(each, track) != track
                last[each] = track
    return switches, tracked / total


def score_all(
    folder: Path, found: dict[str, Any], make: Callable[[float], Tracker]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    total: dict[str, float] = defaultdict(float)
    rows = {}
    for name, clip in found.items():
        boxes = read_boxes(folder / f"{name}.csv")
        rows[name] = score_clip(clip["frames"], boxes, clip["rate"], make)
        for key, value in rows[name].items():
            total[key] += value
    return rows, total


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


def score_clip(
    frames: list[list[list[float]]],
    boxes: Boxes,
    rate: float,
    make: Callable[[float], Tracker],
) -> dict[str, float]:
    tracker = make(rate)
    row: dict[str, float] = defaultdict(float, minutes=len(frames) / rate / 60, frames=len(frames))
    seen: dict[int, bool] = {}
    before: int | None = None
    for number, values in enumerate(frames):
        places = [(x - w / 2 + 0.5, y - h / 2 + 0.5, w, h) for x, y, _, _, w, h, *_ in values]
        found = Detections(np.array(places).reshape(-1, 4), np.array([each[-1] for each in values]))
        targets = found.targets
        tracks = tracker.update(found)
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
