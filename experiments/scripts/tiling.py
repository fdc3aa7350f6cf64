"""What tiles change: targets found in tiles against the same frame at once, and memory and time.

    python experiments/scripts/tiling.py           # agreement, on synthetic frames
    python experiments/scripts/tiling.py --large   # time and peak memory up to 8192 x 8192, 16 bits
    python experiments/scripts/tiling.py --frames FOLDER   # windows for gates

Tiled frames are compared with the same frame at once. A target differs if its center moves by more
than 0.5 px, its area by more than 2 px and 10 %, or if it is found only one way. Above four
megapixels the attention that both have, of four windows, is compared with the whole frame's.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pinglow.data.synthetic.backgrounds import BACKGROUNDS
from pinglow.data.synthetic.scenes import SceneSpec, render_scene
from pinglow.inference.predictor import Predictor
from pinglow.inference.tiling import cut_into_tiles
from pinglow.io.frames import find_frames, read_frame
from pinglow.preprocess import measure_frame
from pinglow.structures import FloatArray, Target, find_targets

SIZES = ((1600, 1500), (2400, 2200))  # below and above what is computed at once by default
KINDS = tuple(BACKGROUNDS)
TARGETS = 80
NEAR = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--frames", type=Path, help="target-free frames")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        time_frame(arguments.one)
    elif arguments.large:
        time_frames()
    elif arguments.frames:
        compare_windows(arguments.frames)
    else:
        compare_tiles()


def compare_tiles() -> None:
    columns = "background", "frame", "tile", "targets", "own attention: differ", "shipped: differ"
    tiles = Table(*columns)
    attention = Table(
        "background", "frame", "attention", "true found", "false", title="targets by attention"
    )
    whole = Predictor.load(tile=None)
    for (width, height), (seed, kind) in itertools.product(SIZES, enumerate(KINDS)):
        spec = SceneSpec(kind, width, height, (TARGETS, TARGETS), (4.0, 25.0))
        scene = render_scene(spec, seed)
        expected = whole(scene.frame).targets
        for side in (512, 1024):
            if width * height <= 4 * side**2:
                continue  # not tiled
            shipped = Predictor(whole.backend, whole.card, tile=side)(scene.frame).targets
            own = find_targets(pooled_by_tile(whole, scene.frame, side) > whole.card.threshold)
            differ = [count_different(expected, each) for each in (own, shipped)]
            tiles.add_row(kind, f"{width} x {height}", *map(str, (side, len(expected), *differ)))
        image = measure_frame(scene.frame)(scene.frame)[None, None]
        pooled = find_targets(whole.backend(image)[0, 0] > whole.card.threshold)
        for name, found in (("whole frame", pooled), ("shipped", expected)):
            true = len(pair_targets(find_targets(scene.mask), found))
            counts = true, len(found) - true
            attention.add_row(kind, f"{width} x {height}", name, *map(str, counts))
    Console().print(tiles, attention)


def pooled_by_tile(predictor: Predictor, frame: Any, side: int) -> FloatArray:
    """Probabilities where each tile has the channel attention of itself."""
    normal = measure_frame(frame)(frame)
    probability = np.empty_like(normal)
    for part in cut_into_tiles(*normal.shape, side, 64):
        found = predictor.backend(normal[part.rows, part.columns][None, None])[0, 0]
        probability[part.core_rows, part.core_columns] = found[part.core]
    return probability


def pair_targets(
    expected: tuple[Target, ...], found: tuple[Target, ...]
) -> list[tuple[Target, Target]]:
    """Each expected target with the nearest one found within NEAR that is left."""
    left = list(found)
    pairs = []
    for target in expected:
        best = min(left, key=lambda each: distance(target, each), default=None)
        if best is not None and distance(target, best) < NEAR:
            left.remove(best)
            pairs.append((target, best))
    return pairs


def distance(a: Target, b: Target) -> float:
    return float(np.hypot(a.x - b.x, a.y - b.y))


def count_different(expected: tuple[Target, ...], found: tuple[Target, ...]) -> int:
    pairs = pair_targets(expected, found)
    moved = sum(max(abs(a.x - b.x), abs(a.y - b.y)) > 0.5 for a, b in pairs)
    resized = sum(abs(a.area - b.area) > max(2, 0.1 * a.area) for a, b in pairs)
    return moved + resized + len(expected) + len(found) - 2 * len(pairs)


def compare_windows(folder: Path) -> None:
    """False alarms in target-free frames of over a million pixels, by where gates come from.

    These frames are small enough to be computed at once; larger ones of this kind are not to hand.
    """
    predictor = Predictor.load(tile=None)
    alarms = {"the whole frame": 0, "windows of 1024": 0, "windows of 512": 0}
    frames = 0
    for path in find_frames([folder]):
        frame = read_frame(path)
        if frame.size < 2**20:
            continue
        frames += 1
        image = measure_frame(frame)(frame)[None, None]
        for name, side in zip(alarms, (None, 1024, 512), strict=True):
            gates = None
            if side is not None:
                starts = [
                    [round(i * (length - side) / max(1, n - 1)) for i in range(n)]
                    for length in frame.shape
                    for n in [max(1, round(length / side))]
                ]
                seen = [
                    predictor.backend.gates(image[..., y : y + side, x : x + side])
                    for y in starts[0]
                    for x in starts[1]
                ]
                gates = np.concatenate(seen).mean(axis=0, keepdims=True)
            found = predictor.backend(image, gates)[0, 0] > predictor.card.threshold
            alarms[name] += len(find_targets(found))
    print(f"{frames} frames; false alarms with gates from")
    for name, count in alarms.items():
        print(f"  {name}: {count}")


def time_frames() -> None:
    for side in (1024, 2048, 4096, 8192):
        subprocess.run([sys.executable, __file__, "--one", str(side)], check=True)


def time_frame(side: int) -> None:
    frame = np.random.default_rng(0).integers(5000, 6000, (side, side), dtype=np.uint16)
    predictor = Predictor.load()
    predictor(frame[:256, :256])
    begin = time.perf_counter()
    predictor(frame)
    seconds = time.perf_counter() - begin
    status = Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(
        f"{side} x {side}, {predictor.backend.name}: {seconds:.2f} s, "
        f"{1e9 * seconds / side**2:.0f} ns a pixel, peak memory {int(peak) / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
