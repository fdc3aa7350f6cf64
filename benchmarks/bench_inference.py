"""How fast the shipped model is beside MSHNet's form, and what its kernel costs once folded.

    python benchmarks/bench_inference.py                                  # networks at 256 x 256
    python benchmarks/bench_inference.py --frames ../shared/data/sirst/images   # and whole frames

MSHNet's form runs in eager PyTorch as public code of this family does: NCHW, nothing folded, each
frame resized to 256 x 256. The plain form of the fast network has no Gaussian kernel: its attention
is a free 7 x 7 convolution. All take turns, four runs each of which the
first is not counted; ratios are of medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from pinglow.backends.base import Backend
from pinglow.backends.onnxruntime import OnnxRuntimeBackend
from pinglow.backends.openvino import OpenVinoBackend
from pinglow.backends.torch import TorchBackend
from pinglow.inference.predictor import Predictor
from pinglow.io.frames import find_frames, read_frame
from pinglow.models.card import ModelCard
from pinglow.models.conversion import convert_to_onnx
from pinglow.nn import PinwheelUNet
from pinglow.preprocess import normalize_frame
from pinglow.structures import Prediction

SIDE = 256
IN_A_ROW = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--frames", type=Path)
    arguments = parser.parse_args()
    image = np.random.default_rng(0).standard_normal((1, 1, SIDE, SIDE), dtype=np.float32)
    mshnet = TorchBackend(PinwheelUNet.mshnet().eval())
    networks: dict[str, Backend] = {"MSHNet, eager": mshnet}
    forms = {"fast": PinwheelUNet.fast(), "fast, plain": PinwheelUNet.fast(attention="free")}
    for name, form in forms.items():
        content = convert_to_onnx(form.eval(), ModelCard(name=name, network={}, parameters=0))
        networks[f"{name}, torch"] = TorchBackend.fastest(form)
        networks[f"{name}, onnxruntime"] = OnnxRuntimeBackend(content, name)
        networks[f"{name}, openvino"] = OpenVinoBackend(content, name)
    runs = {name: lambda run=run: run(image) for name, run in networks.items()}
    times = take_turns(runs, arguments.repeats)
    print(f"the network, {SIDE} x {SIDE}: median ms, and times as fast as MSHNet's form")
    for name, median in times.items():
        print(f"  {name:24} {1e3 * median:7.2f}  {times['MSHNet, eager'] / median:5.1f}")
    for backend in ("torch", "onnxruntime", "openvino"):
        ratio = times[f"fast, {backend}"] / times[f"fast, plain, {backend}"]
        print(f"  Gaussian x pinwheel against plain convolutions, {backend}: {ratio:.3f}")
    if arguments.frames:
        compare_frames(arguments.frames, mshnet)


def compare_frames(folder: Path, mshnet: Backend) -> None:
    """Counts in, targets out: the shipped model with its input rule, and MSHNet's form."""
    frames = [read_frame(path) for path in find_frames([folder])[::10]]
    predictor = Predictor.load("pinglow-fast")

    def run_mshnet() -> None:
        for frame in frames:
            normal = torch.from_numpy(normalize_frame(frame))[None, None]
            small = F.interpolate(normal, (SIDE, SIDE), mode="bilinear", antialias=True)
            probability = torch.from_numpy(mshnet(small.numpy()))
            back = F.interpolate(probability, frame.shape, mode="bilinear")
            Prediction(back[0, 0].numpy())

    def run_fast() -> None:
        for frame in frames:
            predictor(frame)

    times = take_turns({"MSHNet, eager": run_mshnet, "pinglow-fast": run_fast}, 2)
    print(f"{len(frames)} frames, from counts to targets: ms a frame")
    for name, median in times.items():
        print(f"  {name:24} {1e3 * median / len(frames):7.2f}")
    print(f"  share of MSHNet's time: {times['pinglow-fast'] / times['MSHNet, eager']:.2f}")


def take_turns(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(3 + repeats):
        for name, run in runs.items():
            run()  # what ran before has the caches and, for a moment, the cores
            for _ in range(IN_A_ROW):
                begin = time.perf_counter()
                run()
                if turn >= 3:
                    times[name].append(time.perf_counter() - begin)
    return {name: median(each) for name, each in times.items()}


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


if __name__ == "__main__":
    main()
