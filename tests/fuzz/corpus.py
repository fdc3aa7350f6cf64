"""Small whole files of every kind that pinglow reads, to be spoiled."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 34, 40
TARGETS: Final = ((9, 12), (25, 30))
"""Row and column of the upper left corner of each bright target of 2 x 2 pixels."""


def scene(top: int = 16_383) -> NDArray[Any]:
    """A noisy frame of counts up to ``top`` with two bright targets."""
    rng = np.random.default_rng(top)
    frame = rng.normal(0.3, 0.01, (HEIGHT, WIDTH))
    for row, column in TARGETS:
        frame[row : row + 2, column : column + 2] = 1
    return (frame * top).astype(np.uint8 if top < 256 else np.uint16)


def mask() -> NDArray[Any]:
    """Where its targets are."""
    return np.where(scene() == 16_383, np.uint8(255), np.uint8(0))


def images() -> dict[str, bytes]:
    """Image files by their names."""
    gray, deep = scene(255), scene()
    rgb = np.dstack([gray, gray // 2, gray])
    samples = {
        "gray.png": _pillow(gray, "PNG"),
        "deep.png": _pillow(deep, "PNG"),
        "color.png": _pillow(rgb, "PNG"),
        "palette.png": _pillow(gray, "PNG", convert="P"),
        "bits.png": _pillow(gray > 200, "PNG"),
        "gray.bmp": _pillow(gray, "BMP"),
        "color.bmp": _pillow(rgb, "BMP"),
        "gray.jpg": _pillow(gray, "JPEG", quality=95),
        "color.jpg": _pillow(rgb, "JPEG", quality=95),
        "progressive.jpg": _pillow(gray, "JPEG", progressive=True),
        "deep.npy": _npy(deep),
        "float.npy": _npy(deep.astype(">f4")),
        "wide.npy": _npy(deep.astype(np.int64)[None]),
        "deep.pgm": b"P5\n# made\n%d %d\n16383\n" % (WIDTH, HEIGHT) + deep.astype(">u2").tobytes(),
        "gray.pgm": b"P5 %d %d 255\n" % (WIDTH, HEIGHT) + gray.tobytes(),
        "text.pgm": b"P2\n%d %d\n16383\n" % (WIDTH, HEIGHT)
        + "\n".join(" ".join(map(str, row)) for row in deep.tolist()).encode(),
    }
    tiffs: dict[str, dict[str, Any]] = {
        "plain.tif": {},
        "big.tif": {"bigtiff": True, "byteorder": ">"},
        "zip.tif": {"compression": "zlib", "predictor": True},
        "lzw.tif": {"compression": "lzw", "rowsperstrip": 8},
        "tiled.tif": {"compression": "zstd", "tile": (16, 16)},
        "packed.tif": {"compression": "packbits"},
        "imagej.tif": {"imagej": True},
    }
    for name, how in tiffs.items():
        samples[name] = _tiff(deep, **how)
    samples["stack.tif"] = _tiff(np.stack([deep, deep[::-1], deep]), photometric="minisblack")
    samples["color.tif"] = _tiff(rgb, photometric="rgb")
    samples["float.tif"] = _tiff(deep.astype(np.float32))
    return samples


def videos() -> dict[str, bytes]:
    """Video files by their names: eight frames, in which a target moves."""
    return {
        "gray.mkv": _video("matroska", "ffv1", "gray"),
        "deep.mkv": _video("matroska", "ffv1", "gray16le"),
        "plain.avi": _video("avi", "mjpeg", "yuvj420p"),
        "plain.mp4": _video("mp4", "mpeg4", "yuv420p"),
        "plain.mov": _video("mov", "mjpeg", "yuvj420p"),
    }


def voc() -> dict[str, bytes]:
    """The label of the frame, as Pascal VOC."""
    objects = "".join(
        f"<object><name>target</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
        f"<xmax>{x + 3}</xmax><ymax>{y + 3}</ymax></bndbox></object>\n"
        for y, x in TARGETS
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>1</depth></size>"
    text = f"<annotation>\n<filename>a.png</filename>\n{size}\n{objects}</annotation>\n"
    return {"label.xml": f'<?xml version="1.0" encoding="utf-8"?>\n{text}'.encode()}


def yolo() -> dict[str, bytes]:
    """The same as YOLO."""
    lines = (
        f"0 {(x + 1) / WIDTH:.9f} {(y + 1) / HEIGHT:.9f} {2 / WIDTH:.9f} {2 / HEIGHT:.9f}\n"
        for y, x in TARGETS
    )
    return {"label.txt": "".join(lines).encode()}


def coco(names: list[str]) -> bytes:
    """The same as COCO, for frames of these names."""
    stems = enumerate(names, start=1)
    size = {"width": WIDTH, "height": HEIGHT}
    pictures = [{"id": number, "file_name": f"{name}.png", **size} for number, name in stems]
    boxes = [
        {"id": 10 * picture["id"] + place, "image_id": picture["id"], "category_id": 1}
        | {"bbox": [x, y, 2, 2], "area": 4, "iscrowd": 0}
        for picture in pictures
        for place, (y, x) in enumerate(TARGETS)
    ]
    content = {"images": pictures, "annotations": boxes, "categories": [{"id": 1, "name": "t"}]}
    return json.dumps(content, indent=1).encode()


def labelme() -> dict[str, bytes]:
    """The same as labelme, a polygon and a mask."""
    (y, x), (row, column) = TARGETS
    square = [[x, y], [x + 2, y], [x + 2, y + 2], [x, y + 2]]
    picture = base64.b64encode(_pillow(np.ones((2, 2), np.bool_), "PNG")).decode()
    shapes = [
        {"label": "t", "points": square, "shape_type": "polygon", "flags": {}},
        {"label": "t", "points": [[column, row], [column + 1, row + 1]], "shape_type": "mask"}
        | {"flags": {}, "mask": picture},
    ]
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": "NAME.png"}
    content |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"label.json": json.dumps(content, indent=1).encode()}


def cvat(names: list[str]) -> bytes:
    """The same as CVAT for images."""
    (y, x), (row, column) = TARGETS
    points = f"{x}.00,{y}.00;{x + 2}.00,{y}.00;{x + 2}.00,{y + 2}.00;{x}.00,{y + 2}.00"
    mask = f'left="{column}" top="{row}" width="2" height="2"'
    shapes = f'<polygon label="t" points="{points}"/><mask label="t" rle="0, 4" {mask}/>\n'
    images = "".join(
        f'<image id="{number}" name="{name}.png" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
        for number, name in enumerate(names)
    )
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
    return f"{head}{images}</annotations>".encode()


def label_studio(names: list[str]) -> bytes:
    """The same as Label Studio."""
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    results = [
        {"type": "polygonlabels", **size, "value": {"polygonlabels": ["t"], "points": points}}
        for y, x in TARGETS
        for points in [
            [
                [100 * (x + across) / WIDTH, 100 * (y + down) / HEIGHT]
                for across, down in ((0, 0), (2, 0), (2, 2), (0, 2))
            ]
        ]
    ]
    tasks = [
        {"id": number, "data": {"image": f"/data/upload/1/1a2b3c4d-{name}.png"}}
        | {"annotations": [{"result": results}], "predictions": []}
        for number, name in enumerate(names)
    ]
    return json.dumps(tasks, indent=1).encode()


def fiftyone(names: list[str]) -> bytes:
    """The same as FiftyOne."""
    packed = base64.b64encode(zlib.compress(_npy(np.ones((2, 2), np.bool_)))).decode()
    rows = [
        {"_cls": "Detection", "label": "t", "mask": packed}
        | {"bounding_box": [x / WIDTH, y / HEIGHT, 2 / WIDTH, 2 / HEIGHT]}
        for y, x in TARGETS
    ]
    samples = [
        {"filepath": f"data/{name}.png", "metadata": {"width": WIDTH, "height": HEIGHT}}
        | {"ground_truth": {"_cls": "Detections", "detections": rows}}
        for name in names
    ]
    return json.dumps({"samples": samples}, indent=1).encode()


def _pillow(values: NDArray[Any], form: str, convert: str = "", **how: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(values)
    (image.convert(convert) if convert else image).save(file, form, **how)
    return file.getvalue()


def _npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _tiff(values: NDArray[Any], **how: Any) -> bytes:
    file = io.BytesIO()
    opening = {key: how.pop(key) for key in ("bigtiff", "byteorder", "imagej") if key in how}
    with tifffile.TiffWriter(file, **opening) as tiff:
        tiff.write(values, **how)
    return file.getvalue()


def _video(container: str, codec: str, form: str) -> bytes:
    import av

    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container) as writer:
            stream = writer.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, form
            for number in range(8):
                frame = np.roll(scene(65_535 if "16" in form else 255), number, axis=1)
                given = "gray16le" if frame.dtype == np.uint16 else "gray"
                picture = av.VideoFrame.from_ndarray(frame, format=given).reformat(format=form)
                writer.mux(stream.encode(picture))
            writer.mux(stream.encode())
        return Path(file.name).read_bytes()
