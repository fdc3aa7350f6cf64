"""Scores against what they were drawn from, and tables against plain counting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from pinglow.errors import DataError, FrameError, OptionError
from pinglow.evaluation.calibration import CandidateCounter, collect_candidates
from pinglow.inference.predictor import Predictor
from pinglow.models.score import ScoreCalibration
from pinglow.structures import Prediction, components, find_targets

Scene = tuple[NDArray[np.float32], NDArray[np.bool_]]


def make_scenes(count: int = 40, seed: int = 0) -> list[Scene]:
    """Maps of single-pixel candidates, each true with the probability expit(logit - 1)."""
    random = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        probability = np.zeros((40, 80), np.float32)
        mask = np.zeros((40, 80), np.bool_)
        for y in range(5, 40, 10):
            for x in range(5, 80, 10):
                logit = random.uniform(-2, 6)
                probability[y, x] = expit(logit)
                mask[y, x] = random.random() < expit(logit - 1)
        scenes.append((probability, mask))
    return scenes


def score_alone(calibration: ScoreCalibration, peak: float, rim: float = 0.0) -> float:
    """Score of one pixel in an empty frame, beside which one has another probability."""
    probability = np.zeros((20, 20), np.float32)
    probability[9, 9:11] = peak, rim
    (candidate,) = components(probability > 0.1 if rim < 0.1 else probability > 0.5)
    return calibration.score(probability, candidate)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return make_scenes()


@pytest.fixture(scope="module")
def calibration(scenes: list[Scene]) -> ScoreCalibration:
    counter = CandidateCounter()
    for probability, mask in scenes:
        counter.update(probability, mask, "made up")
    return counter.fit()


def test_the_scores_are_the_shares_that_the_targets_were_drawn_with(
    calibration: ScoreCalibration,
) -> None:
    for logit in (-2, 0, 2, 4, 6):
        assert score_alone(calibration, float(expit(logit))) == pytest.approx(
            expit(logit - 1), abs=0.05
        )
    assert calibration.ece < 0.05
    for each in calibration.reliability:
        assert each.score == pytest.approx(each.true, abs=0.15)


def test_each_row_of_the_table_is_what_counting_gives(
    scenes: list[Scene], calibration: ScoreCalibration
) -> None:
    targets = sum(len(find_targets(mask)) for _, mask in scenes)
    assert calibration.frames == [
        {"data": "made up", "frames": 40, "targets": targets, "candidates": 40 * 32}
        | {"true": targets}
    ]
    for row in calibration.table[:: len(calibration.table) // 2]:
        right = wrong = 0
        for probability, mask in scenes:
            for target in Prediction(probability, 0.5, row.min_score, calibration.score).targets:
                hit = bool(mask[int(target.y), int(target.x)])
                right, wrong = right + hit, wrong + (not hit)
        assert row.pd == pytest.approx(right / targets)
        assert row.alarms_per_frame == pytest.approx(wrong / 40)
        assert row.alarms_per_megapixel == pytest.approx(wrong / (40 * 40 * 80 / 1e6))
    scores = [row.min_score for row in calibration.table]
    assert scores == sorted(set(scores), reverse=True)
    assert scores[-1] == 0


def test_a_number_of_alarms_chooses_the_lowest_score_that_keeps_to_it(
    calibration: ScoreCalibration,
) -> None:
    for row in calibration.table:
        assert calibration.level_of(calibration.score_for(row.alarms_per_frame)) == row
    few = calibration.table[0].model_copy(update={"alarms_per_frame": 0.1})
    with pytest.raises(OptionError, match=r"alarms_per_frame is 0\.05, .* use 0\.1 or more"):
        calibration.model_copy(update={"table": [few]}).score_for(0.05)


def test_saturated_probabilities_still_differ(calibration: ScoreCalibration) -> None:
    """A float32 probability of 1 is no more than one."""
    scores = [score_alone(calibration, value) for value in (0.2, 0.9999, 0.999999, 1.0)]
    assert scores == sorted(set(scores))
    assert scores[0] > 0
    assert scores[-1] < 1
    # Of two with a probability of 1, the one in darker surroundings is surer.
    assert score_alone(calibration, 1.0, rim=0.4) < scores[-1]


def test_two_candidates_on_one_target_are_one_hit() -> None:
    """The surer one has it, and the next target is free for the other."""
    mask = np.zeros((9, 20), np.bool_)
    mask[4, [4, 9]] = True
    probability = np.zeros((9, 20), np.float32)
    probability[4, [4, 6]] = 0.7, 0.9
    counter = CandidateCounter()
    counter.update(probability, mask)
    (frame,) = counter._frames[""]
    assert frame.true.tolist() == [True, False]
    mask[4, 7] = True
    counter.update(probability, mask)
    assert counter._frames[""][-1].true.tolist() == [True, True]


def test_too_few_candidates_are_refused() -> None:
    counter = CandidateCounter()
    with pytest.raises(DataError, match="0 frames have 0 true and 0 false candidates"):
        counter.fit()
    for probability, _ in make_scenes(2):
        counter.update(probability, np.zeros((40, 80), np.bool_))
    with pytest.raises(DataError, match="2 frames have 0 true and 64 false candidates"):
        counter.fit()


class Echo:
    """A predictor whose frames are their own maps; the second one fails."""

    def probabilities(self, frames: Iterable[NDArray[Any]]) -> Iterator[Any]:
        for number, frame in enumerate(frames):
            yield FrameError("does not fit") if number == 1 else frame


def test_a_frame_that_cannot_be_predicted_is_named(scenes: list[Scene]) -> None:
    pairs = [(f"f{number}", *scene) for number, scene in enumerate(scenes[:3])]
    told: list[str] = []
    counter, model = CandidateCounter(), cast(Predictor, Echo())
    collect_candidates(pairs, model, counter, "d", told.append)
    assert told == ["f1: does not fit"]
    assert len(counter._frames["d"]) == 2
    with pytest.raises(FrameError, match=r"^f1: does not fit"):
        collect_candidates(pairs, model, counter, "d")
