"""Files that are made up from their grammar: what is read is right, all else is a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pinglow.errors import PinglowError
from pinglow.io.frames import read_frame
from pinglow.io.labels.coco import read_coco
from pinglow.io.labels.voc import read_voc
from pinglow.io.labels.yolo import read_yolo

SHAPE = (34, 40)
EDGE = 1e-6  # to which boxes are rounded

often = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
numbers = st.one_of(
    st.integers(-5, 60).map(str),
    st.floats(width=32).map(repr),
    st.sampled_from(["", "1e400", "-0", "nan", "9" * 5000, "0x1", "1,5", "٣", "1_0", "\x1b[2J"]),
)
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def read_or_refuse(read: Callable[[], Any], name: str) -> Any:
    """What is read; None: it was refused, in one line that names the file."""
    try:
        return read()
    except PinglowError as error:
        reason = str(error)
    assert name in reason
    assert "\n" not in reason
    return None


def check_boxes(boxes: Any) -> None:
    if boxes is None:
        return
    assert boxes.ndim == 2
    assert boxes.shape[1] == 4
    assert np.isfinite(boxes).all()
    left, top, width, height = boxes.T
    assert (width > 0).all()
    assert (height > 0).all()
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + width <= SHAPE[1] + EDGE).all()
    assert (top + height <= SHAPE[0] + EDGE).all()


@often
@given(lines=st.lists(st.lists(numbers, max_size=6).map(" ".join), max_size=4))
def test_yolo(lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    check_boxes(read_or_refuse(lambda: read_yolo(path, SHAPE), str(path)))


@often
@given(rows=st.lists(st.tuples(*[numbers] * 4), max_size=3), size=st.tuples(numbers, numbers))
def test_voc(rows: list[tuple[str, ...]], size: tuple[str, str], tmp_path: Path) -> None:
    edges = "xmin", "ymin", "xmax", "ymax"
    objects = "".join(
        "<object><bndbox>"
        + "".join(f"<{edge}>{value}</{edge}>" for edge, value in zip(edges, row, strict=True))
        + "</bndbox></object>"
        for row in rows
    )
    path = tmp_path / "a.xml"
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    path.write_text(f"<annotation>{stated}{objects}</annotation>", encoding="utf-8")
    check_boxes(read_or_refuse(lambda: read_voc(path, SHAPE), str(path)))


@often
@given(data=st.data())
def test_coco(data: st.DataObject, tmp_path: Path) -> None:
    box = st.lists(st.floats(-50, 90) | values, min_size=3, max_size=5)
    image = {"id": values, "file_name": values, "width": values, "height": values}
    whole = {"id": 1, "file_name": "a.png", "width": SHAPE[1], "height": SHAPE[0]}
    images = st.lists(st.just(whole) | st.fixed_dictionaries(image), max_size=2)
    annotation = st.fixed_dictionaries({"image_id": st.just(1) | values, "bbox": box})
    document = {"images": images | values, "annotations": st.lists(annotation, max_size=3) | values}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(data.draw(st.fixed_dictionaries(document))), encoding="utf-8")
    read_or_refuse(lambda: read_coco(path), str(path))


@often
@given(
    counts=arrays.arrays(
        st.one_of(
            arrays.integer_dtypes(endianness="?"),
            arrays.unsigned_integer_dtypes(endianness="?"),
            arrays.floating_dtypes(endianness="?"),
            arrays.boolean_dtypes(),
            arrays.complex_number_dtypes(),
            arrays.datetime64_dtypes(),
            arrays.unicode_string_dtypes(),
        ),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
    )
)
def test_arrays_keep_their_counts(counts: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, counts)
    frame = read_or_refuse(lambda: read_frame(path), str(path))
    if frame is None:
        return
    assert frame.ndim == 2
    assert frame.dtype in (np.uint8, np.uint16, np.float32)
    scale = 255 if counts.dtype.kind == "b" else 1
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = counts.astype(np.float64).reshape(frame.shape) * scale
        # float32 holds them to 6e-8; float64 beyond it is infinite.
        np.testing.assert_allclose(frame, wanted.astype(np.float32), rtol=1e-6)


@often
@given(
    content=st.dictionaries(
        st.sampled_from(["name", "seed", "steps", "data", "network", "loss", "optimizer", "x"]),
        values,
    )
)
def test_recipes(content: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    from pinglow.training.recipe_file import parse_recipe

    read_or_refuse(lambda: parse_recipe(content, "made up"), "made up")
