"""One predictor in threads, or in forks that are made after it was used; `soak` runs this."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np

import pinglow
from pinglow.errors import PinglowError

WORKERS = 8
ROUNDS = 40


def frames() -> list[Any]:
    rng = np.random.default_rng(0)
    sizes = ((64, 64), (96, 64), (128, 160))
    return [rng.normal(1000, 5, sizes[number % 3]).astype(np.uint16) for number in range(12)]


GIVEN = frames() * (ROUNDS // 10)
predictor: Any = None  # set before forks are made, which therefore have it


def find(number: int) -> Any:
    return predictor.probability(GIVEN[number])


def main() -> None:
    global predictor
    backend, way = sys.argv[1:]
    predictor = pinglow.Predictor.load("pinglow-fast", backend=backend, device="cpu")
    numbers = range(len(GIVEN))
    alone = [find(number) for number in numbers]
    executor: Executor
    if way == "threads":
        executor = ThreadPoolExecutor(WORKERS)
    else:
        executor = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))
    try:
        with executor:
            found = list(executor.map(find, numbers))
    except PinglowError as error:
        if way == "forks" and "spawn" in str(error):
            print("refused with the way out")
            return
        raise
    # The order of sums may differ with the number of threads that compute.
    worst = max(float(np.abs(a - b).max()) for a, b in zip(alone, found, strict=True))
    if worst > 1e-5:
        raise SystemExit(f"probabilities differ by {worst}")
    print(f"{len(GIVEN)} frames as alone")


if __name__ == "__main__":
    main()
