"""How often windows of one frame are found to overlap, and how often those of two frames are.

    python experiments/scripts/overlapping_windows.py DIR --frames 20

Of each frame two windows of 5/8 of its short side are cut, which share a part of their area, the
second at another gain; a first window of each frame is also compared with those of all others.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinglow.data.audit import find_image_files
from pinglow.data.folder import read_image
from pinglow.data.windows import find_overlaps


def cut(
    frame: NDArray[Any], share: float, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    height, width = frame.shape
    side = min(height, width) * 5 // 8
    dx = min(round((1 - share) * side), width - side)
    dy = max(round((1 - share / (1 - dx / side)) * side), 0)
    dy = min(dy, height - side)
    x, y = rng.integers(width - side - dx + 1), rng.integers(height - side - dy + 1)
    other = frame[y + dy : y + dy + side, x + dx : x + dx + side] * 2.5 + 100
    return frame[y : y + side, x : x + side], other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=20)
    arguments = parser.parse_args()
    paths = find_image_files(arguments.folder)
    paths = paths[:: max(len(paths) // arguments.frames, 1)][: arguments.frames]
    frames = [read_image(path) for path in paths]
    rng = np.random.default_rng(0)
    for share in (0.25, 0.35, 0.5, 0.7):
        pairs = [cut(frame, share, rng) for frame in frames]
        found = sum(any(True for _ in find_overlaps(pair, max(pair[0].shape))) for pair in pairs)
        print(f"windows that share {share:.0%}: {found} of {len(pairs)} found")
    side = float(np.median([max(frame.shape) for frame in frames]))
    between = [(paths[a].stem, paths[b].stem) for a, b in find_overlaps(frames, side)]
    print(f"of {len(frames) * (len(frames) - 1) // 2} pairs of frames: {len(between)}", *between)


if __name__ == "__main__":
    main()
