"""More than the service can do, and an hour of what it can: nothing may grow, nothing may break."""

from __future__ import annotations

import asyncio
import io
import itertools
import zipfile
from collections import Counter
from collections.abc import Sequence

import numpy as np

from siege.load import Client, Sample, at_once, at_rate, describe, rate_of
from siege.service import Service, Usage, level, make_frames, report, watched

FACTOR = 4.0  # times the capacity
SHARE = 0.8  # of the capacity, that still comes out
GROWTH = 0.05


def overload(seconds: float, model: str) -> int:
    """Send four times what the service can do; the exit code."""
    with Service("--workers", "1", model=model) as service:
        requests = [Client(service.port).request(frame) for frame in make_frames()]
        capacity = measure_capacity(service, requests, min(30.0, seconds))
        print(f"capacity {capacity:.1f} a second; {FACTOR * capacity:.0f} are sent", flush=True)
        with watched(service, min(1.0, seconds / 60)) as seen:
            client = Client(service.port)
            samples = asyncio.run(at_rate(client, requests, FACTOR * capacity, seconds))
        alive = service.status("/readyz")
    statuses = Counter(sample.status for sample in samples)
    goodput = rate_of(samples)
    grown = tell_growth(seen)
    print(describe(samples))
    print(f"{goodput:.1f} a second were answered, {goodput / capacity:.2f} of the capacity")
    return report(
        {
            "answers are 200, 429 or 503 only": set(statuses) <= {200, 429, 503},
            f"what comes out is {SHARE} of the capacity or more": goodput >= SHARE * capacity,
            "memory is flat within 5 %": grown <= GROWTH,
            "the service is ready afterwards": alive == 200,
        }
    )


def measure_capacity(service: Service, requests: Sequence[bytes], seconds: float) -> float:
    """Requests a second, with as many on their way as keep the service busy: the median of five."""

    async def run() -> float:
        client = Client(service.port)
        rates = []
        for turn in range(6):
            samples = await at_once(client, requests, 8, seconds / 6)
            if any(sample.status != 200 for sample in samples):
                raise SystemExit(f"requests are refused without need: {describe(samples)}")
            if turn:  # runtimes compile a shape after some frames
                rates.append(rate_of(samples))
        client.close()
        return float(np.median(rates))

    return asyncio.run(run())


def tell_growth(seen: Sequence[Usage]) -> float:
    """Print how memory went, a third of the time after the other; the last over the second one."""
    memory = [usage.memory / 2**20 for usage in seen]
    thirds = [level(part) for part in np.array_split(memory, 3)]
    grown = thirds[2] / thirds[1] - 1
    told = ", ".join(f"{third:.1f}" for third in thirds)
    print(f"memory in each third: {told} MB, {max(memory):.1f} at the most; {grown:+.1%}")
    return grown


# --- for an hour ----------------------------------------------------------------------------------


def soak(seconds: float, model: str, rate: float) -> int:
    """Send all kinds of requests at a bearable rate; the exit code."""
    with Service("--workers", "2", model=model) as service:
        mixture = _mix(Client(service.port))
        print(f"{rate:g} requests a second, and a job, a stream and a lost client each 10 s")
        with watched(service, min(5.0, seconds / 60)) as seen:
            samples, faults = asyncio.run(_soak(service, mixture, rate, seconds))
        code = service.process.poll()
    print(describe(samples))
    statuses = Counter(sample.status for sample in samples)
    for fault, count in Counter(faults).items():
        print(f"{count} x {fault}")
    third = len(seen) // 3
    promises = {
        "answers are 200 and, for broken frames, 422": set(statuses) <= {200, 422},
        "jobs and streams end well": not faults,
        "memory is flat within 5 %": tell_growth(seen) <= GROWTH,
        "the service runs on": code is None,
    }
    for name in ("files", "threads", "processes", "temporary"):
        before = [getattr(usage, name) for usage in seen[third : 2 * third]]
        after = [getattr(usage, name) for usage in seen[-third:]]
        print(f"{name}: {level(before):.0f} before, {level(after):.0f} at the end")
        promises[f"{name} are not more at the end"] = level(after) <= level(before) + 2
    return report(promises)


def _mix(client: Client) -> list[bytes]:
    """A frame in all ways, of several sizes, and what cannot be read."""
    frames = [*make_frames(8), *make_frames(2, 128), *make_frames(2, 320)]
    requests = [client.request(frame) for frame in frames]
    pictures = ("mask", "overlay", "probability")
    requests += [client.request(frames[0], f"/v1/predict?save={each}") for each in pictures]
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="%d.png"\r\n\r\n%b\r\n'
        % (number, frame)
        for number, frame in enumerate(frames[:3])
    )
    form = "multipart/form-data; boundary=b"
    requests.append(client.request(parts + b"--b--\r\n", kind=form))
    requests.append(client.request(frames[0][:5000]))
    requests.append(client.request(b"not a frame"))
    return requests


async def _soak(
    service: Service, mixture: Sequence[bytes], rate: float, seconds: float
) -> tuple[list[Sample], list[str]]:
    faults: list[str] = []

    async def now_and_then() -> None:
        for turn in itertools.count():
            for what in (_job, _stream, _lost_client):
                try:
                    async with asyncio.timeout(60):
                        await what(service)
                except Exception as error:
                    faults.append(f"{what.__name__}: {error!r}")
            await asyncio.sleep(10 if turn else 0)

    beside = asyncio.create_task(now_and_then())
    client = Client(service.port)
    samples = await at_rate(client, mixture, rate, seconds)
    client.close()
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
    return samples, faults


async def _job(service: Service) -> None:
    import httpx

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, frame in enumerate(make_frames(4)):
            archive.writestr(f"{number}.png", frame)
    async with httpx.AsyncClient(base_url=service.address) as client:
        answer = await client.post("/v1/jobs?name=a.zip", content=buffer.getvalue())
        answer.raise_for_status()
        place = answer.headers["Location"]
        while (state := (await client.get(place)).json()["state"]) in ("queued", "running"):
            await asyncio.sleep(0.2)
        if state != "done":
            raise ValueError(f"the job is {state}")
        (await client.get(f"{place}/results/targets.jsonl")).raise_for_status()
        (await client.delete(place)).raise_for_status()


async def _stream(service: Service) -> None:
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{service.port}/v1/streams?rate=25") as stream:
        for frame in make_frames(4):
            await stream.send(frame)
            if '"targets"' not in str(await stream.recv()):
                raise ValueError("an answer without targets")


async def _lost_client(service: Service) -> None:
    """A client that goes away before its answer comes."""
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(Client(service.port).request(make_frames(1)[0]))
    await writer.drain()
    writer.transport.abort()
