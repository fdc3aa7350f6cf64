"""Box files against independent readers, and what a broken one says."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pinglow.errors import DataError
from pinglow.io.labels.boxes import BoxArray
from pinglow.io.labels.coco import read_coco, read_coco_marks, write_coco
from pinglow.io.labels.voc import read_voc, write_voc
from pinglow.io.labels.yolo import read_yolo, write_yolo

SHAPE = (40, 60)
BOXES = np.array([[3, 5, 4, 2], [0, 0, 60, 40], [58.25, 39.5, 1.75, 0.5]])


@st.composite
def frames(draw: st.DrawFn) -> tuple[tuple[int, int], BoxArray]:
    """A size and boxes inside it, to 1e-6 px."""
    shape = draw(st.integers(1, 20_000)), draw(st.integers(1, 20_000))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        spans = []
        for side in (shape[1], shape[0]):
            start = draw(st.integers(0, side * 10**6 - 1))
            length = draw(st.integers(1, side * 10**6 - start))
            spans.append((start / 10**6, length / 10**6))
        (left, width), (top, height) = spans
        boxes.append((left, top, width, height))
    # What lies in the first pixel is taken for shares of a frame.
    assume(all(max(x + w, y + h) > 1 for x, y, w, h in boxes))
    return shape, np.array(boxes, dtype=np.float64).reshape(-1, 4)


def voc_text(*boxes: tuple[Any, ...], size: str = "", before: str = "") -> str:
    objects = "".join(
        f"<object><name>ship</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    return f"{before}<annotation>{size}{objects}</annotation>"


def coco_dict(*boxes: list[float], **changes: Any) -> dict[str, Any]:
    coco: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.png", "width": 60, "height": 40}],
        "annotations": [
            {"id": n, "image_id": 7, "category_id": 3, "bbox": box} for n, box in enumerate(boxes)
        ],
    }
    return {**coco, **changes}


@given(frame=frames())
@settings(max_examples=150, deadline=None)
def test_every_format_gives_back_what_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, frame: tuple[tuple[int, int], BoxArray]
) -> None:
    folder, (shape, boxes) = tmp_path_factory.mktemp("f"), frame
    write_voc(folder / "a.xml", boxes, shape, "a.png")
    boxes_2 = read_voc(folder / "a.xml", shape)
    write_coco(folder / "a.json", [("a.png", shape, boxes_2)])
    image = read_coco(folder / "a.json")["a"]
    stated, boxes_3 = image.shape, image.boxes(shape)
    write_yolo(folder / "a.txt", boxes_3, shape)
    boxes_4 = read_yolo(folder / "a.txt", shape)
    assert stated == shape
    for read in (boxes_2, boxes_3, boxes_4):
        assert read.dtype == np.float64
        assert read.shape == boxes.shape
        assert (read == boxes).all()
    assert {path.name for path in folder.iterdir()} == {"a.xml", "a.json", "a.txt"}


def test_voc_counts_edges_from_1(tmp_path: Path) -> None:
    write_voc(tmp_path / "a.xml", BOXES[:1], SHAPE, "a.png")
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    bndbox = root.find("object/bndbox")
    assert bndbox is not None
    edges = {edge.tag: edge.text for edge in bndbox}
    assert edges == {"xmin": "4", "ymin": "6", "xmax": "8", "ymax": "8"}
    assert root.findtext("object/name") == "target"
    assert (root.findtext("size/width"), root.findtext("size/height")) == ("60", "40")
    assert root.findtext("filename") == "a.png"


def test_a_yolo_line_is_center_and_size_over_the_frame(tmp_path: Path) -> None:
    write_yolo(tmp_path / "a.txt", BOXES, SHAPE)
    rows = np.loadtxt(tmp_path / "a.txt")
    assert (rows[:, 0] == 0).all()
    left, top, width, height = BOXES.T
    expected = (left + width / 2) / 60, (top + height / 2) / 40, width / 60, height / 40
    np.testing.assert_allclose(rows[:, 1:].T, expected, rtol=1e-11)


def test_coco_has_what_its_readers_ask_for(tmp_path: Path) -> None:
    empty = np.zeros((0, 4))
    write_coco(tmp_path / "a.json", [("s/é.tif", (5, 9), empty), ("b.png", SHAPE, BOXES)])
    coco = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert coco["categories"] == [{"id": 1, "name": "target"}]
    assert coco["images"] == [
        {"id": 1, "file_name": "s/é.tif", "width": 9, "height": 5},
        {"id": 2, "file_name": "b.png", "width": 60, "height": 40},
    ]
    assert [row["bbox"] for row in coco["annotations"]] == BOXES.tolist()
    assert [row["area"] for row in coco["annotations"]] == [8, 2400, 0.875]
    for number, row in enumerate(coco["annotations"], start=1):
        assert (row["id"], row["image_id"], row["category_id"], row["iscrowd"]) == (number, 2, 1, 0)


def test_coco_tools_load_the_json(tmp_path: Path) -> None:
    reason = "needs pycocotools, an independent reader"
    coco_module = pytest.importorskip("pycocotools.coco", reason=reason)
    write_coco(tmp_path / "a.json", [("e.png", SHAPE, np.zeros((0, 4))), ("b.png", SHAPE, BOXES)])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO(str(tmp_path / "a.json"))
    assert coco.getCatIds() == [1]
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["e.png", "b.png"]
    assert coco.getAnnIds(imgIds=[1]) == []
    read = [row["bbox"] for row in coco.loadAnns(coco.getAnnIds(imgIds=[2]))]
    assert read == BOXES.tolist()


def test_real_voc_files_keep_their_numbers(shared_data: Path, tmp_path: Path) -> None:
    def edges(path: Path) -> list[list[str | None]]:
        root = ElementTree.parse(path).getroot()
        return [[edge.text for edge in bndbox] for bndbox in root.iter("bndbox")]

    paths = sorted((shared_data / "sirst" / "boxes").iterdir())[::20]
    assert len(paths) > 20
    for path in paths:
        root = ElementTree.parse(path).getroot()
        shape = int(root.findtext("size/height", "")), int(root.findtext("size/width", ""))
        write_voc(tmp_path / path.name, read_voc(path, shape), shape, f"{path.stem}.png")
        assert edges(tmp_path / path.name) == edges(path)


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_voc_without_a_size_and_of_any_class_is_read(tmp_path: Path, size: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(voc_text((4, 6, 8, 8), (" 1.5 ", 1, 2.75, 2), size=size))
    assert read_voc(path, SHAPE).tolist() == [[3, 5, 4, 2], [0.5, 0, 1.25, 1]]


def test_voc_may_declare_an_encoding_and_have_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    text = voc_text((4, 6, 8, 8), before='<?xml version="1.0" encoding="utf-8"?>\n')
    path.write_bytes(text.encode("utf-8-sig"))
    assert len(read_voc(path, SHAPE)) == 1


def test_yolo_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf3  0.5\t0.5 0.1 0.1\r\n\r\n0.0 5e-1 .5 1e-1 0.1")
    assert read_yolo(path, SHAPE).tolist() == [[27, 18, 6, 4]] * 2


def test_no_targets(tmp_path: Path) -> None:
    empty = np.zeros((0, 4))
    write_voc(tmp_path / "a.xml", empty, SHAPE, "a.png")
    write_yolo(tmp_path / "a.txt", empty, SHAPE)
    assert (tmp_path / "a.txt").read_bytes() == b""
    for boxes in (
        read_voc(tmp_path / "a.xml", SHAPE),
        read_yolo(tmp_path / "a.txt", SHAPE),
        read_yolo(tmp_path / "absent.txt", SHAPE),
    ):
        assert boxes.shape == (0, 4)
    with pytest.raises(DataError, match=r"no/a\.txt does not exist"):
        read_yolo(tmp_path / "no" / "a.txt", SHAPE)
    with pytest.raises(DataError, match=r"absent\.xml does not exist"):
        read_voc(tmp_path / "absent.xml", SHAPE)
    with pytest.raises(DataError, match=r"absent\.json does not exist"):
        read_coco(tmp_path / "absent.json")


def test_coco_crowds_and_every_class_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coco = coco_dict([1, 2, 3, 4], [5, 6, 7, 8])
    coco["annotations"][0]["iscrowd"] = 1
    coco["images"].append({"id": 2, "file_name": "s\\scene.1.tif", "width": 9, "height": 8})
    (tmp_path / "a.json").write_text(json.dumps(coco))
    read = read_coco(tmp_path / "a.json")
    assert list(read) == ["a", "s/scene.1"]
    assert read["a"].boxes(SHAPE).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert read["s/scene.1"].shape == (8, 9)
    assert read["s/scene.1"].boxes((8, 9)).shape == (0, 4)
    assert "1 of 2 boxes have iscrowd 1 and are taken" in caplog.text


def read_as_voc(folder: Path, box: tuple[float, ...]) -> BoxArray:
    left, top, width, height = box
    text = voc_text((left + 1, top + 1, left + 1 + width, top + 1 + height))
    (folder / "a.xml").write_text(text)
    return read_voc(folder / "a.xml", SHAPE)


def read_as_yolo(folder: Path, box: tuple[float, ...]) -> BoxArray:
    left, top, width, height = box
    x, y = (left + width / 2) / 60, (top + height / 2) / 40
    (folder / "a.txt").write_text(f"\n0 {x} {y} {width / 60} {height / 40}\n")
    return read_yolo(folder / "a.txt", SHAPE)


def read_as_coco(folder: Path, box: tuple[float, ...]) -> BoxArray:
    (folder / "a.json").write_text(json.dumps(coco_dict(list(box))))
    return read_coco(folder / "a.json")["a"].boxes(SHAPE)


READERS = pytest.mark.parametrize(
    ("read", "place"),
    [
        (read_as_voc, r"a\.xml, object 1 "),
        (read_as_yolo, r"a\.txt, line 2 "),
        (read_as_coco, r"a\.json, annotations\.0 "),
    ],
    ids=["voc", "yolo", "coco"],
)
Reader = Callable[[Path, tuple[float, ...]], BoxArray]


@READERS
def test_a_box_that_sticks_out_is_cut(tmp_path: Path, read: Reader, place: str) -> None:
    assert read(tmp_path, (-2, -3, 10, 10)).tolist() == [[0, 0, 8, 7]]
    assert read(tmp_path, (55.5, 35, 10, 10)).tolist() == [[55.5, 35, 4.5, 5]]
    assert read(tmp_path, (-5, -5, 70, 50)).tolist() == [[0, 0, 60, 40]]


@READERS
@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 1, 0, 3), r"0 x 3 px"),
        ((1, 1, 3, 1e-9), r"3 x 0 px"),
        ((1, 1, -2, 3), r"-2 x 3 px"),
        ((60, 1, 2, 2), r"x 60, y 1 px, outside its frame of 60 x 40"),
        ((1, -2, 2, 2), r"x 1, y -2 px, outside"),
        ((1e7, 1, 2, 2), r"outside"),
        ((float("nan"), 1, 2, 2), r"NaN or infinity"),
        ((1, 1, float("inf"), 2), r"NaN or infinity"),
    ],
)
def test_an_impossible_box_is_named(
    tmp_path: Path, read: Reader, place: str, box: tuple[float, ...], message: str
) -> None:
    with pytest.raises(DataError, match=f"{place}.*{message}") as caught:
        read(tmp_path, box)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.xml is not whole XML"),
        ("<annotation><object>", r"a\.xml is not whole XML"),
        ("<html/>", r"a\.xml holds <html>"),
        ("<annotation><object/></annotation>", r"a\.xml, object 1 is not a bndbox"),
        (voc_text((1, 1, 5, 5), (1, "x", 5, 5)), r"a\.xml, object 2 is not a bndbox"),
        (
            voc_text(size="<size><width>40</width><height>60</height></size>"),
            r"a\.xml is of a frame of 40 x 60, but the frame has 60 x 40",
        ),
        (voc_text(before="<!DOCTYPE annotation>"), r"a\.xml declares a DOCTYPE"),
        (
            voc_text(before='<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]>'),
            r"a\.xml declares a DOCTYPE",
        ),
    ],
)
def test_a_broken_voc_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_voc(tmp_path / "a.xml", SHAPE)


def test_entities_cannot_hide_in_another_encoding_or_size(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        path.write_bytes(voc_text(before="<!DOCTYPE annotation>").encode(encoding))
        with pytest.raises(DataError, match=r"a\.xml declares a DOCTYPE"):
            read_voc(path, SHAPE)
    with path.open("wb") as file:
        file.truncate(2**22 + 1)
    with pytest.raises(DataError, match=r"a\.xml has over 4 MB"):
        read_voc(path, SHAPE)


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.1", "0 0.5 0.5 0.1 0.1 0.9", "target 0 0 1 1", "x"])
def test_a_broken_yolo_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(DataError, match=r"a\.txt, line 2 is not class, x, y, width, height"):
        read_yolo(tmp_path / "a.txt", SHAPE)


IMAGE = {"id": 7, "file_name": "a.png", "width": 60, "height": 40}


@pytest.mark.parametrize(
    ("coco", "message"),
    [
        ("", r"is not COCO JSON: the text: "),
        ("[]", r"is not COCO JSON: the text: "),
        ({"images": []}, r"is not COCO JSON: annotations: Field required"),
        (coco_dict(images=[{"id": 7}]), r"images\.0\.file_name"),
        (coco_dict([1, 2, 3, 4], images=[]), r"no image that one of its 1 annotations is of"),
        (coco_dict([0.2, 0.3, 0.1, 0.1], [0, 0, 1, 1]), r"annotations\.0 has a box in .* pixel"),
        ("[" * 100_000, r"the text: "),
    ],
)
def test_a_broken_coco_file_is_named(
    tmp_path: Path, coco: str | dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(coco if isinstance(coco, str) else json.dumps(coco))
    with pytest.raises(DataError, match=rf"a\.json.*{message}") as caught:
        read_coco(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("coco", "message"),
    [
        (coco_dict([1, 2, 3]), r"annotations\.0\.bbox"),
        (coco_dict([1, 2, 0, 3]), r"annotations\.0 has a box of 0 x 3 px"),
        (coco_dict([1, 2, None, 3]), r"annotations\.0\.bbox\.2"),  # type: ignore[list-item]
        (coco_dict([1, 2, float("nan"), 3]), r"annotations\.0 has a box of NaN"),
        (coco_dict([10**400, 2, 3, 3]), r"annotations\.0"),
        (coco_dict([0.5, 0.5, 0.02, 0.03]), r"annotations\.0 has a box in its frame's first"),
        (coco_dict(images=[{**IMAGE, "width": -1}]), r"images\.0\.width"),
        (coco_dict(images=[{**IMAGE, "width": "x"}]), r"images\.0\.width"),
        (coco_dict(images=[IMAGE, {**IMAGE, "id": 8}]), r"two images with the file_name 'a\.png'"),
        (coco_dict(images=[IMAGE, {**IMAGE, "file_name": "b.png"}]), r"two images with the id 7"),
        (coco_dict([1, 2, 3, 4], [0.2, 0.3, 0.1, 0.1]), r"annotations\.1 has a box .* as a share"),
    ],
)
def test_what_is_wrong_with_one_coco_image_is_said_of_it_alone(
    tmp_path: Path, coco: dict[str, Any], message: str
) -> None:
    coco["images"].append({"id": "z", "file_name": "z.png", "width": 60, "height": 40})
    coco["annotations"].append({"image_id": "z", "bbox": ["3", 4, 5, 6]})
    (tmp_path / "a.json").write_text(json.dumps(coco))
    images = read_coco(tmp_path / "a.json")
    assert images["z"].boxes(SHAPE).tolist() == [[3, 4, 5, 6]]
    with pytest.raises(DataError, match=rf"a\.json.*{message}") as caught:
        images["a"].boxes(SHAPE)
    assert "\n" not in str(caught.value)


def test_a_coco_image_may_lack_its_size_and_ids_may_be_texts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coco = coco_dict([1, 2, 3, 4], [1, 2, 3, 4])
    coco["images"] = [{"id": "7", "file_name": "a.png"}]
    coco["annotations"][1]["image_id"] = 9
    (tmp_path / "a.json").write_bytes(json.dumps(coco).encode("utf-16"))
    image = read_coco(tmp_path / "a.json")["a"]
    assert image.shape is None
    assert image.boxes(SHAPE).tolist() == [[1, 2, 3, 4]]
    assert "1 of 2 annotations are of no image in it" in caplog.text


CORNERS = [[1, 2, 4, 6], [50, 30, 58, 36], [30, 20, 33, 24]]


def test_coco_corners_are_refused_and_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco_dict(*CORNERS)))
    for read in (read_coco, lambda place: list(read_coco_marks(place))):
        with pytest.raises(DataError, match=r"a\.json has boxes that reach out .* x0, y0, x1, y1"):
            read(path)
    no_size = [{"id": 7, "file_name": "a.png"}]
    path.write_text(json.dumps(coco_dict(*CORNERS, images=no_size)))
    with pytest.raises(DataError, match=r"annotations\.0 has boxes that reach out"):
        read_coco(path)["a"].boxes(SHAPE)
    # One that is no corner, or that all stay in: they are meant as they are.
    for boxes in ([*CORNERS, [40, 30, 10, 5]], [[2, 2, 30, 20], [1, 2, 59, 38]]):
        path.write_text(json.dumps(coco_dict(*boxes)))
        assert len(read_coco(path)["a"].boxes(SHAPE)) == len(boxes)


def test_yolo_outlines_are_boxes_too(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0 0.1 0.1 0.2 0.1 0.2 0.3\n")
    np.testing.assert_allclose(read_yolo(path, SHAPE), [[6, 4, 6, 8]], atol=1e-6)
    path.write_text("0 6 4 12 4 12 12\n")
    with pytest.raises(DataError, match=r"line 1 has corners in pixels: YOLO's numbers are shares"):
        read_yolo(path, SHAPE)


@pytest.mark.parametrize("encoding", ["gbk", "iso-8859-1", "utf-16", "utf-8", "windows-1252"])
def test_voc_is_read_in_the_encoding_that_it_declares(tmp_path: Path, encoding: str) -> None:
    name = "目标" if encoding in ("gbk", "utf-16", "utf-8") else "café"
    text = voc_text((4, 6, 8, 8), before=f'<?xml version="1.0" encoding="{encoding}"?>\n')
    path = tmp_path / "a.xml"
    path.write_bytes(text.replace("ship", name).encode(encoding))
    assert read_voc(path, SHAPE).tolist() == [[3, 5, 4, 2]]
    path.write_bytes(text.encode(encoding).replace(encoding.encode(), b"utf-99"))
    if encoding != "utf-16":  # whose mark says more than the declaration
        with pytest.raises(DataError, match=r"a\.xml declares the unknown encoding utf-99: save"):
            read_voc(path, SHAPE)
    path.write_bytes(voc_text((4, 6, 8, 8)).replace("ship", "café").encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.xml is not text in UTF-8: save it as UTF-8"):
        read_voc(path, SHAPE)


def test_boxes_in_another_unit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(voc_text((0.2, 0.3, 0.25, 0.35), (0.1, 0.1, 0.2, 1)))
    with pytest.raises(DataError, match=r"a\.xml has boxes as shares of the frame: VOC's are"):
        read_voc(tmp_path / "a.xml", SHAPE)
    (tmp_path / "a.txt").write_text("0 1.5 1.5 3 3\n")
    with pytest.raises(DataError, match=r"line 1 has a box of 3 x 3 frames: YOLO's numbers are"):
        read_yolo(tmp_path / "a.txt", SHAPE)


@pytest.mark.parametrize("number", ["1_0", "１０", "9" * 5000, "1e999", "", "0x1", "nan"])
def test_odd_numbers_are_one_sentence(tmp_path: Path, number: str) -> None:
    (tmp_path / "a.xml").write_text(voc_text((number, 6, 80, 80)))
    with pytest.raises(DataError, match=r"a\.xml, object 1"):
        read_voc(tmp_path / "a.xml", SHAPE)
    (tmp_path / "a.txt").write_text(f"0 {number} 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"a\.txt, line 1"):
        read_yolo(tmp_path / "a.txt", SHAPE)
    size = f"<size><width>{number}</width><height>{number}</height></size>"
    (tmp_path / "b.xml").write_text(voc_text((4, 6, 8, 8), size=size))
    with contextlib.suppress(DataError):  # of another size
        assert len(read_voc(tmp_path / "b.xml", SHAPE)) == 1


def test_deep_xml_is_one_sentence(tmp_path: Path) -> None:
    path, depth = tmp_path / "a.xml", 100_000
    path.write_text(voc_text(size="<a>" * depth + "</a>" * depth))
    assert read_voc(path, SHAPE).shape == (0, 4)
    path.write_text("<annotation>" + "<a>" * depth)
    with pytest.raises(DataError, match=r"a\.xml is not whole XML"):
        read_voc(path, SHAPE)


@pytest.mark.parametrize("read", [read_yolo, read_voc, lambda path, _: read_coco(path)])
def test_pipes_and_devices_are_refused(tmp_path: Path, read: Callable[..., Any]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(DataError, match=f"{name} is a pipe or a device: save"):
            read(tmp_path / name, SHAPE)
    with pytest.raises(DataError, match="is a folder: name a file in it"):
        read(tmp_path, SHAPE)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match=r"a\.txt"):
        write_yolo(tmp_path / "a.txt", BOXES, SHAPE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
