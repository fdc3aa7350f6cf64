"""What is ignored is no pixel: nothing is found there, and nothing else changes by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pinglow.errors import FrameError, OptionError
from pinglow.inference.ignored import Ignored
from pinglow.inference.pipeline import run
from pinglow.inference.predictor import Predictor
from pinglow.io.source import open_source
from pinglow.output.sink import FrameRecord, Sink
from pinglow.structures import Detections


@pytest.fixture
def frame() -> Any:
    return np.random.default_rng(0).normal(8000, 20, (40, 60)).astype(np.uint16)


def test_rectangles_and_masks_add_up() -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[5, 7] = 3
    area = Ignored([(0, 0, 2, 1), (1, 2, 3, 2)], mask).area((6, 8))
    expected = np.zeros((6, 8), bool)
    expected[0, :2] = expected[2:4, 1:4] = expected[5, 7] = True
    np.testing.assert_array_equal(area, expected)


def test_it_is_what_a_masked_array_is_and_is_not_found(small_model: Path, frame: Any) -> None:
    frame[:6, :20] = 65535  # a symbol
    frame[20:22, 30:32] = 8400
    ignore = Ignored([(0, 0, 20, 6)])
    area = ignore.area(frame.shape)
    whole = Predictor.load(small_model, backend="torch")
    assert isinstance(whole, Predictor)
    masked = whole.probability(np.ma.MaskedArray(frame, area))
    for flips in (False, True):
        predictor = Predictor.load(small_model, backend="torch", ignore=ignore, flips=flips)
        assert isinstance(predictor, Predictor)
        found = predictor.probability(frame)
        assert found[area].max() == 0
        if not flips:
            np.testing.assert_array_equal(found[~area], masked[~area])
        changed = frame.copy()
        changed[area] = 0
        np.testing.assert_array_equal(predictor.probability(changed), found)


def test_boxes_centered_in_it_go() -> None:
    boxes = np.array([[0, 0, 4, 4], [9, 1, 4, 4], [58, 38, 4, 4]], float)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7]))
    kept = Ignored([(0, 0, 10, 10), (59, 39, 1, 1)]).clear(found, (40, 60))
    assert kept.scores.tolist() == [0.8]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["1,2,3"], "--ignore '1,2,3' has 3 numbers: give x,y,w,h"),
        (["1,2,0,4"], "the ignored rectangle 1,2,0,4 is impossible"),
        (["-1,2,3,4"], "the ignored rectangle -1,2,3,4 is impossible"),
        (["1.5,2,3,4"], "--ignore '1.5,2,3,4' is neither a file nor x,y,w,h"),
        (["0,0;5,5"], "--ignore '0,0;5,5' has 2 different points: a polygon has 3 or more"),
        (["0,0;5,5;1"], "--ignore '0,0;5,5;1' is no polygon"),
        (["gone.png"], "--ignore 'gone.png' is neither a file nor x,y,w,h"),
        (["black.png"], "--ignore black.png has no pixel above 0"),
        (["small.png", "large.png"], "large.png is of 9 x 7 pixels, another mask of 8 x 6"),
    ],
)
def test_words_that_mean_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, size, value in (("black", (8, 6), 0), ("small", (8, 6), 1), ("large", (9, 7), 1)):
        Image.new("L", size, value).save(f"{name}.png")
    with pytest.raises(OptionError, match=message.replace(".", r"\.")):
        Ignored.parse(words)


def test_words_that_mean_something(tmp_path: Path) -> None:
    Image.fromarray(np.eye(6, 8, dtype=np.uint8)).save(tmp_path / "mask", "PNG")
    assert Ignored.parse([]) is None
    parsed = Ignored.parse([" 0, 0,2,1 ", str(tmp_path / "mask")])
    assert parsed is not None
    expected = np.eye(6, 8, dtype=bool)
    expected[0, :2] = True
    np.testing.assert_array_equal(parsed.area((6, 8)), expected)


@pytest.mark.parametrize(
    ("ignore", "message"),
    [
        (Ignored([(50, 0, 11, 5)]), "50,0,11,5 reaches out of a frame of 60 x 40"),
        (Ignored(crop=(0, 30, 60, 11)), "crop 0,30,60,11 reaches out of a frame of 60 x 40"),
        (
            Ignored(polygons=[[[(0, 0), (61, 0), (0, 3)]]]),
            "polygon, x 0 to 61, y 0 to 3, reaches out of a frame of 60 x 40",
        ),
        (Ignored(mask=np.eye(6)), "mask is of 6 x 6 pixels, the frame of 60 x 40"),
        (Ignored([(0, 0, 60, 40)]), "the whole frame is ignored"),
    ],
)
def test_what_does_not_fit_a_frame(
    small_model: Path, frame: Any, ignore: Ignored, message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        Predictor.load(small_model, backend="torch", ignore=ignore)(frame)


def test_a_mask_of_no_shape_is_refused() -> None:
    with pytest.raises(OptionError, match="give \\(H, W\\)"):
        Ignored(mask=np.ones(3))
    with pytest.raises(OptionError, match="ignores nothing"):
        Ignored(mask=np.zeros((3, 3)))


class Memory(Sink):
    def __init__(self) -> None:
        self.records: list[FrameRecord] = []

    def write(self, record: FrameRecord) -> None:
        self.records.append(record)


def test_a_job_leaves_out_what_it_does_not_fit(small_model: Path, tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    for name, height in zip(names, (40, 30, 40), strict=True):
        Image.fromarray(np.full((height, 60), 50, np.uint8)).save(tmp_path / f"{name}.png")
    sources = [open_source(tmp_path / f"{name}.png") for name in names]
    predictor = Predictor.load(small_model, backend="torch", ignore=Ignored([(0, 35, 9, 5)]))
    memory = Memory()
    summary = run(sources, predictor, [memory])
    assert summary.frames == 2
    assert summary.holed == 0
    ((name, reason),) = summary.broken
    assert name == sources[1].name
    assert "reaches out of a frame of 60 x 30" in reason
    for record in memory.records:
        assert record.ignored is not None
        assert record.ignored.sum() == 45
        assert np.isfinite(record.frame).all()  # as it was read
    assert run(sources[1:], predictor, [Memory()]).frames == 1  # also if it is the first
    with pytest.raises(OptionError, match=r"b\.png: the ignored rectangle"):
        run(sources[1:2] * 2, predictor, [Memory()])


def test_a_crop_is_searched_as_a_frame_of_its_own(small_model: Path, frame: Any) -> None:
    frame[20:22, 30:32] = 8400
    alone = Predictor.load(small_model, backend="torch")
    ignore = Ignored([(12, 10, 4, 4)], crop=(10, 8, 40, 30))
    cropped = Predictor.load(small_model, backend="torch", ignore=Ignored(crop=(10, 8, 40, 30)))
    both = Predictor.load(small_model, backend="torch", ignore=ignore)
    assert isinstance(alone, Predictor)
    assert isinstance(cropped, Predictor)
    assert isinstance(both, Predictor)
    expected = np.zeros(frame.shape, np.float32)
    expected[8:38, 10:50] = alone.probability(frame[8:38, 10:50])
    np.testing.assert_array_equal(cropped.probability(frame), expected)
    assert both.probability(frame)[10:14, 12:16].max() == 0
    assert both.probability(frame)[ignore.area(frame.shape)].max() == 0
    frame[:8] = 65535  # what lies outside does not matter
    np.testing.assert_array_equal(cropped.probability(frame), expected)


def test_boxes_of_a_crop_have_their_place_in_the_frame() -> None:
    found = Detections(np.array([[0, 0, 4, 4], [9, 1, 4, 4]], float), np.array([0.9, 0.8]))
    kept = Ignored([(20, 8, 8, 8)], crop=(10, 8, 40, 30)).clear(found, (40, 60))
    assert kept.boxes.tolist() == [[10, 8, 4, 4]]


def test_polygons_of_every_kind_add_up(tmp_path: Path) -> None:
    (tmp_path / "sky.json").write_text(
        '{"shapes": [{"points": [[1, 1], [4, 1], [4, 3], [1, 3]]},'
        '{"shape_type": "rectangle", "points": [[5, 0], [7, 2]]},'
        '{"shape_type": "point", "points": [[0, 5]]}]}'
    )
    (tmp_path / "sky.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {},'
        '"geometry": {"type": "Polygon", "coordinates":'
        "[[[0, 3], [8, 3], [8, 6], [0, 6], [0, 3]], [[2, 4], [4, 4], [4, 5], [2, 5], [2, 4]]]}}]}"
    )
    parsed = Ignored.parse(
        [str(tmp_path / "sky.json"), str(tmp_path / "sky.geojson"), "0,0;1,0;1,1;0,1"]
    )
    assert parsed is not None
    expected = np.zeros((6, 8), bool)
    expected[0, 0] = expected[1:3, 1:4] = expected[:2, 5:7] = expected[3:] = True
    expected[4, 2:4] = False
    np.testing.assert_array_equal(parsed.area((6, 8)), expected)
