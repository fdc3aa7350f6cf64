"""How well masks that are grown from boxes and points agree with those that were drawn.

    python experiments/scripts/derived_masks.py DIR --split trainval --every 3

Boxes are those around the drawn targets, also wider by some pixels on each side; points are their
centroids, also moved at random by up to some pixels each way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pinglow.data.boxes import mask_regions
from pinglow.data.cores import grow_core
from pinglow.data.folder import FrameFolder
from pinglow.errors import PinglowError
from pinglow.io.labels.marks import Box, Point
from pinglow.io.labels.rle import full_mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="trainval")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    frames = FrameFolder(arguments.folder, arguments.split)
    rng = np.random.default_rng(0)
    kinds = ["box +0", "box +1", "box +2", "point 0", "point 1", "point 2"]
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    nothing = dict.fromkeys(kinds, 0)
    for index in range(0, len(frames), arguments.every):
        try:
            frame, mask = frames.pair(index)
        except PinglowError:
            continue
        height, width = frame.shape
        for region in mask_regions(mask):
            rows, columns = region.pixels.shape
            drawn = full_mask(frame.shape, region.left, region.top, region.pixels)
            center = [values.mean() for values in np.nonzero(drawn)]
            for kind in kinds:
                name, by = kind.split()
                if name == "box":
                    more = int(by)
                    form: Box | Point = Box(
                        max(region.left - more, 0),
                        max(region.top - more, 0),
                        columns + 2 * more,
                        rows + 2 * more,
                    )
                else:
                    y, x = center + rng.uniform(-int(by), int(by), 2) + 0.5
                    form = Point(min(max(x, 0), width - 0.5), min(max(y, 0), height - 0.5))
                try:
                    core = grow_core(frame, form, "auto", "it")
                except PinglowError:
                    nothing[kind] += 1
                    continue
                grown = full_mask(frame.shape, core.left, core.top, core.pixels)
                away = [values.mean() for values in np.nonzero(grown)]
                overlap = (grown & drawn).sum() / (grown | drawn).sum()
                found[kind].append((overlap, float(np.hypot(*np.subtract(away, center)))))
    print("from      targets  nothing  IoU mean  median  IoU >= 0.5  centroid <= 1 px")
    for kind, values in found.items():
        overlaps, distances = np.array(values).T
        print(
            f"{kind:9} {len(values):7}  {nothing[kind]:7}  {overlaps.mean():8.3f}  "
            f"{np.median(overlaps):6.3f}  {(overlaps >= 0.5).mean():10.1%}  "
            f"{(distances <= 1).mean():16.1%}"
        )


if __name__ == "__main__":
    main()
