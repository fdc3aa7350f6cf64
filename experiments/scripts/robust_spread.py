"""Scores with other spreads than the middle 90 %, on frames a part of which is far from the rest.

python experiments/scripts/robust_spread.py DIR [--model pinglow-fast] [--frames 60]
DIR has sirst, nudt-sirst and irstd-1k; the frames are those of recipes/validation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from pinglow.data.folder import FrameFolder
from pinglow.inference import predictor as predictors
from pinglow.inference.predictor import Predictor
from pinglow.metrics import PROTOCOLS
from pinglow.metrics.protocols import Scorer
from pinglow.preprocess import Normalization, measure_frame

SETS = (("sirst", "trainval"), ("nudt-sirst", "train"), ("irstd-1k", "trainval"))
LISTS = Path(__file__).parents[2] / "recipes" / "validation"
Measure = Callable[[NDArray[Any]], Normalization]


def shortest(frame: NDArray[Any], share: float) -> tuple[float, float]:
    """Median and spread of the shortest interval that holds this share of the pixels."""
    stride = max(1, int(np.ceil(np.sqrt(frame.size / 2**18))))
    values = np.sort(frame[::stride, ::stride].astype(np.float64), axis=None)
    count = int(share * len(values))
    widths = values[count:] - values[: len(values) - count]
    start = int(widths.argmin())
    width = float(widths[start]) / (2 * stats.norm.ppf(0.5 + share / 2))
    return float(np.median(values[start : start + count + 1])), width


def by_shortest(share: float, factor: float | None = None, centered: bool = False) -> Measure:
    """The spread of the shortest interval; with a factor, an upper bound of today's."""

    def measure(frame: NDArray[Any]) -> Normalization:
        now = measure_frame(frame)
        middle, width = shortest(frame, share)
        floor = 0.5 if np.array_equal(frame, np.rint(frame)) else 0.0
        width = max(width or now.spread, floor)
        spread = width if factor is None else min(now.spread, factor * width)
        return Normalization(middle if centered else now.median, spread, now.fill)

    return measure


def quartiles(frame: NDArray[Any]) -> Normalization:
    """The spread of the middle half."""
    now = measure_frame(frame)
    low, high = np.percentile(frame, [25, 75])
    floor = 0.5 if np.array_equal(frame, np.rint(frame)) else 0.0
    return Normalization(now.median, max((high - low) / 1.349 or now.spread, floor), now.fill)


MEASURES: dict[str, Measure] = {
    "middle 90 % (now)": measure_frame,
    "quartiles": quartiles,
    "shortest 70 %": by_shortest(0.7),
    "shortest half": by_shortest(0.5),
    "shortest half, its median": by_shortest(0.5, centered=True),
    "now, at most 1.5 of it": by_shortest(0.5, 1.5),
    "now, at most 2 of it": by_shortest(0.5, 2),
}


def add_ground(
    frame: NDArray[Any], share: float, random: np.random.Generator
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A hot, textured ground 20 spreads above the median in the lower part, and where it is."""
    height, width = frame.shape
    fine = frame.astype(np.float32) * 64  # so that its noise is no rounding
    low, high = np.percentile(fine, [5, 95])
    spread = max((high - low) / 3.29, 1)
    rows = round(height * share)
    horizon = ndimage.gaussian_filter1d(random.normal(size=width), width / 20) * rows
    ground = np.arange(height)[:, None] >= height - rows + horizon
    texture = ndimage.gaussian_filter(random.normal(size=frame.shape), 6)
    hot = np.median(fine) + spread * (
        20 + texture / texture.std() * 20 / 6 + random.normal(size=frame.shape) / 2
    )
    return np.where(ground, hot, fine).astype(np.float32), ground


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="pinglow-fast")
    parser.add_argument("--frames", type=int, default=60)
    options = parser.parse_args()
    frames = {}
    for name, split in SETS:
        folder = FrameFolder(options.data / name, split)
        wanted = set((LISTS / f"{name}.txt").read_text().split())
        kept = [i for i, each in enumerate(folder.names) if each in wanted][: options.frames]
        frames[name] = [(folder.frame(i), folder.mask(i)) for i in kept]
    model = Predictor.load(options.model, device="cpu")
    for share in (0.0, 0.2, 0.3, 0.45):
        for title, measure in MEASURES.items():
            predictors.measure_frame = measure  # type: ignore[attr-defined]
            cells = []
            for pairs in frames.values():
                scorer = Scorer(PROTOCOLS["strict"], 0.5)
                for number, (frame, mask) in enumerate(pairs):
                    shown, known = frame, mask
                    if share:
                        random = np.random.default_rng([0, number])
                        shown, ground = add_ground(frame, share, random)
                        known = mask & ~ground
                    scorer.update(model.probability(shown), known)
                report = scorer.compute()
                values = (report.iou or 0) * 100, (report.pd or 0) * 100, (report.fa or 0) * 1e6
                cells.append("{:5.1f} / {:5.1f} / {:5.1f}".format(*values))
            print(f"{share:4.0%} ground  {title:26s}", *cells, sep="   ", flush=True)


if __name__ == "__main__":
    main()
