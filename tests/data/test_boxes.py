"""Boxes of masks and folders, and conversions, against brute force and other readers."""

from __future__ import annotations

import json
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pinglow.data.boxes import BoxFolder, fill_boxes, mask_boxes
from pinglow.data.convert import convert_labels, gray_8_bits
from pinglow.data.folder import FrameFolder, read_split
from pinglow.errors import DataError, FrameError, OptionError, PinglowError
from pinglow.io.frames import read_only_frame
from pinglow.preprocess import normalize_frame
from pinglow.structures import Detections, find_targets

BOXES = ("voc", "yolo", "coco")
NAMES = ["a", "Misc_1", "s/scene.1"]


def make_mask(number: int, shape: tuple[int, int] = (24, 30)) -> NDArray[np.bool_]:
    """As many targets as the number, of different sizes."""
    mask = np.zeros(shape, dtype=np.bool_)
    for target in range(number):
        mask[2 + 6 * target : 4 + 7 * target, 3 + 5 * target : 5 + 6 * target] = True
    return mask


def make_folder(folder: Path) -> Path:
    """Three 16-bit frames with 0, 1 and 2 targets, one of them in a sub-folder."""
    rng = np.random.default_rng(1)
    for number, name in enumerate(NAMES):
        mask = make_mask(number)
        frame = (rng.normal(9000, 20, mask.shape) + 500 * mask).astype(np.uint16)
        for part, image in (("images", frame), ("masks", mask.astype(np.uint8) * 255)):
            (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / part / f"{name}.png")
    (folder / "train.txt").write_text("a\nMisc_1\n")
    (folder / "val.txt").write_text("s/scene.1\n")
    (folder / "all.txt").write_text("\n".join(NAMES))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "in")


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found}


@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    share=st.floats(0, 1),
    seed=st.integers(0, 999),
)
@settings(max_examples=80, deadline=None)
def test_mask_boxes_bound_each_component(shape: tuple[int, int], share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    expected = []
    for number in range(1, count + 1):
        ys, xs = np.nonzero(labels == number)
        expected.append([xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1])
    boxes = mask_boxes(mask)
    assert boxes.dtype == np.float64
    assert boxes.shape == (count, 4)
    assert sorted(boxes.tolist()) == sorted(expected)


def test_mask_boxes_are_in_raster_order() -> None:
    mask = np.zeros((9, 9), dtype=np.bool_)
    mask[0, 8] = mask[2:5, 6] = mask[3, 1] = mask[8, 0] = True
    assert mask_boxes(mask)[:, :2].tolist() == [[8, 0], [6, 2], [1, 3], [0, 8]]


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    box=st.tuples(*[st.floats(-15, 15)] * 2, *[st.floats(1e-6, 20)] * 2),
)
@settings(max_examples=150, deadline=None)
def test_a_filled_box_goes_to_the_nearest_pixel_edges(
    shape: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    def covered(start: float, length: float, side: int) -> list[bool]:
        first, last = np.floor(start + 0.5), np.floor(start + length + 0.5)
        if first == last:
            return [pixel <= start + length / 2 < pixel + 1 for pixel in range(side)]
        return [first <= pixel < last for pixel in range(side)]

    expected = np.outer(covered(box[1], box[3], shape[0]), covered(box[0], box[2], shape[1]))
    assert (fill_boxes(np.array([box]), shape) == expected).all()


def test_filled_boxes_are_joined_and_the_smallest_is_a_pixel() -> None:
    mask = fill_boxes(np.array([[2, 1, 3, 2], [7.9, 4.9, 0.1, 0.1], [0.6, 4.3, 0.3, 0.3]]), (5, 8))
    expected = np.zeros((5, 8), dtype=np.bool_)
    expected[1:3, 2:5] = expected[4, 7] = expected[4, 0] = True
    assert (mask == expected).all()
    assert not fill_boxes(np.zeros((0, 4)), (5, 8)).any()


@pytest.mark.parametrize("edge", [0.5, 1.5, 2.5, 3.49, 3.51])
def test_a_filled_box_has_the_pixels_of_a_detected_one(edge: float) -> None:
    boxes = np.array([[edge, edge, 1.0, 1.0]])
    (filled,) = find_targets(fill_boxes(boxes, (8, 8)))
    (detected,) = Detections(boxes, np.array([1.0])).targets
    assert filled.bbox == detected.bbox
    assert filled.area == detected.area == 1


def test_boxes_of_real_masks_are_the_published_boxes(shared_data: Path) -> None:
    masks = BoxFolder(shared_data / "sirst", "trainval")
    boxes = BoxFolder(shared_data / "sirst", "trainval", "voc")
    assert (masks.source, boxes.source) == ("masks", "voc")
    for index in range(40):
        expected = masks.boxes(index)
        assert len(expected)
        assert sorted(boxes.boxes(index).tolist()) == sorted(expected.tolist())


def test_a_mask_of_another_size_is_brought_to_the_frame(folder: Path) -> None:
    large = make_mask(2).repeat(2, 0).repeat(2, 1)
    Image.fromarray(large.astype(np.uint8) * 255).save(folder / "masks" / "a.png")
    frames = BoxFolder(folder, "train")
    assert (frames.mask(0) == make_mask(2)).all()
    assert (frames.boxes(0) == mask_boxes(make_mask(2))).all()


def test_masks_are_those_of_a_frame_folder(folder: Path) -> None:
    ours, theirs = BoxFolder(folder, "all"), FrameFolder(folder, "all")
    assert (ours.names, ours.folder, ours.split) == (theirs.names, theirs.folder, theirs.split)
    assert len(ours) == 3
    for index in range(3):
        for found, expected in zip(ours.pair(index), theirs.pair(index), strict=True):
            assert (found == expected).all()


@pytest.mark.parametrize("source", BOXES)
def test_there_and_back(folder: Path, tmp_path: Path, source: str) -> None:
    out = tmp_path / "out"
    seen: list[int] = []
    done = convert_labels(folder, ["all"], source, out, on_frame=lambda: seen.append(1))
    assert (done.frames, done.targets, done.broken, len(seen)) == (3, 3, {}, 3)
    if source != "yolo":
        (folder / "images").rename(out / "images")
    frames = BoxFolder(out, "all")
    assert frames.source == source
    assert frames.names == NAMES
    for number in range(3):
        mask = make_mask(number)
        assert (frames.boxes(number) == mask_boxes(mask)).all()
        assert frames.boxes(number).shape == (number, 4)
        assert (frames.mask(number) == mask).all()
        frame, filled = frames.pair(number)
        assert frame.shape == mask.shape
        assert (filled == mask).all()


def test_through_every_format(folder: Path, tmp_path: Path) -> None:
    before = folder
    for step in ("voc", "coco", "yolo"):
        after = tmp_path / step
        convert_labels(before, ["all"], step, after)
        if step != "yolo":
            (before / "images").rename(after / "images")
        before = after
    frames = BoxFolder(before, "all")
    for number in range(3):
        assert (frames.boxes(number) == mask_boxes(make_mask(number))).all()


def test_the_first_source_that_is_there_is_taken(folder: Path) -> None:
    for source in ("coco", "voc"):
        convert_labels(folder, ["all"], source, folder)
    convert_labels(folder, ["all"], "yolo", folder.parent / "yolo")
    (folder.parent / "yolo" / "labels").rename(folder / "labels")
    places = {"masks": "masks", "voc": "boxes", "yolo": "labels", "coco": "annotations"}
    for source, place in places.items():
        assert BoxFolder(folder, "all").source == source
        assert BoxFolder(folder, "all", source).source == source
        (folder / place).rename(folder / f"no-{place}")
    with pytest.raises(
        DataError, match=r"none of masks/, boxes/, labels/, annotations/SPLIT\.json or annotations"
    ):
        BoxFolder(folder, "all")


def test_one_annotations_file_serves_lists_that_have_none(folder: Path) -> None:
    convert_labels(folder, ["all"], "coco", folder)
    (folder / "annotations" / "all.json").rename(folder / "annotations.json")
    (folder / "mine.txt").write_text("Misc_1\n")
    frames = BoxFolder(folder, str(folder / "mine.txt"), "coco")
    assert (frames.boxes(0) == mask_boxes(make_mask(1))).all()


def test_an_image_in_coco_may_have_folders_before_its_name(folder: Path) -> None:
    convert_labels(folder, ["all"], "coco", folder)
    path = folder / "annotations" / "all.json"
    text = path.read_text()
    path.write_text(text.replace('"a.png"', '"D:\\\\data/images/a.png"'))
    assert BoxFolder(folder, "all", "coco").boxes(0).shape == (0, 4)
    coco = json.loads(text)
    coco["images"][0]["file_name"] = "x/a.png"
    coco["images"][1]["file_name"] = "y/a.png"
    path.write_text(json.dumps(coco))
    frames = BoxFolder(folder, "all", "coco")
    assert len(frames.boxes(2)) == 2
    with pytest.raises(DataError, match=r"all\.json has 2 images called 'a'"):
        frames.boxes(0)
    coco["images"][1]["file_name"] = "b.png"
    path.write_text(json.dumps(coco))
    with pytest.raises(DataError, match=r"all\.json has no images called 'Misc_1'"):
        BoxFolder(folder, "all", "coco").boxes(1)
    done = convert_labels(folder, ["all"], "voc", folder.parent / "out", source="coco")
    assert (done.frames, list(done.broken)) == (2, ["Misc_1"])
    (folder / "all.txt").write_text("Misc_1")
    with pytest.raises(DataError, match=r"no images called 'Misc_1'"):
        BoxFolder(folder, "all", "coco")


def test_coco_names_of_many_folders_take_no_memory(folder: Path) -> None:
    convert_labels(folder, ["all"], "coco", folder)
    path = folder / "annotations" / "all.json"
    coco = json.loads(path.read_text())
    coco["images"] += [
        {"id": 100 + number, "file_name": "x/" * 2000 + f"{number}.png", "width": 9, "height": 9}
        for number in range(50)
    ]
    path.write_text(json.dumps(coco))
    tracemalloc.start()
    frames = BoxFolder(folder, "all", "coco")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20e6  # every ending of every name would take 200 MB
    assert len(frames.boxes(1)) == 1


def test_one_bad_box_leaves_its_frame_out(folder: Path, tmp_path: Path) -> None:
    convert_labels(folder, ["all"], "coco", folder)
    path = folder / "annotations" / "all.json"
    coco = json.loads(path.read_text())
    coco["annotations"].append({"id": 9, "image_id": 1, "bbox": [4, 4, 0, 0]})
    path.write_text(json.dumps(coco))
    done = convert_labels(folder, ["all"], "yolo", tmp_path / "out", source="coco")
    assert (done.frames, done.targets) == (2, 3)
    assert list(done.broken) == ["a"]
    assert "has a box of 0 x 0 px" in done.broken["a"]


@pytest.mark.parametrize("source", ["coco", "voc", "yolo"])
def test_labels_are_found_in_either_unicode_form(tmp_path: Path, source: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    folder = make_folder(tmp_path / "in")
    for part in ("images", "masks"):
        (folder / part / "Misc_1.png").rename(folder / part / f"{composed}.png")
    (folder / "all.txt").write_text(composed)
    out = tmp_path / "out"
    convert_labels(folder, ["all"], source, out)
    if source == "coco":
        path = out / "annotations" / "all.json"
        path.write_text(path.read_text().replace(composed, decomposed))
    else:
        place = out / {"voc": "boxes", "yolo": "labels"}[source]
        (label,) = place.iterdir()
        label.rename(place / f"{decomposed}{label.suffix}")
    if source != "yolo":
        (folder / "images").rename(out / "images")
    assert (BoxFolder(out, "all", source).boxes(0) == mask_boxes(make_mask(1))).all()


def test_a_box_that_is_there_twice_counts_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    convert_labels(folder, ["all"], "voc", folder)
    path = folder / "boxes" / "Misc_1.xml"
    text = path.read_text()
    item = text[text.index("  <object>") : text.index("</annotation>")]
    path.write_text(text.replace(item, item * 3))
    assert len(BoxFolder(folder, "all", "voc").boxes(1)) == 1
    assert "the voc label of Misc_1 repeats a box" in caplog.text


def test_what_is_missing_or_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone is not a folder"):
        BoxFolder(tmp_path / "gone", "all")
    with pytest.raises(OptionError, match=r"'kitti' are unknown; use masks, voc, yolo, coco"):
        BoxFolder(folder, "all", "kitti")
    with pytest.raises(DataError, match=r"in has no labels/; add it"):
        BoxFolder(folder, "all", "yolo")
    for target in ("voc", "coco"):
        convert_labels(folder, ["all"], target, folder)
    Image.fromarray(np.zeros((9, 7), np.uint8)).save(folder / "images" / "a.png")
    frames = BoxFolder(folder, "all", "coco")
    with pytest.raises(DataError, match=r"all\.json: a is of a frame of 30 x 24, .* has 7 x 9"):
        frames.boxes(0)
    (folder / "boxes" / "Misc_1.xml").unlink()
    with pytest.raises(DataError, match=r"no boxes/ file for 'Misc_1' of list 'all'"):
        BoxFolder(folder, "all", "voc")
    (folder / "masks" / "a.png").unlink()
    with pytest.raises(DataError, match=r"no mask for 'a'"):
        BoxFolder(folder, "all")
    (folder / "images" / "Misc_1.png").write_bytes(b"")
    broken = BoxFolder(folder, "all", "coco")
    for read in (broken.frame, broken.boxes, broken.mask, broken.pair):
        with pytest.raises(FrameError, match=r"Misc_1\.png"):
            read(1)


def test_a_frame_is_read_once_for_its_boxes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def count(path: Path) -> object:
        read.append(path)
        return read_only_frame(path)

    convert_labels(folder, ["all"], "voc", folder)
    monkeypatch.setattr("pinglow.data.folder.read_only_frame", count)
    frames = BoxFolder(folder, "all", "voc")
    frames.frame(1)
    frames.boxes(1)
    frames.mask(1)
    assert len(read) == 1


# --- conversions ---------------------------------------------------------------------------------


def test_beside_the_frames_nothing_else_is_touched(folder: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {name: (folder / name).read_bytes() for name in files(folder)}

    before = contents()
    convert_labels(folder, ["train"], "voc", folder)
    convert_labels(folder, ["train", "val"], "coco", folder / "." / "")
    after = contents()
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {
        "boxes/a.xml", "boxes/Misc_1.xml", "annotations/train.json", "annotations/val.json",
    }  # fmt: skip
    with pytest.raises(OptionError, match=r"yolo brings images of its own"):
        convert_labels(folder, ["train"], "yolo", folder, overwrite=True)


def test_a_list_in_a_sub_folder_is_not_shadowed(folder: Path) -> None:
    (folder / "img_idx").mkdir()
    (folder / "train.txt").rename(folder / "img_idx" / "train_IN.txt")
    convert_labels(folder, ["train"], "voc", folder)
    assert not (folder / "train.txt").exists()


def test_yolo_is_what_its_trainer_reads(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_labels(folder, ["train", "val"], "yolo", out)
    assert files(out) == {
        "data.yaml", "train.txt", "val.txt",
        *(f"images/{name}.png" for name in NAMES), *(f"labels/{name}.txt" for name in NAMES),
    }  # fmt: skip
    assert (out / "train.txt").read_text() == "./images/a.png\n./images/Misc_1.png\n"
    assert read_split(out, "val") == ["s/scene.1"]
    assert (out / "data.yaml").read_text() == (
        f'path: "{out}"\ntrain: "train.txt"\nval: "val.txt"\nnames:\n  0: target\n'
    )
    frames = FrameFolder(folder, "all")
    for index, name in enumerate(NAMES):
        image = np.asarray(Image.open(out / "images" / f"{name}.png"))
        assert image.dtype == np.uint8
        assert (image == gray_8_bits(frames.frame(index))).all()


def test_an_interrupted_conversion_to_yolo_can_be_made_again(folder: Path, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_labels(folder, ["train", "val"], "yolo", tmp_path / "out", on_frame=interrupt)
    with pytest.raises(DataError, match=r"is there already; .*--overwrite"):
        convert_labels(folder, ["train", "val"], "yolo", tmp_path / "out")
    convert_labels(folder, ["train", "val"], "yolo", tmp_path / "out", overwrite=True)
    convert_labels(folder, ["train", "val"], "yolo", tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_one_list_is_for_training_and_validation_and_a_third_for_testing(
    folder: Path, tmp_path: Path
) -> None:
    for splits, keys in (
        (["all"], {"train": "all", "val": "all"}),
        (["train", "val", "all"], {"train": "train", "val": "val", "test": "all"}),
    ):
        out = tmp_path / str(len(splits))
        done = convert_labels(folder, splits, "yolo", out)
        assert done.frames == 3  # each once
        text = (out / "data.yaml").read_text()
        for key in ("train", "val", "test"):
            assert (f'{key}: "{keys.get(key)}.txt"' in text) == (key in keys)


def test_ultralytics_reads_the_same_boxes_and_pixels(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "needs ultralytics, whose trainer is to read the folder"
    pytest.importorskip("ultralytics", reason=reason)
    from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label
    from ultralytics.utils.patches import imread

    # It looks for a font on the network, to draw with.
    monkeypatch.setattr("ultralytics.data.utils.check_font", lambda font: None)
    names = read_split(shared_data / "sirst", "trainval")[:8]
    (tmp_path / "some.txt").write_text("\n".join(names))
    out = tmp_path / "out"
    convert_labels(shared_data / "sirst", [str(tmp_path / "some.txt")], "yolo", out)
    data = check_det_dataset(out / "data.yaml")
    assert data["names"] == {0: "target"}
    assert data["train"] == data["val"] == str(out / "some.txt")
    ours = BoxFolder(out, "some")
    for index, line in enumerate((out / "some.txt").read_text().splitlines()):
        image = str(out / line)
        (label,) = img2label_paths([image])
        _, rows, shape, *_, message = verify_image_label((image, label, "", False, 1, 0, 0, False))
        assert message == ""
        x, y, width, height = (rows[:, 1:] * np.tile(shape[::-1], 2)).T
        boxes = np.stack([x - width / 2, y - height / 2, width, height], axis=1)
        np.testing.assert_allclose(boxes, ours.boxes(index), atol=1e-3)  # float32
        pixels = imread(image)
        assert pixels is not None
        assert (pixels == ours.frame(index)[:, :, None]).all()


@pytest.mark.parametrize("target", BOXES)
def test_a_broken_frame_is_left_out(folder: Path, tmp_path: Path, target: str) -> None:
    (folder / "images" / "a.png").write_bytes(b"nothing")
    (folder / "images" / "s" / "scene.1.png").write_bytes(b"")
    out = tmp_path / "out"
    done = convert_labels(folder, ["train", "val"], target, out)
    assert (done.frames, done.targets) == (1, 1)
    assert list(done.broken) == ["a", "s/scene.1"]
    assert "a.png" in done.broken["a"]
    assert read_split(out, "train") == ["Misc_1"]
    assert not (out / "val.txt").exists()
    written = {Path(name).stem for name in files(out)}
    assert not written & {"a", "scene.1"}
    if target == "yolo":
        assert 'val: "train.txt"' in (out / "data.yaml").read_text()


def test_a_broken_label_is_left_out_too(folder: Path, tmp_path: Path) -> None:
    convert_labels(folder, ["all"], "voc", folder)
    (folder / "boxes" / "a.xml").write_text("<annotation>")
    done = convert_labels(folder, ["all"], "coco", tmp_path / "out", source="voc")
    assert done.frames == 2
    assert "a.xml" in done.broken["a"]


def test_where_everything_is_broken_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    for name in NAMES:
        (folder / "images" / f"{name}.png").write_bytes(b"")
    for target in BOXES:
        done = convert_labels(folder, ["all"], target, tmp_path / target)
        assert (done.frames, len(done.broken)) == (0, 3)
        assert not (tmp_path / target).exists()


@pytest.mark.parametrize(
    ("target", "there"),
    [
        ("voc", "boxes/Misc_1.xml"),
        ("yolo", "images/a.png"),
        ("yolo", "labels/Misc_1.txt"),
        ("coco", "annotations/train.json"),
    ],
)
def test_nothing_is_replaced_unless_told(
    folder: Path, tmp_path: Path, target: str, there: str
) -> None:
    out = tmp_path / "out"
    convert_labels(folder, ["train"], target, out)
    (out / there).write_bytes(b"mine")
    with pytest.raises(DataError, match=r"is there already; .* --overwrite"):
        convert_labels(folder, ["train"], target, out)
    assert (out / there).read_bytes() == b"mine"
    convert_labels(folder, ["train"], target, out, overwrite=True)
    assert (out / there).read_bytes() != b"mine"


def test_two_formats_share_a_folder_and_its_lists(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for target in ("voc", "coco"):
        convert_labels(folder, ["train"], target, out)
    (out / "val.txt").write_text("mine\n")
    with pytest.raises(DataError, match=r"val\.txt is there already"):
        convert_labels(folder, ["val"], "voc", out)
    assert (out / "val.txt").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("splits", "target", "error", "message"),
    [
        (["all"], "kitti", OptionError, r"'kitti' are unknown; use labelme, cvat, coco"),
        (["all", "{in}/all.txt"], "voc", OptionError, r"two of the lists all, all have one name"),
        (["all", "none"], "voc", DataError, r"no list none\.txt"),
        (["{in}/far.txt"], "yolo", DataError, r"has the line \.\./images/a, which is no frame"),
    ],
)
def test_impossible_conversions_write_nothing(
    folder: Path, tmp_path: Path, splits: list[str], target: str,
    error: type[PinglowError], message: str,
) -> None:  # fmt: skip
    (folder / "far.txt").write_text("../images/a\n")
    splits = [split.replace("{in}", str(folder)) for split in splits]
    (folder / "labels").mkdir()
    for name in ("labels/a.txt", "images/a.txt"):  # where the last list leads
        (folder / name).touch()
    with pytest.raises(error, match=message):
        convert_labels(folder, splits, target, tmp_path / "out", source="yolo")
    assert not (tmp_path / "out").exists()


def test_images_that_no_conversion_wrote_are_safe(folder: Path, tmp_path: Path) -> None:
    other = make_folder(tmp_path / "other")
    before = (other / "images" / "a.png").read_bytes()
    with pytest.raises(DataError, match=r"other has images but no data\.yaml"):
        convert_labels(folder, ["all"], "yolo", other, overwrite=True)
    assert (other / "images" / "a.png").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file is a file"):
        convert_labels(folder, ["all"], "voc", tmp_path / "file")


# --- 8 bits --------------------------------------------------------------------------------------

Make = Callable[[np.random.Generator], NDArray[np.generic]]


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.normal(9000, 15, (50, 60)).astype(np.uint16),
        lambda rng: rng.normal(120, 9, (50, 60)).astype(np.uint8),
        lambda rng: rng.normal(-3, 0.02, (50, 60)).astype(np.float32),
    ],
    ids=["16", "8", "float"],
)
def test_8_bits_keep_the_order_and_a_dim_target(make: Make) -> None:
    frame = make(np.random.default_rng(0))
    value = np.asarray(normalize_frame(frame), dtype=np.float64)
    gray = gray_8_bits(frame)
    assert gray.dtype == np.uint8
    assert (np.diff(gray.ravel()[np.argsort(frame, axis=None)].astype(int)) >= 0).all()
    # Half a level away at most, where it is in the range.
    back = gray * (11 / 255) - 4
    inside = (value > -4) & (value < 7)
    assert inside.all()
    assert np.abs(back - value).max() <= 5.5 / 255 + 1e-6


def test_8_bits_of_extreme_and_flat_frames() -> None:
    frame = np.random.default_rng(0).normal(8000, 10, (50, 60)).astype(np.uint16)
    frame[3, 4], frame[5, 6] = 0, 16383
    gray = gray_8_bits(frame)
    assert gray[3, 4] == 0
    assert gray[5, 6] == gray.max() > 240
    usual = np.delete(gray.ravel(), [3 * 60 + 4, 5 * 60 + 6])
    assert np.unique(usual).size > 30
    assert (gray_8_bits(np.full((4, 5), 700, np.uint16)) == 93).all()
    holed = frame.astype(np.float32)
    holed[0, 0] = np.nan
    assert gray_8_bits(holed)[0, 0] == 93


def test_labels_that_lie_elsewhere_are_not_taken_for_frames_without_targets(folder: Path) -> None:
    """ultralytics also has labels/train/NAME.txt; a whole list without labels is a mistake."""
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match="has no label for any frame of list 'all'"):
        BoxFolder(folder, "all", "yolo")
    (folder / "labels" / "a.txt").touch()
    assert len(BoxFolder(folder, "all", "yolo").boxes(0)) == 0
