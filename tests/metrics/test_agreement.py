"""The scorer against PyIRSTDMetrics, an independent one: the same digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pinglow.metrics import PROTOCOLS, Scorer

PYIRSTD_MISSING = (
    "PyIRSTDMetrics is not installed: pip install scikit-image; "
    "pip install --no-deps pyirstdmetrics (it asks for numpy < 2 but runs without)"
)


def assert_equals_pyirstd(cases: list[tuple[NDArray[Any], NDArray[np.bool_]]]) -> None:
    theirs = pytest.importorskip("py_irstd_metrics", reason=PYIRSTD_MISSING)
    thresholds = np.linspace(0, 1, 10, endpoint=False)
    target = theirs.ProbabilityDetectionAndFalseAlarmRate(num_bins=10)
    pixel = theirs.CMMetrics()
    pixel.add_handler("iou", theirs.IoUHandler(sample_based=False))
    pixel.add_handler("niou", theirs.IoUHandler())
    ours = Scorer(PROTOCOLS["greedy"], thresholds=thresholds)
    for probability, mask in cases:
        target.update(probability, mask)
        pixel.update(probability, mask)
        ours.update(probability, mask)
    report, by_target, by_pixel = ours.compute(), target.get(), pixel.get()
    assert report.roc.thresholds == tuple(thresholds)
    assert report.roc.pd == tuple(by_target["probability_detection"])
    assert report.roc.fa == tuple(by_target["false_alarm"])
    assert report.iou == by_pixel["iou"]["binary"]
    assert report.niou == pytest.approx(by_pixel["niou"]["binary"], rel=3e-16)


def perturb(mask: NDArray[np.bool_], seed: int) -> NDArray[np.float32]:
    """A prediction as a network makes them: moved, swollen or shrunk, soft, with false blobs."""
    generator = np.random.default_rng(seed)
    image = np.roll(mask, generator.integers(-2, 3, size=2), axis=(0, 1))
    grow = generator.integers(-1, 2)
    if grow:
        image = (ndimage.binary_dilation if grow > 0 else ndimage.binary_erosion)(image)
    soft = image.astype(np.float64)
    for _ in range(generator.integers(0, 6)):
        y, x = (generator.integers(0, side) for side in mask.shape)
        soft[y : y + generator.integers(1, 6), x : x + generator.integers(1, 6)] = 1
    soft = ndimage.gaussian_filter(soft, generator.uniform(0.3, 1.2), truncate=3)
    soft *= generator.uniform(0.5, 1.5)
    return np.clip(soft, 0, 1).astype(np.float32)


def test_equals_pyirstd_on_random_maps() -> None:
    generator = np.random.default_rng(0)
    cases = []
    for seed in range(60):
        mask = np.zeros((96, 80), dtype=bool)
        for _ in range(generator.integers(1, 8)):
            y, x = generator.integers(0, 76, size=2)
            mask[y : y + generator.integers(1, 8), x : x + generator.integers(1, 8)] = True
        cases.append((perturb(mask, seed), mask))
    # Noise and maps that are above 0 everywhere, as a sigmoid's are.
    cases.append((generator.random((64, 64), dtype=np.float32), cases[0][1][:64, :64]))
    cases += [(np.clip(p + np.float32(1e-6), 0, 1), m) for p, m in cases[:10]]
    assert_equals_pyirstd(cases)


@pytest.mark.parametrize("name", ["sirst", "irstd-1k", "nudt-sirst"])
def test_equals_pyirstd_on_real_masks(shared_data: Path, name: str) -> None:
    cases = []
    for seed, path in enumerate(sorted((shared_data / name / "masks").glob("*.png"))[:300:8]):
        mask = np.array(Image.open(path)) > 127
        cases.append((perturb(mask, seed), mask))
    assert len(cases) > 30
    assert_equals_pyirstd(cases)
