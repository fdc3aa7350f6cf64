"""Write the halves of ir-drone's clips that no target comes into, as clips without targets.

python experiments/scripts/clear_clips.py ir-drone OUT [--clips 40]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import av

from pinglow.io.video import read_video

MARGIN = 16  # pixels that a labeled box stays away


def clear_half(
    boxes: list[tuple[float, ...]], width: int, height: int
) -> tuple[slice, slice] | None:
    """Rows and columns of a half of the frame without a box; None: each half has one."""
    x, y = width // 2, height // 2
    halves = [
        (all(left > x + MARGIN for left, *_ in boxes), slice(0, height), slice(0, x)),
        (all(b[0] + b[2] < x - MARGIN for b in boxes), slice(0, height), slice(x, width)),
        (all(b[1] > y + MARGIN for b in boxes), slice(0, y), slice(0, width)),
        (all(b[1] + b[3] < y - MARGIN for b in boxes), slice(y, height), slice(0, width)),
    ]
    return next(((rows, columns) for clear, rows, columns in halves if clear), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    written = 0
    for labels in sorted(arguments.data.glob("*.csv")):
        with labels.open() as file:
            boxes = [
                tuple(float(row[key]) for key in ("x", "y", "w", "h"))
                for row in csv.DictReader(file)
            ]
        half = clear_half(boxes, 320, 256)
        if half is None or written == arguments.clips:
            continue
        written += 1
        rows, columns = half
        with av.open(str(arguments.out / f"{labels.stem}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=30)
            stream.pix_fmt = "gray"
            stream.height, stream.width = rows.stop - rows.start, columns.stop - columns.start
            for frame in read_video(labels.with_suffix(".mp4")):
                counts = frame.counts[half].astype("uint8")
                image = av.VideoFrame.from_ndarray(counts.copy(), format="gray")
                container.mux(stream.encode(image))
            container.mux(stream.encode())
    print(f"{written} clips in {arguments.out}")


if __name__ == "__main__":
    main()
