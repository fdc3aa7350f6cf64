"""Workers killed and the service stopped, under load: who loses what."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence

from siege.load import LOST, REFUSED, Client, Sample, at_once, at_rate, describe
from siege.overload import measure_capacity
from siege.service import Service, make_frames, report

WORKERS = 2
HELD = 1  # requests that a worker has at most on a CPU
LOAD = 0.4  # of the capacity, so that one worker can carry it while the other starts
RACE = 0.2  # seconds around a signal in which a request may count as before or after it


def kill(points: int, model: str) -> int:
    """Kill a worker at so many moments; the exit code."""
    generator = random.Random(0)
    with Service("--workers", str(WORKERS), model=model) as service:
        requests = [Client(service.port).request(frame) for frame in make_frames()]
        rate = LOAD * measure_capacity(service, requests, 12)
        print(f"{rate:.1f} requests a second; a worker of {WORKERS} is killed {points} times")
        killed, back, samples = asyncio.run(_kill(service, requests, rate, points, generator))
        ready = service.status("/readyz") == 200
    print(describe(samples))
    print(f"a new worker was there {max(back):.1f} s after a kill at the latest")
    lost = [sample for sample in samples if sample.status != 200]
    near = [s for s in lost if any(s.due - 5 <= moment <= s.done + 1 for moment in killed)]
    return report(
        {
            "what is not answered with 200 is answered with 503": {s.status for s in lost} <= {503},
            f"a kill loses what the worker had, {HELD} at the most": len(lost) <= HELD * points,
            "no request is lost but by a kill": len(near) == len(lost),
            "the service is ready with all its workers": ready,
        }
    )


async def _kill(
    service: Service, requests: Sequence[bytes], rate: float, points: int, generator: random.Random
) -> tuple[list[float], list[float], list[Sample]]:
    client = Client(service.port)
    over = asyncio.Event()

    async def load() -> list[Sample]:
        samples = []
        while not over.is_set():
            samples += await at_rate(client, requests, rate, 5)
        return samples

    loading = asyncio.create_task(load())
    killed, back = [], []
    for _ in range(points):
        await asyncio.sleep(generator.uniform(0.5, 2))
        victim = generator.choice(service.workers())
        killed.append(time.monotonic())
        victim.kill()
        # The count goes down before it comes up again.
        restarts = len(killed)
        while (
            await asyncio.to_thread(service.count, "pinglow_worker_restarts") < restarts
            or await asyncio.to_thread(service.count, "pinglow_workers_ready") < WORKERS
        ):
            await asyncio.sleep(0.1)
        back.append(time.monotonic() - killed[-1])
    over.set()
    samples = await loading
    client.close()
    return killed, back, samples


def drain(times: int, model: str) -> int:
    """Stop the service with SIGTERM while requests are on their way; the exit code."""
    lost, unserved, slowest, codes, answered = [], [], 0.0, [], Counter[int]()
    for _ in range(times):
        with Service("--workers", "1", "--queue", "64", model=model) as service:
            requests = [Client(service.port).request(frame) for frame in make_frames()]
            samples, moment = asyncio.run(_drain(service, requests))
            begin = time.monotonic()
            with contextlib.suppress(Exception):
                service.process.wait(35)
            slowest = max(slowest, time.monotonic() - begin)
            codes.append(service.process.poll())
        accepted = [s for s in samples if 0 < s.sent < moment - RACE]
        lost += [s for s in samples if s.status == LOST and s.sent < moment + RACE]
        unserved += [s for s in accepted if s.status != 200]
        answered += Counter(s.status for s in samples if s.done > moment)
    names = {LOST: "cut", REFUSED: "refused"}
    told = ", ".join(f"{count} x {names.get(s, s)}" for s, count in sorted(answered.items()))
    print(f"{times} times SIGTERM; after it: {told}; exit codes {codes}; {slowest:.1f} s at most")
    return report(
        {
            "every request that was sent before the signal is answered with 200": not unserved,
            "no connection is cut without an answer": not lost,
            "some were on their way": answered[200] >= times,
            "later ones are refused with 503 or not connected": set(answered)
            <= {200, 503, REFUSED, LOST},
            "the service ends with 0 within 30 s": set(codes) == {0} and slowest <= 30,
        }
    )


async def _drain(service: Service, requests: Sequence[bytes]) -> tuple[list[Sample], float]:
    """Keep 32 requests on their way, and stop the service in their midst."""
    client = Client(service.port)
    await at_once(client, requests, 8, 2)
    loading = asyncio.create_task(at_once(client, requests, 32, 4))
    await asyncio.sleep(1.5)
    moment = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    samples = await loading
    client.close()
    return samples, moment
