"""The scorer against a flood fill and exhaustive matching, and its rules one by one."""

from __future__ import annotations

import functools
import math
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.errors import DataError, OptionError
from pinglow.metrics import PROTOCOLS, THRESHOLDS, Scorer

# --- the reference: plain loops over pixels, every possible matching -------------------------


@functools.cache
def flood_fill(pixels: frozenset[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """8-connected components as pixel sets, in raster order of their first pixel."""
    todo = set(pixels)
    components = []
    for seed in sorted(pixels):
        if seed not in todo:
            continue
        todo.remove(seed)
        component, edge = {seed}, [seed]
        while edge:
            y, x = edge.pop()
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in todo:
                    todo.remove(near)
                    component.add(near)
                    edge.append(near)
        components.append(component)
    return components


def distance(first: set[tuple[int, int]], second: set[tuple[int, int]]) -> float:
    centers = [
        [sum(pixel[axis] for pixel in component) / len(component) for axis in (0, 1)]
        for component in (first, second)
    ]
    return math.sqrt(sum((a - b) * (a - b) for a, b in zip(*centers, strict=True)))


def exhaustive(true: list[Any], predicted: list[Any]) -> dict[int, int]:
    """The best of all one-to-one matchings: most pairs, least distance, most matched area."""
    steps = {
        (i, j): round(distance(t, p) * 1e6)
        for i, t in enumerate(true)
        for j, p in enumerate(predicted)
        if distance(t, p) < 3
    }
    matchings: list[dict[int, int]] = [{}]
    for i in range(len(true)):
        choices = [j for j in range(len(predicted)) if (i, j) in steps]
        matchings += [m | {i: j} for m in matchings for j in choices if j not in m.values()]

    def badness(matching: dict[int, int]) -> tuple[int, int, int]:
        total = sum(steps[pair] for pair in matching.items())
        return -len(matching), total, -sum(len(predicted[j]) for j in matching.values())

    return min(matchings, key=badness)


def first_come(true: list[Any], predicted: list[Any]) -> dict[int, int]:
    matching: dict[int, int] = {}
    for i, component in enumerate(true):
        for j, candidate in enumerate(predicted):
            if j not in matching.values() and distance(component, candidate) < 3:
                matching[i] = j
                break
    return matching


def reference(
    probability: NDArray[Any], mask: NDArray[Any], protocol: str, threshold: float
) -> dict[str, Any]:
    """Counts of one image."""
    half = mask.max() / 2
    true_pixels = frozenset(at for at, value in np.ndenumerate(mask) if value > half)
    predicted_pixels = frozenset(
        at for at, value in np.ndenumerate(probability) if float(value) > threshold
    )
    true, predicted = flood_fill(true_pixels), flood_fill(predicted_pixels)
    match = exhaustive if protocol == "strict" else first_come
    matching = match(true, predicted)
    false = [len(p) for j, p in enumerate(predicted) if j not in matching.values()]
    if protocol == "mshnet256":
        matched_areas = [len(predicted[j]) for j in matching.values()]
        false = [area for area in false if area not in matched_areas]
    return {
        "pixels": mask.size,
        "intersection": len(true_pixels & predicted_pixels),
        "union": len(true_pixels | predicted_pixels),
        "targets": len(true),
        "components": len(predicted),
        "matches": len(matching),
        "false_pixels": sum(false),
        "pairs": [(true[i], predicted[j]) for i, j in matching.items()],
        "true": true,
    }


def ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def assert_report(report: Any, images: list[dict[str, Any]]) -> None:
    """Compare every score with the reference's counts, exactly."""
    total = {
        key: sum(image[key] for image in images)
        for key in images[0]
        if key not in ("pairs", "true")
    }
    matches, targets, components = total["matches"], total["targets"], total["components"]
    assert report.images == len(images)
    assert report.targets == targets
    assert report.iou == ratio(total["intersection"], total["union"])
    niou = sum(
        Fraction(image["intersection"], image["union"]) if image["union"] else Fraction(1)
        for image in images
    )
    assert report.niou == pytest.approx(float(niou / len(images)), rel=3e-16, abs=0)
    assert report.pd == report.recall == ratio(matches, targets)
    assert report.fa == ratio(total["false_pixels"], total["pixels"])
    assert report.precision == ratio(matches, components)
    assert report.f1 == ratio(2 * matches, targets + components)
    assert report.false_alarms_per_image == ratio(components - matches, len(images))

    bounds = {"1-9": (1, 9), "10-25": (10, 25), "26-49": (26, 49), "50+": (50, math.inf)}
    assert [row.size for row in report.per_size] == list(bounds)
    for row in report.per_size:
        low, high = bounds[row.size]
        pairs = [p for image in images for p in image["pairs"] if low <= len(p[0]) <= high]
        true = [t for image in images for t in image["true"] if low <= len(t) <= high]
        assert (row.targets, row.detected) == (len(true), len(pairs))
        assert row.pd == ratio(len(pairs), len(true))
        assert row.iou == ratio(
            sum(len(t & p) for t, p in pairs), sum(len(t | p) for t, p in pairs)
        )


# --- random images -----------------------------------------------------------------------------


@functools.cache
def random_case(seed: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """A small image of one of eight kinds; crowded, so that matches compete."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 22, size=2)
    levels = np.array([0, 0.1, 0.3, 0.5, 0.500001, 0.7, 0.9, 1])

    def blobs(count: int, side: int) -> NDArray[np.float64]:
        image = np.zeros((height, width))
        for _ in range(count):
            y, x = generator.integers(0, height), generator.integers(0, width)
            h, w = generator.integers(1, side + 1, size=2)
            image[y : y + h, x : x + w] = generator.choice(levels)
        return image

    kind = seed % 8
    if kind == 3:  # the reference tries every matching
        height, width = min(height, 10), min(width, 10)
    truth = blobs(generator.integers(1, 7), 3) > 0
    if kind == 0:  # empty truth
        truth[:] = False
    if kind == 1:  # both empty
        return np.zeros((height, width), np.float32), np.zeros((height, width), np.uint8)
    if kind == 2:  # empty prediction
        return np.zeros((height, width), np.float32), truth
    if kind == 3:  # single pixels that compete, and pixels that touch only at a corner
        rows, columns = np.indices((height, width))
        dots = (rows % 2 == 0) & (columns % 2 == 0)
        truth = dots & (generator.random((height, width)) < 0.25)
        truth |= (rows == columns) & (rows % 7 < 2)
        probability = (dots & (generator.random((height, width)) < 0.3)) * levels[-2]
    elif kind == 4:  # ties: every true pixel has predictions at equal distances around it
        truth[:] = False
        truth[height // 2, width // 2] = True
        probability = np.zeros((height, width))
        for dy, dx in [(-2, 0), (2, 0), (0, -2), (0, 2)]:
            y, x = height // 2 + dy, width // 2 + dx
            if 0 <= y < height and 0 <= x < width and generator.random() < 0.7:
                probability[y, x] = 1
                if generator.random() < 0.3:  # the same centroid with a larger area
                    probability[max(y - 1, 0) : y + 2, x] = 1
    elif kind == 5:  # the truth, moved a little
        probability = ndimage.shift(truth.astype(float), generator.integers(-2, 3, size=2), order=0)
        probability *= 0.9
    elif kind == 6:  # noise
        probability = generator.choice(levels, size=(height, width))
    else:
        probability = blobs(generator.integers(1, 8), 4)
    soft = truth.astype(np.uint8) * 250
    soft[~truth] = generator.integers(0, 120, size=(~truth).sum()) if truth.any() else 0
    return probability.astype(np.float32), [truth, truth * 255.0, soft, truth.astype(int)][seed % 4]


@functools.cache
def random_reference(seed: int, protocol: str, threshold: float) -> dict[str, Any]:
    """Counts of a random image, which several tests compare."""
    return reference(*random_case(seed), protocol, threshold)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_equals_brute_force_on_1000_random_images(protocol: str) -> None:
    images = []
    rule = "greedy" if protocol == "basicirstd" else protocol  # they count alike
    whole = Scorer(PROTOCOLS[protocol], thresholds=(0.0, 0.3, 0.7))
    roc = np.zeros((3, 2))
    for seed in range(1000):
        probability, mask = random_case(seed)
        images.append(random_reference(seed, rule, 0.5))
        single = Scorer(PROTOCOLS[protocol], thresholds=())
        single.update(probability, mask)
        assert_report(single.compute(), images[-1:])
        whole.update(probability, mask)
        if seed < 200:
            for k, threshold in enumerate((0.0, 0.3, 0.7)):
                counts = random_reference(seed, rule, threshold)
                roc[k] += counts["matches"], counts["false_pixels"]
        if seed == 199:
            report = whole.compute()
            assert report.roc.pd == tuple(roc[:, 0] / report.targets)
            assert report.roc.fa == tuple(roc[:, 1] / sum(image["pixels"] for image in images))
    assert_report(whole.compute(), images)


def test_random_images_cover_the_hard_cases() -> None:
    counts = [random_reference(seed, "strict", 0.5) for seed in range(1000)]
    greedy = [random_reference(seed, "greedy", 0.5) for seed in range(1000)]
    assert sum(not c["targets"] and c["components"] > 0 for c in counts) > 50
    assert sum(c["targets"] > 0 and not c["components"] for c in counts) > 50
    assert sum(not c["targets"] and not c["components"] for c in counts) > 50
    assert sum(a["matches"] != b["matches"] for a, b in zip(counts, greedy, strict=True)) > 2
    different = [
        a["false_pixels"] != b["false_pixels"] for a, b in zip(counts, greedy, strict=True)
    ]
    assert sum(different) > 20


# --- rules, one by one -------------------------------------------------------------------------


def score(protocol: str, probability: NDArray[Any], mask: NDArray[Any], **options: Any) -> Any:
    scorer = Scorer(PROTOCOLS[protocol], **options)
    scorer.update(probability, mask)
    return scorer.compute()


def test_first_come_loses_a_target_that_optimal_matching_finds() -> None:
    mask = np.zeros((9, 12), dtype=bool)
    mask[4, 2] = mask[4, 6] = True
    probability = np.zeros((9, 12))
    probability[3, 4] = 0.9  # near to both, comes first
    probability[5, 2] = 0.9  # near to the left one only
    assert score("strict", probability, mask).pd == 1
    assert score("greedy", probability, mask).pd == 0.5


def test_mshnet256_forgets_false_components_of_a_matched_area() -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[4:6, 4:6] = True
    probability = mask.astype(float)
    probability[20:22, 20:22] = 1  # false, 4 pixels like the matched one
    probability[28, 28:31] = 1  # false, 3 pixels
    assert score("greedy", probability, mask).fa == 7 / 1024
    assert score("basicirstd", probability, mask).fa == 7 / 1024
    mshnet = score("mshnet256", probability, mask)
    assert mshnet.fa == 3 / 1024
    assert mshnet.false_alarms_per_image == 2  # only the pixel count forgets it
    assert mshnet.precision == 1 / 3


def test_a_centroid_exactly_3_pixels_away_is_not_a_match() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[2, 2] = True
    assert score("strict", np.roll(mask, 3, axis=1).astype(float), mask).pd == 0
    assert score("strict", np.roll(mask, (2, 2), axis=(0, 1)).astype(float), mask).pd == 1


def test_ties_take_the_larger_component_however_the_image_is_turned() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[4, 4] = True
    probability = np.zeros((9, 9))
    probability[4, 2] = 1
    probability[3:6, 6] = 1
    for turn in range(4):
        turned = score("strict", np.rot90(probability, turn), np.rot90(mask, turn))
        assert turned.fa == 1 / 81


def test_thresholds_are_exact_in_float32() -> None:
    # float32(0.3) lies above 0.3, float32(0.7) below 0.7; 0.5 is exact and not above itself.
    mask = np.ones((1, 1), dtype=bool)
    for value, above in [(0.3, True), (0.7, False), (0.5, False)]:
        report = score("strict", np.full((1, 1), value, np.float32), mask, threshold=value)
        assert report.pd == above


def test_soft_masks_count_above_half_their_maximum() -> None:
    mask = np.array([[0, 90, 180, 90, 0, 0]], dtype=np.uint8)
    report = score("strict", (mask == 180).astype(float), mask)
    assert (report.iou, report.pd, report.fa) == (1, 1, 0)


def test_operating_threshold_needs_not_be_a_point_of_the_roc() -> None:
    probability, mask = random_case(7)
    report = score("strict", probability, mask, threshold=0.6, thresholds=(0.2, 0.8))
    assert report.threshold == 0.6
    assert report.roc.thresholds == (0.2, 0.8)
    assert_report(report, [reference(probability, mask, "strict", 0.6)])


# --- merging -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_merging_a_split_in_any_order_is_the_whole(protocol: str) -> None:
    cases = [random_case(seed) for seed in range(120)]
    whole = Scorer(PROTOCOLS[protocol])
    for case in cases:
        whole.update(*case)
    shuffle = random.Random(0)
    for parts in (2, 3, 7):
        shuffle.shuffle(cases)
        scorers = [Scorer(PROTOCOLS[protocol]) for _ in range(parts)]
        for k, case in enumerate(cases):
            scorers[k * k % parts].update(*case)
        shuffle.shuffle(scorers)
        merged = Scorer(PROTOCOLS[protocol])
        for scorer in scorers:
            merged.merge(scorer)
        assert merged.compute() == whole.compute()


def test_computing_does_not_change_the_counts() -> None:
    scorer = Scorer(PROTOCOLS["strict"])
    scorer.update(*random_case(7))
    first = scorer.compute()
    assert scorer.compute() == first
    scorer.update(*random_case(15))
    assert scorer.compute().images == 2


@pytest.mark.parametrize(
    "other",
    [
        Scorer(PROTOCOLS["greedy"]),
        Scorer(PROTOCOLS["strict"], threshold=0.4),
        Scorer(PROTOCOLS["strict"], thresholds=(0.5,)),
    ],
)
def test_refuses_to_merge_other_rules(other: Scorer) -> None:
    with pytest.raises(OptionError, match="cannot be merged"):
        Scorer(PROTOCOLS["strict"]).merge(other)


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "probability",
    [
        np.array([[-3.0, 4.0]]),  # logits
        np.array([[0, 255]], dtype=np.uint8),  # gray levels
        np.array([[0.2, np.nan]]),
        np.array([[0.2, np.inf]]),
    ],
)
def test_refuses_what_is_not_a_probability(probability: NDArray[Any]) -> None:
    with pytest.raises(DataError, match=r"bring it into \[0, 1\]"):
        Scorer(PROTOCOLS["strict"]).update(probability, np.zeros((1, 2), dtype=bool))


@pytest.mark.parametrize("shape", [(2, 3), (3,), (1, 3, 2)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="does not fit its mask"):
        Scorer(PROTOCOLS["strict"]).update(np.zeros(shape), np.zeros((3, 2), dtype=bool))


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 127.5, math.nan])
def test_refuses_thresholds_outside_0_to_1(threshold: float) -> None:
    with pytest.raises(OptionError, match="threshold"):
        Scorer(PROTOCOLS["strict"], threshold=threshold)
    with pytest.raises(OptionError, match="threshold"):
        Scorer(PROTOCOLS["strict"], thresholds=(threshold,))


def test_protocols_are_named_and_say_what_they_need() -> None:
    assert list(PROTOCOLS) == ["strict", "greedy", "mshnet256", "basicirstd"]
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert [name for name, p in PROTOCOLS.items() if p.needs_model] == ["mshnet256", "basicirstd"]
    assert 0.5 in THRESHOLDS
