"""Scores on frames a part of which is another temperature, or no picture at all.

python experiments/scripts/parts_of_frames.py DIR [--model pinglow-fast] [--frames 60]
DIR has sirst, nudt-sirst and irstd-1k; the frames are those of recipes/validation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.border import hide_border
from pinglow.data.folder import FrameFolder
from pinglow.inference import probability as predictors
from pinglow.inference.predictor import Predictor
from pinglow.metrics import PROTOCOLS
from pinglow.metrics.protocols import Scorer
from pinglow.preprocess import Normalization, measure_frame

SETS = (("sirst", "trainval"), ("nudt-sirst", "train"), ("irstd-1k", "trainval"))
LISTS = Path(__file__).parents[2] / "recipes" / "validation"
Frame = NDArray[Any]
Mask = NDArray[np.bool_]


def as_one(frame: Frame) -> tuple[Normalization]:
    """The normalization of the whole frame, whatever its regions."""
    return measure_frame(frame)[:1]


def ground(share: float, spreads: float) -> Callable[[Frame, np.random.Generator], Any]:
    """Another, textured ground in the lower part, so many spreads above the median."""

    def add(frame: Frame, random: np.random.Generator) -> tuple[Frame, Mask]:
        height, width = frame.shape
        fine = frame.astype(np.float32) * 64  # so that its noise is no rounding
        low, high = np.percentile(fine, [5, 95])
        spread = max((high - low) / 3.29, 1)
        rows = round(height * share)
        horizon = ndimage.gaussian_filter1d(random.normal(size=width), width / 20) * rows
        covered = np.arange(height)[:, None] >= height - rows + horizon
        texture = ndimage.gaussian_filter(random.normal(size=frame.shape), 6)
        hot = np.median(fine) + spread * (
            spreads + texture / texture.std() * 20 / 6 + random.normal(size=frame.shape) / 2
        )
        return np.where(covered, hot, fine).astype(np.float32), covered

    return add


def cold_and_hot(frame: Frame, random: np.random.Generator) -> tuple[Frame, Mask]:
    """Ground in a fifth of the frame below, and as much that is as cold above."""
    warm, below = ground(0.2, 20)(frame, random)
    cold, above = (part[::-1] for part in ground(0.2, -20)(frame[::-1], random))
    return np.where(above, cold, warm), above | below


def bars(share: float, value: float) -> Callable[[Frame, np.random.Generator], Any]:
    """Rows of one value at the top and at the bottom, this share of the frame each."""

    def add(frame: Frame, random: np.random.Generator) -> tuple[Frame, Mask]:
        rows = max(1, round(len(frame) * share))
        covered = np.zeros(frame.shape, dtype=np.bool_)
        covered[:rows] = covered[-rows:] = True
        return np.where(covered, value, 16.0 * frame + 1000).astype(np.uint16), covered

    return add


def turned(frame: Frame, random: np.random.Generator) -> tuple[Frame, Mask]:
    """Corners of 0, as after a turn by 5 degrees."""
    inside = ndimage.rotate(np.ones(frame.shape), 5, reshape=False, order=0) > 0
    return np.where(inside, 16.0 * frame + 1000, 0).astype(np.uint16), ~inside


def round_stop(frame: Frame, random: np.random.Generator) -> tuple[Frame, Mask]:
    """0 outside the largest ellipse."""
    rows, columns = (np.linspace(-1, 1, side) for side in frame.shape)
    outside = rows[:, None] ** 2 + columns**2 > 1
    return np.where(outside, 0, 16.0 * frame + 1000).astype(np.uint16), outside


def telemetry(frame: Frame, random: np.random.Generator) -> tuple[Frame, Mask]:
    """Two rows of random 16-bit words at the bottom."""
    covered = np.zeros(frame.shape, dtype=np.bool_)
    covered[-2:] = True
    words = random.integers(0, 2**16, frame.shape)
    return np.where(covered, words, 16.0 * frame + 1000).astype(np.uint16), covered


KINDS: dict[str, Callable[[Frame, np.random.Generator], Any]] = {
    "as it is": lambda frame, random: (frame, np.zeros(frame.shape, dtype=np.bool_)),
    "20 % ground, 20 spreads": ground(0.2, 20),
    "20 % ground, 10 spreads": ground(0.2, 10),
    "30 % ground, 20 spreads": ground(0.3, 20),
    "45 % ground, 20 spreads": ground(0.45, 20),
    "20 % ground, 200 spreads": ground(0.2, 200),
    "20 % ground and 20 % as cold": cold_and_hot,
    "bars of 0, 4 %": bars(0.04, 0),
    "bars of 0, 12 %": bars(0.12, 0),
    "bars of 65535, 4 %": bars(0.04, 65535),
    "turned, corners of 0": turned,
    "round field stop": round_stop,
    "two rows of telemetry": telemetry,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="pinglow-fast")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--kinds", default="", help="those whose name holds this")
    options = parser.parse_args()
    frames = {}
    for name, split in SETS:
        folder = FrameFolder(options.data / name, split)
        wanted = set((LISTS / f"{name}.txt").read_text().split())
        kept = [i for i, each in enumerate(folder.names) if each in wanted][: options.frames]
        frames[name] = [(folder.frame(i), folder.mask(i)) for i in kept]
    model = Predictor.load(options.model, device="cpu")
    for name, pairs in frames.items():
        hidden = sum(hide_border(frame) is not frame for frame, _ in pairs)
        twice = sum(len(measure_frame(frame)) > 1 for frame, _ in pairs)
        print(
            f"{name}: {len(pairs)} frames, {hidden} with a border, {twice} of several temperatures"
        )
    rules: dict[str, tuple[Any, Any]] = {
        "as one": (as_one, lambda frame: frame),
        "by its parts": (measure_frame, hide_border),
    }
    for kind, change in KINDS.items():
        if options.kinds not in kind:
            continue
        for title, rule in rules.items():
            predictors.measure_frame, predictors.hide_border = rule  # type: ignore[attr-defined]
            cells = []
            for pairs in frames.values():
                scorer = Scorer(PROTOCOLS["strict"], 0.5)
                for number, (frame, mask) in enumerate(pairs):
                    shown, covered = change(frame, np.random.default_rng([0, number]))
                    scorer.update(model.probability(shown), mask & ~covered)
                report = scorer.compute()
                values = (report.iou or 0) * 100, (report.pd or 0) * 100, (report.fa or 0) * 1e6
                cells.append("{:.1f} / {:.1f} / {:.0f}".format(*values))
            print(f"| {kind} | {title} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
