"""Write a short synthetic video: 16-bit gray, lossless, two targets before drifting clouds.

python examples/make_clip.py clip.mkv
"""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np

from pinglow.data.synthetic.scenes import SENSORS, SceneSpec, render_scene, target_signal

FRAMES, RATE = 75, 25
WIDTH, HEIGHT = 320, 256
# x and y of the first frame, pixels a frame to the right and down, length, counts above the sky.
TARGETS = ((40.0, 60.0, 2.4, 0.6, 3.0, 900), (290.0, 200.0, -1.3, -0.9, 1.0, 700))


def main(path: str) -> None:
    """Render and encode it."""
    sensor = replace(SENSORS[14], dead_pixels=0, hot_pixels=0)  # replaced, as cameras do
    wide = SceneSpec("cloud", WIDTH + FRAMES, HEIGHT, targets=(0, 0), sensor=sensor)
    background = render_scene(wide, 3).frame.astype(np.float64)
    random = np.random.default_rng(0)
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray16le"
        for number in range(FRAMES):
            counts = background[:, number : number + WIDTH] + random.normal(0, 8, (HEIGHT, WIDTH))
            for x, y, right, down, length, bright in TARGETS:
                angle = np.degrees(np.arctan2(down, right))
                place = (x + number * right, y + number * down)
                counts += bright * target_signal((HEIGHT, WIDTH), *place, length, angle, 1.0)
            levels = counts.round().clip(0, 16383).astype(np.uint16)
            frame = av.VideoFrame.from_ndarray(levels, format="gray16le")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    main(sys.argv[1])
