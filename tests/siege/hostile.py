"""All attacks at once on a running service, with a well-behaved client beside them."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from siege.attacks import EVIL, SECRET, Attack, make_attacks, tokens
from siege.load import Client, Sample, percentiles
from siege.overload import measure_capacity
from siege.service import ROOT, Service, Usage, make_frames, report, watched
from siege.wire import exchange

TOGETHER = 4  # attacks that want an answer at once; slow ones all run beside them
SHARE = 0.2  # of the capacity, that the well-behaved client asks for
MOST_RATE = 4.0  # and requests a second that it sends at most
JOB_SECONDS = 60.0  # after which a job that was accepted has come to its end
BACK_SECONDS = 60.0  # after which memory is back
OPTIONS = ("--workers", "2", "--max-mb", "16", "--max-job-mb", "32", "--jobs", "2")
TOKEN = "correct-Horse-battery-staple"


def besiege(cases: int | None, bound_ms: float, most_mb: float) -> int:
    """Run attacks and tell which got through; the exit code.

    Args:
        cases: Take so many of all, evenly; None: all.
        bound_ms: The 95th percentile that a well-behaved client keeps.
        most_mb: Megabytes that the service may take beyond what it had before.
    """
    with tempfile.TemporaryDirectory(prefix="siege-outside-") as name:
        outside = Path(name)
        (outside / SECRET).write_text(SECRET)
        print("attacks are being made", flush=True)
        attacks = _spread(make_attacks(name), cases)
        with Service(*OPTIONS) as service:
            siege = _Siege(service, outside)
            requests = [Client(service.port).request(frame) for frame in make_frames(4)]
            rate = min(MOST_RATE, SHARE * measure_capacity(service, requests, 6))
            fresh = service.usage()
            # Once before memory is measured: each worker loads the libraries of all readers.
            asyncio.run(siege.attack([attack for attack in attacks if not attack.slow]))
            siege.tried = 0
            time.sleep(5)  # idle workers give back what large frames took
            before = service.usage()
            workers = {one.pid for one in service.workers()}
            with watched(service, 0.25) as seen:
                asyncio.run(siege.run(attacks, requests, rate))
            peak = max(usage.memory for usage in seen) - before.memory
            rest = _settle(service, before.memory)
            same = workers == {one.pid for one in service.workers()}
            log_is_whole = _is_json(service.log)
            left = [*outside.rglob(f"*{EVIL}*"), *service.folder.rglob(f"*{EVIL}*")]
        guarded = _with_token(outside)
    through = siege.through + guarded.through
    tried = siege.tried + guarded.tried
    p50, p95, p99 = percentiles(siege.samples)
    print(f"{tried} attacks, and {len(siege.samples)} requests of a well-behaved client:")
    print(f"p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms; statuses {siege.statuses()}")
    grown = [
        f"{(each - before.memory) / 2**20:+.0f}" for each in (before.memory + peak, rest.memory)
    ]
    start, once = (usage.memory / 2**20 for usage in (fresh, before))
    print(f"memory {start:.0f} MB, {once:.0f} after each attack has been tried once; then")
    print(f"{grown[0]} MB at the most, {grown[1]} at the end")
    print(
        f"files {before.files}, {rest.files} at the end; threads {before.threads}, {rest.threads}"
    )
    return report(
        {
            f"{len(through)} of {tried} attacks got through": not through,
            f"a well-behaved client's p95 is {bound_ms:.0f} ms or less": p95 <= bound_ms,
            "a well-behaved client is answered with 200": set(siege.statuses()) == {200},
            f"no more than {most_mb:.0f} MB at the most": peak <= most_mb * 2**20,
            "memory is back within 5 %": rest.memory <= 1.05 * before.memory,
            "files are back": rest.files <= before.files + 2,
            "the workers are the same": same,
            "no file lies where an attack wanted it": not left,
            "no temporary file is left": rest.temporary <= before.temporary,
            "each line of the log is JSON": log_is_whole,
        }
    )


def _spread(attacks: list[Attack], cases: int | None) -> list[Attack]:
    if cases is None or cases >= len(attacks):
        return attacks
    return [attacks[number * len(attacks) // cases] for number in range(cases)]


class _Siege:
    def __init__(self, service: Service, outside: Path) -> None:
        self.service = service
        self.paths = (str(outside), str(service.folder), str(ROOT), "/pinglow/serve/")
        self.through: list[str] = []
        self.samples: list[Sample] = []
        self.tried = 0

    def statuses(self) -> dict[int, int]:
        return dict(Counter(sample.status for sample in self.samples))

    async def run(self, attacks: list[Attack], requests: Sequence[bytes], rate: float) -> None:
        over = asyncio.Event()
        beside = asyncio.create_task(self._behave(over, requests, rate))
        await self.attack(attacks)
        over.set()
        await beside

    async def attack(self, attacks: list[Attack]) -> None:
        slow = [asyncio.create_task(self._try(attack)) for attack in attacks if attack.slow]
        numbers = iter([attack for attack in attacks if not attack.slow])

        async def go() -> None:
            for attack in numbers:
                await self._try(attack)

        await asyncio.gather(*(go() for _ in range(TOGETHER)), *slow)

    async def _try(self, attack: Attack) -> None:
        fault = await try_attack(self.service, attack, self.paths)
        self.tried += 1
        if fault is not None:
            self.through.append(f"{attack.family}: {attack.name}: {fault}")
            print(f"THROUGH {self.through[-1]}", flush=True)

    async def _behave(self, over: asyncio.Event, requests: Sequence[bytes], rate: float) -> None:
        client = Client(self.service.port)
        begin = time.monotonic()
        tasks = []
        while not over.is_set():
            due = begin + len(tasks) / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            request = requests[len(tasks) % len(requests)]
            tasks.append(asyncio.create_task(client.send(request, due)))
        self.samples = await asyncio.gather(*tasks)
        client.close()


async def try_attack(service: Service, attack: Attack, paths: tuple[str, ...]) -> str | None:
    """How an attack got through; None: it did not. A job that it starts is seen to its end."""
    for _ in range(20):
        found = await exchange(
            service.port,
            attack.send,
            attack.patience,
            attack.answers,
            attack.read_every,
            service.holds if attack.slow else None,
        )
        if not any(reply.status == 429 for reply in found.replies):
            break
        await asyncio.sleep(1)  # it has not been tried yet
    fault = attack.judge(found, paths)
    if fault is None and found.replies and found.replies[0].status == 202:
        fault = await asyncio.to_thread(_follow_job, service, found.replies[0].body, paths)
    return fault


def _follow_job(service: Service, body: bytes, paths: tuple[str, ...]) -> str | None:
    """Wait for a job's end, read what it found, take it away."""
    address = f"{service.address}/v1/jobs/{json.loads(body)['id']}"
    end = time.monotonic() + JOB_SECONDS
    while True:
        state = _get(address)
        if json.loads(state)["state"] not in ("queued", "running"):
            break
        if time.monotonic() > end:
            return f"its job takes more than {JOB_SECONDS:.0f} s: {state[:200]!r}"
        time.sleep(0.2)
    found = state + _get(f"{address}/results/targets.jsonl")
    urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=20).close()
    for word in (SECRET, "root:x:0", "Traceback", "site-packages", *paths):
        if word.encode() in found:
            return f"its job tells {word!r}: {found[:300]!r}"
    return None


def _get(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return bytes(error.read())


def _with_token(outside: Path) -> _Siege:
    """Attempts at a service that asks for a token."""
    file = outside / "token"
    file.write_text(TOKEN)
    with Service("--token-file", str(file)) as service:
        siege = _Siege(service, outside)
        asyncio.run(siege.attack(list(tokens(TOKEN))))
        if service.status("/v1/models", TOKEN) != 200:
            siege.through.append("the token itself is refused")
        if TOKEN in service.log.read_text(errors="replace"):
            siege.through.append("the token is in the log")
    return siege


def _settle(service: Service, memory: int) -> Usage:
    """What the service holds once it has had time to give back what attacks took."""
    end = time.monotonic() + BACK_SECONDS
    while (usage := service.usage()).memory > 1.02 * memory and time.monotonic() < end:
        time.sleep(1)
    return usage


def _is_json(log: Path) -> bool:
    """Whether each line is an object; control characters are escaped."""
    for line in log.read_bytes().splitlines():
        try:
            json.loads(line)
        except ValueError:
            print(f"a line of the log is no JSON: {line[:200]!r}")
            return False
    return not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", log.read_bytes())
