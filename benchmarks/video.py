"""A video's memory, by its length, and what overlapping reading, network and writing gains.

    python benchmarks/video.py

Each job runs in a process of its own: `pinglow predict --save overlay,jsonl` on a synthetic clip of
640 x 512 pixels, 16 bits, lossless. The three steps are then timed one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pinglow.data.synthetic.scenes import SceneSpec, render_scene, target_signal
from pinglow.inference.pipeline import run
from pinglow.inference.predictor import Predictor
from pinglow.io.source import open_source
from pinglow.io.video import read_video
from pinglow.output.sink import FrameRecord
from pinglow.output.sinks import open_sinks
from pinglow.structures import Clip

WIDTH, HEIGHT, RATE = 640, 512, 25
LENGTHS = (100, 1000)
SINKS = ("overlay", "jsonl")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for count in LENGTHS:
            clip = Path(folder) / f"{count}.mkv"
            make_clip(clip, count)
            report = subprocess.run(
                [sys.executable, __file__, str(clip)], check=True, capture_output=True, text=True
            )
            values = json.loads(report.stdout.splitlines()[-1])
            print(
                f"{count} frames: peak {values['peak_mb']:.0f} MB, "
                f"{1e3 * values['job'] / count:.1f} ms a frame overlapped; one after the other "
                f"{1e3 * sum(values['steps']) / count:.1f} (reading, network, writing: "
                + ", ".join(f"{1e3 * step / count:.1f}" for step in values["steps"])
                + ")"
            )


def run_job(clip: Path) -> None:
    """Print the job's peak memory and time, and the time of its steps one after the other."""
    predictor = Predictor.load()
    with open_sinks(SINKS, clip.parent / "overlapped") as sinks:
        job = run([open_source(clip)], predictor, sinks).seconds
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    begin = time.perf_counter()
    frames = [(frame.counts, frame.time) for frame in read_video(clip)]
    read = time.perf_counter()
    predictions = [predictor(counts) for counts, _ in frames]
    for prediction in predictions:
        _ = prediction.targets
    found = time.perf_counter()
    with open_sinks(SINKS, clip.parent / "in-turn") as sinks:
        for page, ((counts, at), prediction) in enumerate(zip(frames, predictions, strict=True)):
            record = FrameRecord(
                str(clip), page, f"clip_{page}", counts, prediction, at, Clip("clip", RATE)
            )
            for sink in sinks:
                sink.write(record)
    written = time.perf_counter()
    steps = [read - begin, found - read, written - found]
    print(json.dumps({"peak_mb": peak / 1024, "job": job, "steps": steps}))


def make_clip(path: Path, count: int) -> None:
    background = render_scene(SceneSpec("cloud", WIDTH + 200, HEIGHT, targets=(0, 0)), 3).frame
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray16le"
        for number in range(count):
            left = number % 200
            counts = background[:, left : left + WIDTH] + random.normal(0, 8, (HEIGHT, WIDTH))
            place = 20 + number * 1.7 % (WIDTH - 40), 100 + number * 0.6 % (HEIGHT - 200)
            counts += 900 * target_signal((HEIGHT, WIDTH), *place, 2.0, 20.0, 1.0)
            levels = counts.round().clip(0, 16383).astype(np.uint16)
            frame = av.VideoFrame.from_ndarray(levels, format="gray16le")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_job(Path(sys.argv[1]))
    else:
        main()
