"""Where a network's time goes in OpenVINO: milliseconds by kind of operation, and the slowest ones.

    python benchmarks/profile_inference.py [--form fast|paper|mshnet] [--size 256]

Counting costs time itself, so the sum is above what bench_inference.py measures.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
import openvino
from rich.console import Console
from rich.table import Table

from pinglow.models.card import ModelCard
from pinglow.models.conversion import convert_to_onnx
from pinglow.nn import PinwheelUNet

RUNS = 40
SLOWEST = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--form", choices=("fast", "paper", "mshnet"), default="fast")
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    network = getattr(PinwheelUNet, arguments.form)().eval()
    content = convert_to_onnx(network, ModelCard(name=arguments.form, network={}, parameters=0))
    core = openvino.Core()
    model = core.read_model(content)
    model.reshape({"image": [1, 1, arguments.size, arguments.size]})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": True,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    image = np.random.default_rng(0).standard_normal((1, 1, *[arguments.size] * 2), np.float32)
    times = defaultdict(list)
    for _ in range(RUNS):
        request.infer({"image": image})
        for step in request.profiling_info:
            key = step.node_name, step.node_type, step.exec_type
            times[key].append(step.real_time.total_seconds())
    medians = {key: 1e3 * float(np.median(each)) for key, each in times.items()}
    kinds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (_, kind, how), time in medians.items():
        if time > 0:
            kinds[kind, how].append(time)
    table = Table("operation", "kernel", "number", "ms", title=f"{arguments.form}, OpenVINO")
    for (kind, how), each in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        table.add_row(kind, how, str(len(each)), f"{sum(each):.2f}")
    table.add_row("all", "", "", f"{sum(medians.values()):.2f}")
    slowest = Table("slowest", "kernel", "ms")
    for (name, kind, how), time in sorted(medians.items(), key=lambda item: -item[1])[:SLOWEST]:
        slowest.add_row(f"{kind} {name[:50]}", how, f"{time:.2f}")
    Console(width=110).print(table, slowest)


if __name__ == "__main__":
    main()
