"""Labels of every format, as their tools write them, become the masks that they mean."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pinglow.data.convert import convert_labels
from pinglow.data.derived import read_derived
from pinglow.data.folder import FrameFolder, read_split
from pinglow.data.importing import Import, import_labels
from pinglow.errors import DataError, OptionError, PinglowError
from pinglow.io.labels.formats import FORMATS, find_format, find_label_files
from pinglow.structures import BoolArray

SHAPE = (24, 30)
SPOTS = {"a": [(3, 4)], "b": [(10, 5), (11, 5)], "c": [(20, 12), (21, 13), (21, 14)], "d": []}
"""Targets of 1, 2 and 3 pixels (x, y), and a frame without any."""


def truth(name: str) -> BoolArray:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    for x, y in SPOTS[name]:
        mask[y, x] = True
    return mask


def write_images(folder: Path, names: str = "abcd") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for name in names:
        frame = (rng.normal(9000, 20, SHAPE) + 3000 * truth(name)).astype(np.uint16)
        Image.fromarray(frame).save(folder / f"{name}.png")
    return folder


def box(name: str) -> tuple[int, int, int, int]:
    xs, ys = zip(*SPOTS[name], strict=True)
    return min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1


def squares(name: str) -> list[list[list[float]]]:
    """The outline of each pixel."""
    return [[[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]] for x, y in SPOTS[name]]


# --- as the tools write them ----------------------------------------------------------------------


def labelme_shape(kind: str, points: list[Any], **more: Any) -> dict[str, Any]:
    return {"label": "ship", "points": points, "shape_type": kind, "flags": {}, **more}


def write_labelme(folder: Path, name: str, shapes: list[dict[str, Any]]) -> None:
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png",
               "imageData": None, "imageHeight": SHAPE[0], "imageWidth": SHAPE[1]}  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(content))


def labelme(folder: Path) -> None:
    write_images(folder)
    for name in SPOTS:
        write_labelme(folder, name, [labelme_shape("polygon", ring) for ring in squares(name)])


def cvat(folder: Path) -> None:
    write_images(folder / "images")
    images = []
    for number, name in enumerate(SPOTS):
        shapes = ""
        if name == "c":  # off first, row by row
            where = 'left="20" top="12" width="2" height="3"'
            shapes = f'<mask label="ship" rle="0, 1, 2, 1, 1, 1" {where}/>'
        else:
            for ring in squares(name):
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring)
                shapes += f'<polygon label="ship" source="manual" points="{points}"/>'
        images.append(
            f'<image id="{number}" name="{name}.png" width="30" height="24">{shapes}</image>'
        )
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta/>'
    (folder / "annotations.xml").write_text(f"{head}{''.join(images)}</annotations>")


def coco(folder: Path) -> None:
    write_images(folder / "images")
    images = [
        {"id": number, "file_name": f"{name}.png", "width": 30, "height": 24}
        for number, name in enumerate(SPOTS)
    ]
    rows = []
    for number, name in enumerate("abc"):
        counts = [int(run) for run in np.diff(np.flatnonzero(np.diff(np.concatenate(
            [[2], truth(name).T.ravel().astype(int), [2]]))))]  # fmt: skip
        outline: Any = {"counts": counts, "size": list(SHAPE)}
        if name == "b":
            outline = [np.ravel(ring).tolist() for ring in squares(name)]
        rows.append({"id": number, "image_id": number, "category_id": 1, "iscrowd": 1,
                     "bbox": box(name), "segmentation": outline})  # fmt: skip
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "ship"}]}
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_default.json").write_text(json.dumps(content))


def pack_brush(values: NDArray[np.uint8]) -> list[int]:
    """Runs, in thi.ng's rle-pack."""
    lengths = [3, 7, 11, 15]  # less 1, as they are written
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{length - 1:04b}" for length in [4, 8, 12, 16])
    edges = [0, *(np.flatnonzero(np.diff(values.astype(int))) + 1).tolist(), len(values)]
    for start, end in itertools.pairwise(edges):
        count = end - start - 1
        size = next(place for place, length in enumerate(lengths) if count < 2 ** (length + 1))
        bits += f"1{size:02b}{count:0{lengths[size] + 1}b}{values[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def labelstudio(folder: Path) -> None:
    write_images(folder)
    tasks = []
    for name in SPOTS:
        results = []
        size = {"original_width": 30, "original_height": 24, "image_rotation": 0}
        for ring in squares(name):
            points = [[x * 100 / 30, y * 100 / 24] for x, y in ring]
            value: dict[str, Any] = {"points": points, "polygonlabels": ["ship"]}
            results.append({"type": "polygonlabels", "value": value, **size})
        if name == "c":
            alpha = np.repeat(truth(name).ravel()[:, None] * np.uint8(255), 4, axis=1)
            value = {"format": "rle", "rle": pack_brush(alpha.ravel()), "brushlabels": ["ship"]}
            results = [{"type": "brushlabels", "value": value, **size}]
        image = f"/data/upload/1/1a2b3c4d-{name}.png"
        cancelled = {"was_cancelled": True, "result": [{"type": "x"}]}
        tasks.append({"id": 1, "data": {"image": image}, "predictions": [],
                      "annotations": [cancelled, {"result": results}]})  # fmt: skip
    (folder / "project-1.json").write_text(json.dumps(tasks))


def fiftyone_mask(mask: NDArray[Any]) -> str:
    file = io.BytesIO()
    np.save(file, mask)
    return base64.b64encode(zlib.compress(file.getvalue())).decode()


def fiftyone(folder: Path) -> None:
    write_images(folder / "data")
    samples = []
    for name in SPOTS:
        rows = []
        if SPOTS[name]:
            left, top, width, height = box(name)
            mask: Any = fiftyone_mask(truth(name)[top : top + height, left : left + width])
            if name == "b":
                mask = {"$binary": {"base64": mask, "subType": "00"}}
            rows = [{"_cls": "Detection", "label": "ship", "mask": mask,
                     "bounding_box": [left / 30, top / 24, width / 30, height / 24]}]  # fmt: skip
        samples.append({"filepath": f"data/{name}.png", "metadata": {"width": 30, "height": 24},
                        "ground_truth": {"_cls": "Detections", "detections": rows}})  # fmt: skip
    (folder / "samples.json").write_text(json.dumps({"samples": samples}))
    (folder / "metadata.json").write_text("{}")


def voc(folder: Path) -> None:
    write_images(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for name in SPOTS:
        item = ""
        if SPOTS[name]:
            x, y, w, h = box(name)
            item = (f"<object><name>ship</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
                    f"<xmax>{x + w + 1}</xmax><ymax>{y + h + 1}</ymax></bndbox>"
                    "</object>")  # fmt: skip
        text = f"<annotation><filename>{name}.jpg</filename>{item}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)


def yolo(folder: Path) -> None:
    write_images(folder / "images" / "train")
    (folder / "labels" / "train").mkdir(parents=True)
    for name in "abc":  # d has no file
        lines = "".join(
            f"3 {' '.join(f'{x / 30:.9f} {y / 24:.9f}' for x, y in ring)}\n"
            for ring in squares(name)
        )
        if name == "a":
            x, y, w, h = box(name)
            lines = f"3 {(x + w / 2) / 30} {(y + h / 2) / 24} {w / 30} {h / 24}\n"
        (folder / "labels" / "train" / f"{name}.txt").write_text(lines)


WRITERS: dict[str, Callable[[Path], None]] = {
    "labelme": labelme, "cvat": cvat, "coco": coco, "labelstudio": labelstudio,
    "fiftyone": fiftyone, "voc": voc, "yolo": yolo,
}  # fmt: skip
EXACT = [name for name in WRITERS if name not in ("voc", "yolo")]


def make(folder: Path, form: str) -> Path:
    folder.mkdir(parents=True)
    WRITERS[form](folder)
    return folder


def check_masks(out: Path, names: str = "abcd") -> None:
    frames = FrameFolder(out, "all") if (out / "all.txt").exists() else FrameFolder(out, "train")
    assert frames.names == sorted(names)
    for index, name in enumerate(frames.names):
        frame, mask = frames.pair(index)
        assert frame.dtype == np.uint16
        assert (mask == truth(name)).all(), name


# --- tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_is_told_and_imported(tmp_path: Path, form: str) -> None:
    source = make(tmp_path / "in", form)
    assert find_format(source) == form
    done = import_labels(source, tmp_path / "out")
    assert (done.format, done.frames, done.targets, done.empty) == (form, 4, 3, 1)
    assert done.broken == []
    assert done.unlabeled == 0
    assert set(done.names) == ({"3"} if form == "yolo" else {"ship"})
    for image in source.rglob("*.png"):
        assert (tmp_path / "out" / "images" / image.name).read_bytes() == image.read_bytes()
    if form in EXACT:
        assert done.derived == {}
        check_masks(tmp_path / "out")
    else:
        assert done.derived["a"] == "boxes"
        assert read_derived(tmp_path / "out") == done.derived
        assert FrameFolder(tmp_path / "out", next(iter(done.lists))).mask(0)[4, 3]
    assert [page.name for page in done.pages] == ["page-1.png"]
    assert done.pages[0].is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_every_format_has_a_writer_here() -> None:
    assert set(WRITERS) == set(FORMATS)


def folder_of_truth(tmp_path: Path) -> Path:
    folder = tmp_path / "truth"
    write_images(folder / "images")
    (folder / "masks").mkdir()
    for name in SPOTS:
        Image.fromarray(truth(name).astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")
    (folder / "all.txt").write_text("a\nb\nc\nd\n")
    return folder


@pytest.mark.parametrize("form", ["labelme", "cvat", "coco"])
def test_there_and_back_keeps_targets_of_one_two_and_three_pixels(
    tmp_path: Path, form: str
) -> None:
    folder = folder_of_truth(tmp_path)
    done = convert_labels(folder, ["all"], form, tmp_path / "labels")
    assert (done.frames, done.targets) == (4, 3)
    back = import_labels(tmp_path / "labels", tmp_path / "out", images=folder / "images")
    assert (back.format, back.broken, back.derived) == (form, [], {})
    check_masks(tmp_path / "out")


@pytest.mark.parametrize("form", ["labelme", "cvat", "coco"])
def test_predicted_targets_become_labels(tmp_path: Path, form: str) -> None:
    images = write_images(tmp_path / "frames")
    results = tmp_path / "results"
    (results / "masks").mkdir(parents=True)
    lines = []
    for name in SPOTS:
        mask = Image.fromarray(truth(name).astype(np.uint8) * 255)
        mask.save(results / "masks" / f"{name}_mask.png")
        targets = (
            [{"x": 1, "y": 1, "bbox": box(name), "area": 1, "score": 0.25}] if SPOTS[name] else []
        )
        lines.append({"source": str(images / f"{name}.png"), "frame": 0, "name": name, "width": 30,
                      "height": 24, "targets": targets})  # fmt: skip
    (results / "targets.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = convert_labels(results, [], form, tmp_path / "labels")
    assert (done.frames, done.targets, done.broken) == (4, 3, {})
    back = import_labels(tmp_path / "labels", tmp_path / "out", images=images)
    assert back.broken == []
    check_masks(tmp_path / "out")
    text = "".join(path.read_text() for path in (tmp_path / "labels").rglob("*.json"))
    assert form == "cvat" or "0.25" in text
    with pytest.raises(OptionError, match="yolo brings 8-bit images"):
        convert_labels(results, [], "yolo", tmp_path / "yolo")
    lines[1]["source"] = lines[0]["source"]
    (results / "targets.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = convert_labels(results, [], form, tmp_path / "again")
    assert done.frames == 2
    assert "one of several in a file" in done.broken["b"]


def test_shapes_of_labelme(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in")
    picture = io.BytesIO()
    Image.fromarray(truth("c")[12:15, 20:22].astype(np.uint8)).save(picture, "PNG")
    mask = base64.b64encode(picture.getvalue()).decode()
    write_labelme(folder, "a", [labelme_shape("point", [[3.4, 4.7]])])
    write_labelme(folder, "b", [labelme_shape("rectangle", [[12, 6], [10, 5]])])
    write_labelme(folder, "c", [labelme_shape("mask", [[20, 12], [21, 14]], mask=mask)])
    write_labelme(folder, "d", [labelme_shape("circle", [[9.5, 9.5], [9.5, 10.5]])])
    done = import_labels(folder, tmp_path / "out")
    assert done.broken == []
    assert done.derived == {"a": "points", "b": "boxes"}
    masks = FrameFolder(tmp_path / "out", "all")
    for index, name in enumerate("abc"):
        assert (masks.mask(index) == truth(name)).all()
    assert masks.mask(3).sum() == 5
    boxed = import_labels(folder, tmp_path / "boxes", keep_boxes=True)
    assert not (tmp_path / "boxes" / "masks").exists()
    assert boxed.frames == 3
    assert "is a point, which has no box" in boxed.broken[0]


def test_names_are_chosen(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in")
    bird = {**labelme_shape("polygon", squares("b")[0]), "label": "bird"}
    write_labelme(folder, "b", [bird, labelme_shape("polygon", squares("b")[1])])
    done = import_labels(folder, tmp_path / "out", only=["bird"])
    assert (done.names, done.left, done.targets) == ({"bird": 1}, {"ship": 1}, 1)
    assert done.unlabeled == 3
    with pytest.raises(
        OptionError, match="--only plane: no label is called so; there are bird, ship"
    ):
        import_labels(folder, tmp_path / "no", only=["plane"])
    assert not (tmp_path / "no").exists()


def test_images_without_a_label_are_left_out_unless_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "labelme")
    (folder / "d.json").unlink()
    (folder / "b.json").write_text("{")  # broken, so b is not free of targets
    done = import_labels(folder, tmp_path / "out")
    assert (done.frames, done.unlabeled) == (2, 1)
    assert "b.json is not whole JSON" in done.broken[0]
    kept = import_labels(folder, tmp_path / "kept", keep_unlabeled=True)
    assert (kept.frames, kept.unlabeled, kept.empty) == (3, 0, 1)
    assert read_split(tmp_path / "kept", "all") == ["a", "c", "d"]


Spoil = Callable[[dict[str, Any]], object]


def spoiled(tmp_path: Path, form: str, file: str, change: Callable[[Any], object]) -> Import:
    folder = make(tmp_path / "in", form)
    path = folder / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return import_labels(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("form", "file", "change", "message"),
    [
        ("labelme", "b.json", lambda c: c["shapes"][0]["points"].__delitem__(slice(2, 4)),
         "polygon of 2 points: it needs three"),
        ("labelme", "b.json", lambda c: c["shapes"][0].update(shape_type="line"), "has no area"),
        ("labelme", "b.json", lambda c: c.update(imageHeight=99), "frame of 30 x 99, but"),
        ("labelme", "b.json", lambda c: c.update(imagePath="gone.png"), "no image gone.png"),
        ("labelme", "b.json", lambda c: c["shapes"][0].update(shape_type="mask", mask="x",
         points=[[1, 1], [2, 2]]), "no mask as PNG in base64"),
        ("coco", "annotations/instances_default.json",
         lambda c: c["annotations"][0]["segmentation"].update(size=[30, 24]),
         r"mask of size [30, 24], but the frame has [24, 30]"),
        ("coco", "annotations/instances_default.json",
         lambda c: c["annotations"][0]["segmentation"]["counts"].append(4), "of 724 pixels, but"),
        ("coco", "annotations/instances_default.json",
         lambda c: c["annotations"][1].update(segmentation=[[1, 2, 3]]), "half a corner"),
        ("coco", "annotations/instances_default.json",
         lambda c: c["images"][0].update(file_name="gone.png"), "no image gone.png"),
        ("labelstudio", "project-1.json",
         lambda c: c[0]["annotations"][1]["result"][0]["value"].update(points=[[430, 2]] * 3),
         "are percent of the frame's sides"),
        ("labelstudio", "project-1.json",
         lambda c: c[2]["annotations"][1]["result"][0]["value"]["rle"].__delitem__(slice(9, 99)),
         "brush that was cut short"),
        ("fiftyone", "samples.json",
         lambda c: c["samples"][0]["ground_truth"]["detections"][0].update(bounding_box=[9] * 4),
         "are 4 shares of the frame's sides"),
        ("fiftyone", "samples.json",
         lambda c: c["samples"][0]["ground_truth"]["detections"][0].update(
             mask=fiftyone_mask(np.array([{}], dtype=object))), "no mask as a NumPy array"),
    ],
)  # fmt: skip
def test_one_wrong_label_leaves_its_frame_out(
    tmp_path: Path, form: str, file: str, change: Spoil, message: str
) -> None:
    done = spoiled(tmp_path, form, file, change)
    assert done.frames == 3
    (reason,) = done.broken
    assert message in reason
    assert Path(file).name in reason
    assert "\n" not in reason


def test_what_cannot_begin_is_one_sentence_and_writes_nothing(tmp_path: Path) -> None:
    source, out = make(tmp_path / "in", "labelme"), tmp_path / "out"
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").touch()
    (tmp_path / "empty").mkdir()
    video = tmp_path / "video.xml"
    video.write_text("<annotations><track id='0'/></annotations>")
    cases: list[tuple[Path, Path, dict[str, Any], str]] = [
        (source, tmp_path / "used", {}, "used is in use: name a new folder"),
        (tmp_path / "gone", out, {}, "gone does not exist"),
        (tmp_path / "empty", out, {}, "empty holds no labels of labelme, CVAT for images, COCO"),
        (source, out, {"form": "kitti"}, "--format kitti is unknown: choose from labelme, cvat"),
        (source, out, {"form": "voc"}, "holds no labels of Pascal VOC"),
        (source, out, {"polarity": "red"}, "--polarity red is unknown"),
        (source, out, {"images": tmp_path / "no"}, "no is no folder: name the one with the images"),
        (video, out, {}, "CVAT's XML for video"),
    ]
    for place, target, options, message in cases:
        with pytest.raises(PinglowError, match=message) as caught:
            import_labels(place, target, **options)
        assert "\n" not in str(caught.value)
    assert not out.exists()
    voc(source)
    with pytest.raises(DataError, match=r"several formats: labelme \(a\.json\), voc"):
        import_labels(source, out)
    assert import_labels(source / "a.json", out).frames == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "path: x\nnames: [w, x, 'y', drone]\nnc: 4\n"),
        ("data.yaml", "names:\n  0: w\n  3: drone\ntrain: a"),
        ("data.yaml", "names:\n- w\n- x\n- y\n- drone\n"),
        ("labels/classes.txt", "w\nx\ny\ndrone\n"),
    ],
)
def test_classes_of_yolo_have_names(tmp_path: Path, file: str, text: str) -> None:
    source = make(tmp_path / "in", "yolo")
    (source / file).write_text(text)
    done = import_labels(source, tmp_path / "out", only=["drone"])
    assert set(done.names) == {"drone"}
    assert done.frames == 4


ODD: list[Any] = [
    None, True, -1, 0, 1e400, 10**400, "", "x", [], {}, [[]], [1, 2, 3], 2**40, 1.5, [None, None],
]  # fmt: skip


@pytest.mark.parametrize("form", [name for name, each in FORMATS.items() if each.suffix == ".json"])
def test_whatever_stands_in_a_file_is_one_sentence(tmp_path: Path, form: str) -> None:
    def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        if not isinstance(node, dict | list):
            return [path]
        inner = node.items() if isinstance(node, dict) else enumerate(node)
        return [path, *(each for key, part in inner for each in places(part, (*path, key)))][:400]

    source = make(tmp_path / "in", form)
    text = find_label_files(source, form)[1 if form == "labelme" else 0].read_text()
    found = places(json.loads(text))[1:]
    path = tmp_path / "odd.json"
    for number in range(0, len(found) * len(ODD), max(len(found) * len(ODD) // 150, 1)):
        content = json.loads(text)
        *way, last = found[number % len(found)]
        node = content
        for key in way:
            node = node[key]
        node[last] = ODD[number // len(found)]
        path.write_text(json.dumps(content))
        with contextlib.suppress(DataError):  # anything else fails
            for labeled in FORMATS[form].read(path):
                if labeled.marks is not None:
                    labeled.marks(SHAPE)


def test_images_of_one_name_are_told_by_their_folders(tmp_path: Path) -> None:
    for part in ("one", "two"):
        make(tmp_path / "in" / part, "labelme")
    done = import_labels(tmp_path / "in", tmp_path / "out")
    assert done.frames == 8
    assert (tmp_path / "out" / "masks" / "two" / "c.png").is_file()


def test_an_image_above_one_of_its_name_is_the_one_that_is_named(tmp_path: Path) -> None:
    for part in ("images", "images/sub"):
        write_images(tmp_path / "in" / part, "b")
    image = '<image id="0" name="{}" width="30" height="24">{}</image>'
    mark = '<points label="t" points="10.5,5.5"/>'
    rows = image.format("b.png", mark) + image.format("sub/b.png", "")
    (tmp_path / "in" / "annotations.xml").write_text(f"<annotations>{rows}</annotations>")
    for number, images in enumerate([None, tmp_path / "in" / "images"]):
        out = tmp_path / str(number)
        assert not import_labels(tmp_path / "in", out, images=images).broken
        masks = [np.asarray(Image.open(out / "masks" / name)) for name in ("b.png", "sub/b.png")]
        assert [bool(mask.any()) for mask in masks] == [True, False]


def test_an_empty_label_file_away_from_its_image_is_no_frame_without_targets(
    tmp_path: Path,
) -> None:
    source = make(tmp_path / "in", "labelme")
    images = write_images(tmp_path / "images")
    for image in source.rglob("*.png"):
        image.unlink()
    [label] = source.rglob("c.json")
    label.write_text("")
    done = import_labels(source, tmp_path / "out", images=images, keep_unlabeled=True)
    assert done.frames == 3
    assert len(done.broken) == 1
    assert "c.json is not whole JSON" in done.broken[0]


def test_panoptic_coco_is_named_as_what_it_is(tmp_path: Path) -> None:
    write_images(tmp_path / "in" / "images", "b")
    content = {
        "images": [{"id": 1, "file_name": "b.png"}],
        "annotations": [{"image_id": 1, "file_name": "b.png", "segments_info": [{"id": 5}]}],
    }
    (tmp_path / "in" / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"panoptic kind.*export instances"):
        import_labels(tmp_path / "in", tmp_path / "out")


def test_several_files_and_folders_called_train_give_lists(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "coco")
    path = source / "annotations" / "instances_default.json"
    content = json.loads(path.read_text())
    for title, names in (("train", "ab"), ("val", "cd")):
        images = [image for image in content["images"] if image["file_name"][0] in names]
        ids = {image["id"] for image in images}
        rows = [row for row in content["annotations"] if row["image_id"] in ids]
        part = {**content, "images": images, "annotations": rows}
        path.with_name(f"instances_{title}.json").write_text(json.dumps(part))
    path.unlink()
    done = import_labels(source, tmp_path / "out")
    assert done.lists == {"train": 2, "val": 2}
