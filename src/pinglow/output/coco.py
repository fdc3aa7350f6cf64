"""The sink of COCO annotations."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, BinaryIO, Final

from pinglow._version import __version__
from pinglow.io.labels.boxes import CLASS
from pinglow.output.converted import ConvertedSink
from pinglow.output.sink import FrameRecord
from pinglow.output.tables import frame_line, tracked

_CATEGORY: Final = 1


class CocoSink(ConvertedSink):
    """coco.json: a data set in COCO's format, each annotation with its "score".

    Every frame is an image, also without targets. Its "file_name" is its source, where a source
    has several frames with #1, #2, ...; an annotation has "bbox", "area", "score", and of a model
    of pixels "segmentation" as compressed run lengths; where targets are tracked, "track_id".
    """

    place = "coco.json"
    table = ".coco.json.lines"

    def line(self, record: FrameRecord) -> dict[str, Any]:
        """The image and its annotations, without the numbers that they have in the file."""
        several = record.clip is not None or record.page > 0
        image = {"file_name": record.source + f"#{record.page}" * several, **frame_line(record)}
        annotations = []
        entries = record.prediction.to_coco(0, _CATEGORY)
        for entry, (target, track) in zip(entries, tracked(record), strict=True):
            width, height = entry["bbox"][2:]
            pixels = "segmentation" in entry
            entry |= {"area": target.area if pixels else width * height, "iscrowd": 0}
            if track is not None:
                entry["track_id"] = track
            annotations.append(entry)
        return {"source": record.source, "image": image, "annotations": annotations}

    def convert(self, file: BinaryIO) -> None:
        """Write the file, image by image, then annotation by annotation."""
        info = {"description": "targets found by pinglow", "version": __version__}
        categories = [{"id": _CATEGORY, "name": CLASS}]
        file.write(f'{{"info": {json.dumps(info)},\n'.encode())
        file.write(f'"categories": {json.dumps(categories)},\n"images": ['.encode())
        _write_rows(file, (line["image"] for line in self.read_lines()))
        file.write(b'],\n"annotations": [')
        _write_rows(
            file,
            (
                {**annotation, "image_id": image}
                for image, line in enumerate(self.read_lines(), start=1)
                for annotation in line["annotations"]
            ),
        )
        file.write(b"]}\n")


def _write_rows(file: BinaryIO, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows with commas between them, numbered from 1."""
    for number, row in enumerate(rows, start=1):
        text = json.dumps({"id": number, **row})
        file.write(f"{',' * (number > 1)}\n{text}".encode())
