"""How fast the service is beside the library called in a loop, and how late its answers are.

    python benchmarks/serve_speed.py                              # both models, three minutes each
    python benchmarks/serve_speed.py --seconds 10 --models pinglow-fast

Both get the same frames (256 x 256, PNG of 16 bits) and the same cores, and take turns. The library
reads a frame from its file, predicts, and asks for the targets; the service is sent the file by
clients that wait for their answers. The client runs on the same cores, which is on the service's
account. The ratio is of medians. Then requests come at a constant rate of 50 and 90 % of what the
service could do, whatever it answers: a latency counts from when a request was due.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import pinglow

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from siege.load import Client, Sample, at_once, at_rate, percentiles, rate_of
from siege.service import Service, make_frames, report

TOGETHER = 6  # requests on their way at once, so that the service never waits
TURNS = 9
SHARE = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="of each of the three parts")
    parser.add_argument("--models", default="pinglow-fast,pinglow-base")
    parser.add_argument("--cores", type=int, help="of both; all, unless given")
    parser.add_argument("--workers", type=int, default=1, help="of the service")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    print(f"{len(os.sched_getaffinity(0))} cores, {arguments.workers} worker(s), 256 x 256")
    print("model          library/s service/s ratio   load     p50    p95    p99 ms")
    promises = {}
    for model in arguments.models.split(","):
        with Service("--workers", str(arguments.workers), model=model) as service:
            ratio = measure(model, service, arguments.seconds)
        promises[f"{model}: the service does {SHARE} of the library's frames or more"] = (
            ratio >= SHARE
        )
    return report(promises)


def measure(model: str, service: Service, seconds: float) -> float:
    """Print a model's line; frames a second of the service, as a share of the library's."""
    frames = make_frames()
    client = Client(service.port)
    requests = [client.request(frame) for frame in frames]
    library, served = take_turns(model, frames, client, requests, seconds)
    print(f"{model:14} {library:9.1f} {served:9.1f} {served / library:5.2f}", end="", flush=True)
    for share in (0.5, 0.9):
        samples = asyncio.run(offer(client, requests, share * served, seconds))
        if any(sample.status != 200 for sample in samples):
            raise SystemExit(f"not all were answered at {share:.0%} of the load")
        late = " ".join(f"{value:6.1f}" for value in percentiles(samples))
        print(f"{'' if share == 0.5 else ' ' * 41}   {share:.0%}  {late}", flush=True)
    return served / library


def take_turns(
    model: str, frames: Sequence[bytes], client: Client, requests: Sequence[bytes], seconds: float
) -> tuple[float, float]:
    """Frames a second of the library and of the service: medians over blocks in turn."""
    predictor = pinglow.Predictor.load(model)
    rates: dict[str, list[float]] = {"library": [], "service": []}
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name, f"{number}.png") for number in range(len(frames))]
        for path, frame in zip(paths, frames, strict=True):
            path.write_bytes(frame)
        for turn in range(TURNS + 1):
            end = time.monotonic() + seconds / 2 / (TURNS + 1)
            begin = time.perf_counter()
            count = 0
            while time.monotonic() < end:
                _ = predictor(pinglow.read_frame(paths[count % len(paths)])).targets
                count += 1
            took = time.perf_counter() - begin
            samples = asyncio.run(flood(client, requests, took))
            if any(sample.status != 200 for sample in samples):
                raise SystemExit(f"the service refused frames of {model}")
            if turn:  # runtimes compile a shape after some frames
                rates["library"].append(count / took)
                rates["service"].append(rate_of(samples))
    return float(np.median(rates["library"])), float(np.median(rates["service"]))


async def flood(client: Client, requests: Sequence[bytes], seconds: float) -> list[Sample]:
    samples = await at_once(client, requests, TOGETHER, seconds)
    client.close()  # its connections belong to this loop
    return samples


async def offer(
    client: Client, requests: Sequence[bytes], rate: float, seconds: float
) -> list[Sample]:
    samples = await at_rate(client, requests, rate, seconds)
    client.close()
    return samples


if __name__ == "__main__":
    sys.exit(main())
