"""Results files, and what a comparison makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow.data.digests import digest_frame
from pinglow.errors import DataError
from pinglow.evaluation.boxes import ScoredBoxes
from pinglow.evaluation.compare import compare_results, judge, rank_frames
from pinglow.evaluation.compare_files import write_tables
from pinglow.evaluation.pixels import ScoredFrame
from pinglow.evaluation.results import BoxResults, PixelResults
from pinglow.evaluation.results_file import (
    collect_box_results,
    collect_results,
    digest_truth,
    read_results,
    write_results,
)
from pinglow.metrics import PROTOCOLS, BoxScorer, Scorer
from pinglow.metrics import report as report_module
from pinglow.structures import Detections

HOW = PROTOCOLS["strict"], 0.5
Map = tuple[NDArray[np.float64], NDArray[np.bool_]]


def make_maps(quality: float, count: int = 30, seed: int = 0) -> dict[str, Map]:
    """Frames with a target each, found with a probability, and sometimes a false pixel."""
    truth, found = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    maps = {}
    for index in range(count):
        mask = np.zeros((24, 32), dtype=bool)
        row, column = truth.integers(4, 16, size=2)
        mask[row : row + 3, column : column + 2 + index % 3] = True
        probability = np.where(mask, 0.9 if found.random() < quality else 0.2, 0.01)
        if found.random() > quality:
            probability[0, 0] = 0.7
        maps[f"f{index:02}"] = probability, mask
    return maps


def results_of(maps: dict[str, Map], method: str, **changes: Any) -> PixelResults:
    scored, digests = [], {}
    for name, (probability, mask) in maps.items():
        scorer = Scorer(*HOW)
        scorer.update(probability, mask)
        scored.append(ScoredFrame(name, [scorer], [probability]))
        digests[name] = digest_truth(digest_frame(mask), mask)
    about = {"method": method, "origin": {}, "data": "folder", "list": "test"}
    about |= {"protocol": "strict", "threshold": 0.5}
    return PixelResults(**about | collect_results(scored, HOW, digests) | changes)


@pytest.fixture(scope="module")
def poor() -> PixelResults:
    return results_of(make_maps(0.4), "poor")


@pytest.fixture(scope="module")
def good() -> PixelResults:
    return results_of(make_maps(0.95), "good")


# --- results files ---------------------------------------------------------------------------


def test_a_file_gives_the_report_of_its_maps_again(tmp_path: Path) -> None:
    maps = make_maps(0.7)
    path = tmp_path / "results" / "a.json"
    write_results(results_of(maps, "a"), path)
    again = read_results(path)
    together, part = Scorer(*HOW), Scorer(*HOW, thresholds=again.thresholds)
    for probability, mask in maps.values():
        together.update(probability, mask)
    for name in list(maps)[::2]:
        part.update(*maps[name])
    assert again.report(list(maps)) == together.compute()
    assert again.report(list(maps)[::2]) == part.compute()
    for name, (probability, _) in maps.items():
        np.testing.assert_array_equal(again.mask(name), probability > 0.5)


def test_a_map_of_noise_is_not_kept_pixel_by_pixel() -> None:
    checks = np.indices((100, 100)).sum(axis=0) % 2
    results = results_of({"f0": (checks.astype(float), np.zeros((100, 100), bool))}, "noise")
    assert results.mask("f0") is None
    assert results.report(["f0"]).fa == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-40], "is no results file"),
        (lambda text: "[]", "is no results file"),
        (lambda text: json.dumps(json.loads(text) | {"thresholds": [0.5]}), "is no results file"),
        (lambda text: json.dumps(json.loads(text) | {"format": 9}), "is of format 9"),
    ],
)
def test_what_is_no_results_file_is_told(
    tmp_path: Path, poor: PixelResults, change: Any, message: str
) -> None:
    write_results(poor, tmp_path / "a.json")
    (tmp_path / "a.json").write_text(change((tmp_path / "a.json").read_text()))
    with pytest.raises(DataError, match=message):
        read_results(tmp_path / "a.json")


# --- comparisons -----------------------------------------------------------------------------


def resample_by_hand(
    first: PixelResults, second: PixelResults, draws: int = 2000
) -> NDArray[np.float64]:
    """Differences in IoU over draws of frames, one draw after the other."""
    random = np.random.default_rng(99)
    tables = [np.array([f.counts for f in each.frames.values()]) for each in (first, second)]
    differences = []
    for _ in range(draws):
        drawn = random.integers(len(tables[0]), size=len(tables[0]))
        ious = [table[drawn][:, 1].sum() / table[drawn][:, 2].sum() for table in tables]
        differences.append(ious[1] - ious[0])
    return np.array(differences)


def test_a_difference_has_the_interval_of_a_bootstrap_by_hand(
    poor: PixelResults, good: PixelResults
) -> None:
    comparison = compare_results([poor, good])
    first, second = comparison.rows
    assert first.differences == {}
    found = second.differences["iou"]
    assert found.value == second.report.iou - first.report.iou  # type: ignore[operator]
    expected = np.percentile(resample_by_hand(poor, good), [2.5, 97.5])
    np.testing.assert_allclose(found.interval, expected, atol=0.02)
    verdicts = {key: each.verdict for key, each in second.differences.items()}
    assert verdicts["iou"] == verdicts["pd"] == verdicts["fa"] == "better"
    assert second.differences["fa"].value < 0  # fewer false pixels
    back = compare_results([good, poor]).rows[1].differences
    assert back["iou"].verdict == back["fa"].verdict == "worse"


def test_a_method_does_not_differ_from_itself(good: PixelResults) -> None:
    twin = good.model_copy(update={"method": "twin"})
    for found in compare_results([good, twin]).rows[1].differences.values():
        assert (found.value, found.interval) == (0, (0, 0))
        assert found.verdict == "no difference shown"
    assert rank_frames(compare_results([good, twin])) == []


def test_few_frames_are_not_judged() -> None:
    scores, draws = np.array([0.25, 0.75]), np.full((9, 2), (0.25, 0.75))
    verdicts = [judge("iou", scores, draws, frames=frames) for frames in (4, 5)]
    assert [each and each.verdict for each in verdicts] == ["too few frames", "better"]
    assert judge("pd", scores * np.nan, draws * np.nan, frames=5) is None


def test_a_frame_that_one_lacks_is_left_out_of_all(poor: PixelResults, good: PixelResults) -> None:
    kept = {name: frame for name, frame in good.frames.items() if name not in ("f03", "f04")}
    less = good.model_copy(update={"frames": kept, "left_out": ("f03", "f04")})
    comparison = compare_results([poor, less])
    assert comparison.left_out == {"f03": ("good",), "f04": ("good",)}
    assert [row.report.images for row in comparison.rows] == [28, 28]
    assert comparison.first.report == poor.report(list(kept))


def test_results_that_do_not_fit_together_are_refused(
    poor: PixelResults, good: PixelResults
) -> None:
    other = make_maps(0.9, seed=7)
    refused = {
        "two methods at least": [poor],
        "have one name": [poor, poor],
        "scored by greedy at threshold 0.5, the other by strict": [
            poor,
            good.model_copy(update={"protocol": "greedy"}),
        ],
        "different lists (f29 in only one)": [poor, results_of(make_maps(0.9, 29), "good")],
        "masks of one name differ (f00, f01, f02, f03 and": [poor, results_of(other, "good")],
    }
    for message, methods in refused.items():
        with pytest.raises(DataError) as caught:
            compare_results(methods)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_frames_are_ranked_by_how_much_the_methods_differ() -> None:
    maps = make_maps(1.0, 6)
    worse = dict(maps)
    probability, mask = maps["f02"]
    worse["f02"] = np.where(mask, 0.2, probability), mask  # missed
    probability, mask = maps["f04"]
    twice = np.where(mask, 0.2, probability)
    twice[0, 0] = 0.9  # missed, and a false alarm
    worse["f04"] = twice, mask
    comparison = compare_results([results_of(maps, "a"), results_of(worse, "b")])
    assert rank_frames(comparison) == ["f04", "f02"]


def test_tables_hold_the_names_as_they_are(
    tmp_path: Path, poor: PixelResults, good: PixelResults
) -> None:
    named = good.model_copy(update={"method": "a_b|50%\n$x$"})
    write_tables(compare_results([poor, named]), tmp_path)
    markdown, tex = (tmp_path / "table.md").read_text(), (tmp_path / "table.tex").read_text()
    assert "| a_b\\|50%\\n$x$ |" in markdown
    assert r"a\_b|50\%\textbackslash{}n\$x\$ &" in tex
    assert tex.count(r" \\") == 1 + 2 + 2 + 3
    rows = [line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()]
    csv = dict(zip(rows[0], rows[1], strict=True))
    assert float(csv["iou"]) == compare_results([poor, named]).first.report.iou
    assert _column(markdown, 2)[2] == f"{100 * float(csv['niou']):.1f}"


def _column(markdown: str, number: int) -> Sequence[str]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [line.split("|")[number + 1].split()[0] for line in lines]


# --- boxes -----------------------------------------------------------------------------------


def box_results(quality: float, method: str, **changes: Any) -> BoxResults:
    """Of frames with two boxes each, found with a probability, and sometimes a false one."""
    truth, found = np.random.default_rng(3), np.random.default_rng([3, 1])
    scored = []
    for index in range(40):
        true = np.column_stack([truth.uniform(0, 80, (2, 2)), truth.uniform(2, 9, (2, 2))])
        kept = true[found.random(2) < quality] + found.uniform(-0.3, 0.3, 4)
        if found.random() > quality:
            kept = np.vstack([kept, [90, 90, 3, 3]])
        boxes = Detections(np.abs(kept), found.uniform(0.2, 1, len(kept)))
        scored.append(ScoredBoxes(f"f{index:02}", boxes, true, (96, 100)))
    digests = {each.name: "0" * 16 for each in scored}
    about = {"method": method, "origin": {}, "data": "folder", "list": "test"}
    about |= {"protocol": "strict", "threshold": 0.3, "source": "voc"}
    return BoxResults(**about | collect_box_results(scored, digests) | changes)


def scorer_of(results: BoxResults, names: Sequence[str]) -> BoxScorer:
    scorer = BoxScorer(PROTOCOLS["strict"])
    for frame in (results.frames[name] for name in names):
        boxes = np.array(frame.boxes).reshape(-1, 5)
        scorer.update(boxes[:, :4], boxes[:, 4], np.array(frame.true), frame.shape)
    return scorer


def test_boxes_are_compared_draw_by_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faster_coco_eval", reason="needs pip install '.[detect]'")
    monkeypatch.setattr(report_module, "RESAMPLES", 200)
    write_results(box_results(0.5, "poor"), tmp_path / "poor.json")
    poor, good = read_results(tmp_path / "poor.json"), box_results(0.95, "good")
    assert isinstance(poor, BoxResults)
    comparison = compare_results([poor, good])
    assert comparison.first.report == scorer_of(poor, list(poor.frames)).compute(0.3)
    second = comparison.rows[1]
    monkeypatch.setattr(report_module, "RESAMPLES", 1)  # of those by hand
    random, names = np.random.default_rng(8), list(poor.frames)
    drawn = [random.choice(names, len(names)) for _ in range(40)]
    pairs = [[scorer_of(m, each).compute(0.3) for m in (poor, good)] for each in drawn]
    for key in ("ap50", "pd", "fa"):
        expected = [getattr(after, key) - getattr(before, key) for before, after in pairs]
        low, high = second.differences[key].interval
        assert low < np.mean(expected) < high
        assert (high - low) / np.std(expected) == pytest.approx(3.92, rel=0.4)
    assert second.differences["ap50"].verdict == second.differences["pd"].verdict == "better"
    write_tables(comparison, tmp_path)
    assert "| poor | " in (tmp_path / "table.md").read_text()


def test_boxes_are_counted_by_size_and_at_each_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faster_coco_eval", reason="needs pip install '.[detect]'")
    monkeypatch.setattr(report_module, "RESAMPLES", 10)
    results = box_results(0.9, "a")
    names = list(results.frames)
    sizes = results.find_sizes(names)
    assert sum(targets for targets, _ in sizes.values()) == 80
    scorer = scorer_of(results, names)
    report_of = {level: scorer.compute(level) for level in (0.0, 0.3)}
    assert sum(found for _, found in sizes.values()) == round(80 * (report_of[0.3].pd or 0))
    traded = results.trade_off(names)
    assert traded.matches[0] == round(80 * (report_of[0.0].pd or 0))
    assert traded.false_area[0] / traded.pixels == pytest.approx(report_of[0.0].fa)
    assert np.all(np.diff(traded.found) <= 0)
    assert traded.found[-1] == 0


def test_boxes_and_pixels_are_not_compared(good: PixelResults) -> None:
    with pytest.raises(DataError, match="score both with the same --score"):
        compare_results([good, box_results(0.5, "boxes")])


def test_no_true_box_and_none_found_is_a_comparison_without_precision() -> None:
    pytest.importorskip("faster_coco_eval", reason="needs pip install '.[detect]'")
    empty = box_results(0.5, "a")
    nothing = {n: f.model_copy(update={"boxes": (), "true": ()}) for n, f in empty.frames.items()}
    methods = [empty.model_copy(update={"frames": nothing, "method": name}) for name in "ab"]
    comparison = compare_results(methods)
    assert comparison.first.report.ap50 is None
    assert set(comparison.rows[1].differences) == {"fa", "false_alarms_per_image"}
    assert rank_frames(comparison) == []
