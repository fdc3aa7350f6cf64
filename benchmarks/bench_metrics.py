"""How much faster the scorer is than PyIRSTDMetrics, and where that ends.

Both score the same 512 x 512 maps at the same 10 thresholds in the same process, in turns: Pd, Fa,
IoU and nIoU each. What our scorer does once for a whole set (bootstrap intervals) is timed apart.
Run `python benchmarks/bench_metrics.py`. PyIRSTDMetrics asks for numpy < 2 but runs without:
`pip install scikit-image && pip install --no-deps pyirstdmetrics`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import py_irstd_metrics
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.metrics import PROTOCOLS, Scorer

SIDE = 512
THRESHOLDS = np.linspace(0, 1, 10, endpoint=False)
Case = tuple[NDArray[np.float32], NDArray[np.bool_]]


def make_case(
    generator: np.random.Generator, false_blobs: int, noise: float = 0.0, background: float = 0.0
) -> Case:
    """Draw 1 to 4 true targets, soft predictions of them, false blobs, and noise everywhere."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    probability = np.zeros((SIDE, SIDE))
    for _ in range(generator.integers(1, 5)):
        y, x = generator.integers(8, SIDE - 16, size=2)
        height, width = generator.integers(2, 8, size=2)
        mask[y : y + height, x : x + width] = True
        dy, dx = generator.integers(-1, 2, size=2)
        probability[y + dy : y + dy + height, x + dx : x + dx + width] = 1
    for _ in range(false_blobs):
        y, x = generator.integers(8, SIDE - 16, size=2)
        height, width = generator.integers(1, 6, size=2)
        probability[y : y + height, x : x + width] = generator.random()
    probability = ndimage.gaussian_filter(probability, 0.8, truncate=3)
    probability += background + noise * generator.random(probability.shape)
    return np.clip(probability, 0, 1).astype(np.float32), mask


SCENES: dict[str, Callable[[np.random.Generator], Case]] = {
    "5 false blobs, empty elsewhere": lambda g: make_case(g, 5),
    "5 false blobs, 1e-6 elsewhere (sigmoid)": lambda g: make_case(g, 5, background=1e-6),
    "20 false blobs": lambda g: make_case(g, 20),
    "50 false blobs": lambda g: make_case(g, 50),
    "500 false blobs": lambda g: make_case(g, 500),
    "noise up to 0.25 everywhere": lambda g: make_case(g, 5, noise=0.25),
    "noise up to 1 everywhere (untrained)": lambda g: make_case(g, 0, noise=1.0),
}


Scores = Callable[[], NDArray[np.float64]]


def score_ours(cases: list[Case]) -> Scores:
    scorer = Scorer(PROTOCOLS["greedy"], thresholds=THRESHOLDS)
    for probability, mask in cases:
        scorer.update(probability, mask)

    def scores() -> NDArray[np.float64]:
        report = scorer.compute()
        return np.array([*report.roc.pd, *report.roc.fa, report.iou, report.niou])

    return scores


def score_theirs(cases: list[Case]) -> Scores:
    target = py_irstd_metrics.ProbabilityDetectionAndFalseAlarmRate(num_bins=len(THRESHOLDS))
    pixel = py_irstd_metrics.CMMetrics()
    pixel.add_handler("iou", py_irstd_metrics.IoUHandler(sample_based=False))
    pixel.add_handler("niou", py_irstd_metrics.IoUHandler())
    for probability, mask in cases:
        target.update(probability, mask)
        pixel.update(probability, mask)

    def scores() -> NDArray[np.float64]:
        by_target, by_pixel = target.get(), pixel.get()
        pd, fa = by_target["probability_detection"], by_target["false_alarm"]
        return np.array([*pd, *fa, by_pixel["iou"]["binary"], by_pixel["niou"]["binary"]])

    return scores


def milliseconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16, help="maps per scene")
    parser.add_argument("--turns", type=int, default=5, help="interleaved runs; the median counts")
    arguments = parser.parse_args()
    print(f"{SIDE} x {SIDE}, {len(THRESHOLDS)} thresholds from 0, milliseconds per map (median)")
    print(f"{'scene':42}{'PyIRSTDMetrics':>15}{'pinglow':>9}{'ratio':>8}  scores differ by")
    ratios = {}
    for scene, make in SCENES.items():
        generator = np.random.default_rng(0)
        noisy = scene.startswith("noise")  # seconds per map there
        cases = [make(generator) for _ in range(2 if noisy else arguments.images)]
        difference = np.abs(score_ours(cases)() - score_theirs(cases)()).max()
        turns = [
            [
                milliseconds(partial(score, cases)) / len(cases)
                for score in (score_theirs, score_ours)
            ]
            for _ in range(1 if noisy else arguments.turns)
        ]
        theirs, ours = map(median, zip(*turns, strict=True))
        ratios[scene] = theirs / ours
        print(f"{scene:42}{theirs:15.1f}{ours:9.2f}{ratios[scene]:8.1f}  {difference:g}")
    worst = min(ratios, key=lambda scene: ratios[scene])
    generator = np.random.default_rng(0)
    once = milliseconds(score_ours([make_case(generator, 5) for _ in range(100)]))
    print(f"once for a set of 100 maps, scores and bootstrap intervals: {once:.1f} ms")
    print(f"least ahead, {ratios[worst]:.1f} times as fast: {worst}")


if __name__ == "__main__":
    main()
