from __future__ import annotations

import sys

import numpy as np
import pytest

from pinglow.errors import MissingExtraError
from pinglow.inference.tracking import make_tracker
from pinglow.structures import Target


def target(x: float, y: float, score: float = 0.9) -> Target:
    return Target(x, y, (round(x) - 1, round(y) - 1, 3, 3), 9, score)


def test_moving_targets_keep_their_numbers() -> None:
    tracker = make_tracker(25.0)
    random = np.random.default_rng(0)
    seen = []
    for step in range(20):
        # 4 and 3 pixels a frame: more than the targets are wide.
        targets = [target(10 + 4 * step, 50), target(150 - 3 * step, 20 + step)]
        order = random.permutation(2)
        tracks = tracker.update([targets[place] for place in order])
        assert len(tracks) == 2
        seen.append([tracks[list(order).index(place)] for place in range(2)])
    assert seen[-1][0] != seen[-1][1]
    assert {tuple(row) for row in seen[3:]} == {tuple(seen[-1])}
    assert sorted(seen[-1]) == [1, 2]


def test_a_target_of_one_frame_is_no_track() -> None:
    tracker = make_tracker(25.0)
    random = np.random.default_rng(0)
    for _ in range(30):
        x, y = random.uniform(0, 5000, 2)
        assert tracker.update([target(x, y)]) == (None,)


def test_a_track_outlives_a_short_gap_and_not_a_long_one() -> None:
    tracker = make_tracker(20.0)
    for step in range(6):
        before = tracker.update([target(100 + 2 * step, 50)])
    for _ in range(4):
        assert tracker.update([]) == ()
    after = [tracker.update([target(100 + 2 * step, 50)]) for step in range(10, 14)]
    assert before == after[-1] == (1,)
    for _ in range(40):
        tracker.update([])
    later = [tracker.update([target(100 + 2 * step, 50)]) for step in range(54, 60)]
    assert later[-1] == (2,)


def test_without_the_library_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[video\]'"):
        make_tracker(25.0)
