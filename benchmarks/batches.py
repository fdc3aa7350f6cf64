"""What an image costs in a batch, against one alone: the network, on every backend that is there.

    python benchmarks/batches.py                    # on the CPU, and on a card with --device cuda

All batch sizes take turns; a ratio is the median over the turns of the time of an image in a batch
to that of an image alone in the same turn.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from pinglow.backends.device import choose_device
from pinglow.backends.opening import BACKENDS, open_model

BATCHES = (1, 2, 4, 8)
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pinglow-fast")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sides", default="256,512")
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    device = choose_device(arguments.device, list(BACKENDS.values()))
    print("pixels   backend       ms alone   an image in a batch of", *BATCHES[1:])
    for side in map(int, arguments.sides.split(",")):
        for name, backend in BACKENDS.items():
            if backend.why_not(device) is None:
                alone, ratios = compare(arguments.model, name, str(device), side, arguments.turns)
                shown = "  ".join(f"{ratio:5.2f}" for ratio in ratios)
                print(f"{side:4}^2   {name:12} {1e3 * alone:9.2f}   {shown}", flush=True)


def compare(model: str, name: str, device: str, side: int, turns: int) -> tuple[float, list[float]]:
    """Seconds of an image alone, and what one costs in larger batches, as a share of that."""
    backend, _ = open_model(model, name, device)
    random = np.random.default_rng(0)
    images = [random.standard_normal((n, 1, side, side), dtype=np.float32) for n in BATCHES]
    times = np.empty((WARM_UP + turns, len(BATCHES)))
    for turn in times:
        for place, batch in enumerate(images):
            repeats = max(BATCHES) // len(batch)  # as many images for every size
            backend(batch)  # what ran before has the caches
            begin = time.perf_counter()
            for _ in range(repeats):
                backend(batch)
            turn[place] = (time.perf_counter() - begin) / (repeats * len(batch))
    kept = times[WARM_UP:]
    return float(np.median(kept[:, 0])), np.median(kept / kept[:, :1], axis=0)[1:].tolist()


if __name__ == "__main__":
    main()
