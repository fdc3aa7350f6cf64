"""Labels, contrast and scores in pictures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from pinglow.output.drawing import Contrast, Labeler, cut_inset, load_font, show_score

FONT = load_font(13)


def test_scores_keep_apart_what_two_digits_would_join() -> None:
    shown = [show_score(score) for score in (0.004, 0.5, 0.97, 0.9964, 0.9996, 0.9999996, 1.0)]
    assert shown == ["<1%", "50%", "97%", "99.6%", "99.96%", ">99.99%", "100%"]
    rising = [float(show_score(score).strip("<>%")) for score in np.linspace(0.01, 0.9999, 5000)]
    assert rising == sorted(rising)
    assert max(rising) < 100


def test_labels_cover_no_mark_and_no_other_label() -> None:
    random = np.random.default_rng(0)
    corners = random.integers(0, 280, (40, 2))
    marks = [(x, y, x + 12.0, y + 12.0) for x, y in corners.tolist()]
    canvas = Image.new("RGB", (300, 300))
    labeler = Labeler(canvas, canvas.size, marks, FONT)
    drawn = []
    for mark in marks:
        before = np.asarray(canvas).copy()
        written = labeler.write(mark, ["a long label", "b"], (255, 255, 255))
        rows, columns = np.nonzero((np.asarray(canvas) != before).any(axis=-1))
        assert written == bool(len(rows))
        if written:
            drawn.append((columns.min(), rows.min(), columns.max(), rows.max()))
    assert 10 < len(drawn) < 40
    for first, second in itertools.chain(
        itertools.combinations(drawn, 2), itertools.product(drawn, marks)
    ):
        apart = first[0] > second[2] or second[0] > first[2]
        assert apart or first[1] > second[3] or second[1] > first[3]


@pytest.mark.parametrize("place", [(0, 0), (59, 0), (0, 39), (59, 39), (30, 20)])
def test_an_inset_shows_the_target_in_the_frames_contrast(place: tuple[int, int]) -> None:
    frame = np.zeros((40, 60)) + np.linspace(0, 200, 60)
    x, y = place
    frame[y, x] = 255
    contrast = Contrast(0, 255)
    inset, (left, top, side, _), factor, raised = cut_inset(frame, contrast, (x, y, 1, 1), 5)
    assert (inset.size, side, factor, raised) == ((125, 125), 25, 5, 1)
    expected = np.rint(frame[top : top + 25, left : left + 25]).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(inset)[2::5, 2::5, 0], expected)


def test_an_inset_raises_a_contrast_that_would_hide_the_target() -> None:
    frame = np.zeros((40, 60))
    frame[20, 30] = 4
    inset, _, _, raised = cut_inset(frame, Contrast(0, 256), (30, 20, 1, 1), 5)
    assert raised == 64
    assert np.ptp(np.asarray(inset)) > 200
    assert cut_inset(frame * 0, Contrast(0, 256), (30, 20, 1, 1), 5)[3] == 1
