"""Conversions against the libraries that read them, on targets of every border and pixel."""

from __future__ import annotations

import csv
import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import pinglow.results
from pictures import full_mask
from pinglow.errors import MissingExtraError, OptionError
from pinglow.structures import BoolArray, Detections, Prediction, find_targets

HEIGHT, WIDTH = 40, 60
COLUMNS = ["x", "y", "left", "top", "width", "height", "area", "score"]


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    """Make a prediction whose second target lies in the notch of the first one."""
    probability = np.zeros((HEIGHT, WIDTH), np.float32)
    probability[10:15, 20] = probability[14, 20:26] = 0.95  # an L
    probability[10, 23:25] = 0.9  # in its box
    probability[0, 0] = 0.8
    probability[37:, 58:] = 1 / 3 + 0.3
    return Prediction(probability)


@pytest.fixture(scope="module")
def detections() -> Detections:
    """Make boxes whose edges lie between pixels."""
    return Detections(np.array([[5.25, 6.5, 3.0, 4.1], [0.0, 0.0, 1.0, 1.0]]), np.array([0.7, 0.6]))


def whole_mask(inside: BoolArray, bbox: tuple[int, int, int, int]) -> BoolArray:
    return full_mask((HEIGHT, WIDTH), bbox[0], bbox[1], inside)


def test_outlines_are_disjoint_and_make_up_the_mask(prediction: Prediction) -> None:
    total = np.zeros((HEIGHT, WIDTH), int)
    for target in prediction.targets:
        mask = whole_mask(prediction.outline_of(target), target.bbox)
        (alone,) = find_targets(mask)
        assert (alone.x, alone.y, alone.bbox, alone.area) == (
            target.x,
            target.y,
            target.bbox,
            target.area,
        )
        total += mask
    np.testing.assert_array_equal(total, prediction.mask)


def test_a_target_of_another_prediction_has_no_outline(prediction: Prediction) -> None:
    empty = Prediction(np.zeros((HEIGHT, WIDTH), np.float32))
    with pytest.raises(OptionError, match="no target of this prediction"):
        empty.outline_of(prediction.targets[0])


def test_a_dict_holds_what_a_target_is(prediction: Prediction, detections: Detections) -> None:
    found = prediction.to_dict()
    assert (found["width"], found["height"]) == (WIDTH, HEIGHT)
    assert json.loads(prediction.to_json()) == found
    for target, values in zip(prediction.targets, found["targets"], strict=True):
        assert {**values, "bbox": tuple(values["bbox"])} == {
            name: getattr(target, name) for name in ("x", "y", "bbox", "area", "score")
        }
    assert detections.to_dict() == {"targets": [each.to_dict() for each in detections.targets]}


@pytest.mark.parametrize("library", ["polars", "pandas"])
@pytest.mark.parametrize("name", ["prediction", "detections", "nothing"])
def test_a_data_frame_has_a_row_a_target(
    library: str, name: str, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip(library, reason=f"needs {library}")
    nothing = Prediction(np.zeros((4, 4), np.float32))
    found = nothing if name == "nothing" else request.getfixturevalue(name)
    table = found.to_dataframe(library)
    assert type(table).__module__.startswith(library)
    assert list(table.columns) == COLUMNS
    assert [str(kind).lower() for kind in table.dtypes] == [
        *("float64", "float64", "int32", "int32", "int32", "int32", "int32", "float64")
    ]
    rows = list(zip(*(table[column].to_list() for column in COLUMNS), strict=True))
    assert rows == [(t.x, t.y, *t.bbox, t.area, t.score) for t in found.targets]


def test_without_a_library_for_data_frames_one_sentence_says_so(
    prediction: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinglow.results, "is_installed", lambda package: package == "pandas")
    monkeypatch.setattr(importlib, "import_module", lambda name: _Frames(name))
    assert prediction.to_dataframe() == "pandas"
    monkeypatch.setattr(pinglow.results, "is_installed", lambda package: False)
    with pytest.raises(MissingExtraError, match=r"polars or pandas: pip install '.\[tables\]'"):
        prediction.to_dataframe()


class _Frames:
    def __init__(self, name: str) -> None:
        self.DataFrame = lambda columns: name


# pycocotools decodes with an __array__ that NumPy 2 complains about.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_results_load_in_pycocotools(prediction: Prediction) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    mask = importlib.import_module("pycocotools.mask")
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": 7, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 2, "name": "target"}],
        "annotations": [],
    }
    truth.createIndex()
    entries = json.loads(json.dumps(prediction.to_coco(7, category_id=2)))
    loaded = truth.loadRes(entries)
    for target, entry in zip(
        prediction.targets, loaded.loadAnns(loaded.getAnnIds([7])), strict=True
    ):
        assert (entry["category_id"], entry["score"]) == (2, target.score)
        # The box is what pycocotools itself finds around the pixels.
        assert entry["bbox"] == mask.toBbox(entry["segmentation"]).tolist()
        np.testing.assert_array_equal(
            loaded.annToMask(entry), whole_mask(prediction.outline_of(target), target.bbox)
        )
        ys, xs = np.nonzero(loaded.annToMask(entry))
        assert (target.x, target.y) == (xs.mean(), ys.mean())


def test_coco_results_of_boxes_are_not_rounded(detections: Detections) -> None:
    assert detections.to_coco(3) == [
        {"image_id": 3, "category_id": 1, "bbox": [5.25, 6.5, 3.0, 4.1], "score": 0.7},
        {"image_id": 3, "category_id": 1, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.6},
    ]


def test_supervision_has_the_same_boxes_and_pixels(
    prediction: Prediction, detections: Detections
) -> None:
    supervision = pytest.importorskip("supervision", reason="needs supervision")
    found = prediction.to_supervision()
    boxes = np.array([target.bbox for target in prediction.targets], float)
    np.testing.assert_array_equal(found.xyxy, supervision.xywh_to_xyxy(boxes))
    np.testing.assert_array_equal(found.box_area, boxes[:, 2] * boxes[:, 3])
    np.testing.assert_array_equal(found.area, [target.area for target in prediction.targets])
    for mask, target in zip(found.mask, prediction.targets, strict=True):
        np.testing.assert_array_equal(mask, whole_mask(prediction.outline_of(target), target.bbox))
        # A pixel's center, half a pixel into it, is at a whole coordinate of ours.
        (box,) = found[found.confidence == np.float64(target.score)].xyxy
        assert box[0] <= target.x + 0.5 < box[2]
    assert prediction.to_supervision(masks=False).mask is None

    np.testing.assert_allclose(detections.to_supervision().xyxy[0], [5.25, 6.5, 8.25, 10.6])
    (center,) = detections.to_supervision().get_anchors_coordinates(supervision.Position.CENTER)[:1]
    first = detections.targets[0]
    np.testing.assert_allclose(center, (first.x + 0.5, first.y + 0.5))
    scene = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = supervision.BoxAnnotator(thickness=1).annotate(scene.copy(), found)
    drawn = supervision.MaskAnnotator().annotate(drawn, found)
    assert drawn[12, 20].any()
    nothing = Prediction(np.zeros((4, 4), np.float32)).to_supervision()
    assert len(nothing) == 0
    assert nothing.is_empty()


def test_a_plot_shows_the_frame_or_the_probabilities(prediction: Prediction) -> None:
    frame = np.random.default_rng(0).normal(8000, 20, (HEIGHT, WIDTH)).astype(np.uint16)
    with_frame, without = np.asarray(prediction.plot(frame)), np.asarray(prediction.plot())
    assert with_frame.shape == without.shape
    assert with_frame[100:300, 300:400].std() > 10  # the frame's noise
    assert without[100:300, 300:400].std() == 0
    shown = Image.open(io.BytesIO(prediction._repr_png_()))
    np.testing.assert_array_equal(shown, without)
    with pytest.raises(
        OptionError, match=r"the frame is 40 x 60 pixels and its prediction 60 x 40"
    ):
        prediction.plot(frame.T)


def test_a_suffix_says_what_is_saved(prediction: Prediction, tmp_path: Path) -> None:
    for suffix in ("png", "npy", "tif", "json", "csv"):
        prediction.save(tmp_path / "new" / f"found.{suffix}")
    found = str(tmp_path / "new" / "found")
    np.testing.assert_array_equal(np.asarray(Image.open(f"{found}.png")) == 255, prediction.mask)
    for saved in (np.load(f"{found}.npy"), tifffile.imread(f"{found}.tif")):
        assert saved.dtype == np.float32
        np.testing.assert_array_equal(saved, prediction.probability)
    assert json.loads(Path(f"{found}.json").read_text()) == prediction.to_dict()
    with open(f"{found}.csv", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [tuple(map(float, row.values())) for row in rows] == [
        (t.x, t.y, *t.bbox, t.area, t.score) for t in prediction.targets
    ]


def test_parquet_is_the_data_frame(prediction: Prediction, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    polars = pytest.importorskip("polars", reason="needs polars")
    prediction.save(tmp_path / "found.parquet")
    assert polars.read_parquet(tmp_path / "found.parquet").equals(prediction.to_dataframe("polars"))


def test_an_unknown_suffix_is_told_in_one_sentence(
    prediction: Prediction, detections: Detections, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=r"found.xls .*\.png, \.npy, .*\.json, \.csv, \.parquet$"):
        prediction.save(tmp_path / "found.xls")
    with pytest.raises(OptionError, match=r"use one of \.json, \.csv, \.parquet$"):
        detections.save(tmp_path / "mask.png")
    assert list(tmp_path.iterdir()) == []
