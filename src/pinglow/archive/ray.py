"""Runs an archive on many machines: Ray Data maps the one function over the names of units."""

from __future__ import annotations

import ipaddress
import itertools
import json
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final

from pinglow.archive.frames import name_of
from pinglow.archive.place import Place
from pinglow.archive.plans import Keyed
from pinglow.archive.settings import Settings
from pinglow.archive.units import Unit
from pinglow.archive.work import UNITS, Outcome, work_on
from pinglow.errors import DataError, OptionError, PinglowError
from pinglow.extras import import_extra
from pinglow.files import explain

LOCAL: Final = "local"
"""The address that starts a cluster on this machine, for the time of the run."""

_TRIES: Final = 3  # of a block whose worker or machine has died
_WINDOW: Final = 50_000  # units that are given to Ray at a time
_PER_WORKER: Final = 64  # units of a window for each worker, at least,
_SECONDS: Final = 10.0  # unless listing them takes longer than this

_ENVIRONMENT: Final = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


def run_on_ray(
    units: Iterator[Keyed],
    settings: Settings,
    place: Place,
    address: str = LOCAL,
    workers: int | None = None,
    gpus: float = 0,
    *,
    retry: bool = False,
) -> Iterator[Outcome]:
    """Do units in actors of a Ray cluster, each with a model that stays loaded.

    Ray is given names of units, never pixels; actors read frames and write parts. What a machine
    or a process had when it died is done again by others, at most three times. A unit that fails
    even when it is given alone is given up.

    Args:
        units: Keys and units; taken as others are done.
        settings: The model and its options, of which the keys are.
        place: The folder of the results of these settings, which all machines reach.
        address: Of a cluster, as ``10.0.0.5:6379``; `LOCAL`: one of this machine alone, which
            listens on loopback and asks for a token.
        workers: Actors; None: as many as the cluster has room for.
        gpus: Share of a card that each takes; 0: none, a core each.
        retry: See `work_on`.

    Yields:
        What came of each unit.

    Raises:
        MissingExtraError: Ray is not installed.
        OptionError: No cluster answers, or it refuses the token.
        DataError: See `work_on`; or Ray itself fails again and again.
    """
    ray = _connect(address, workers)
    try:
        count = workers or _room(ray, gpus)
        tally = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Tally).remote()
        for window in _windows(units, count):
            ray.get(tally.forget.remote())
            yield from _Window(window, count, gpus, (settings, place, retry, tally)).run()
    finally:
        ray.shutdown()


class _Worker:
    """What an actor does: the function of every runner, over a block of names."""

    def __init__(self, settings: Settings, place: Place, retry: bool, tally: Any) -> None:
        self._place, self._retry, self._tally = place, retry, tally
        self._fault: str | None = None
        try:
            self._predictor = settings.load_predictor()
        except PinglowError as error:  # an actor that cannot start would be started forever
            self._fault = str(error)

    def __call__(self, block: Any) -> Any:
        units = [
            (key, Unit(**unit)) for key, unit in map(json.loads, block.column("unit").to_pylist())
        ]
        rows: list[dict[str, Any]] = []
        ray = import_extra("ray", "ray", "--ray")
        if ray.get(self._tally.begin.remote(f"{units[0][0]} {len(units)}")) > _TRIES:
            return _table("outcome", rows)
        fault = self._fault
        if fault is None:
            try:
                found = work_on(units, self._predictor, self._place, retry=self._retry)
                rows.extend(map(asdict, found))
            except PinglowError as error:
                fault = str(error)
            except OSError as error:
                fault = explain(error)
        if fault is not None:
            rows.append({"fault": fault})
        return _table("outcome", rows)


class _Tally:
    """How often blocks were begun: Ray would try those over which workers end forever."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, block: str) -> int:
        """Count a block; how often it was begun by now."""
        self._begun[block] += 1
        return self._begun[block]

    def forget(self) -> None:
        """Begin anew: blocks of the windows before are done."""
        self._begun.clear()


class _Window:
    """Some units that are given to Ray at once."""

    def __init__(
        self, units: Sequence[Keyed], workers: int, gpus: float, given: tuple[Any, ...]
    ) -> None:
        self._left = dict(units)
        self._workers, self._gpus, self._given = workers, gpus, given

    def run(self) -> Iterator[Outcome]:
        fault = yield from self._pass(UNITS, 2)
        if self._left:  # alone, so that none fails for its neighbors
            fault = yield from self._pass(1, 1)
        if self._left and fault is not None:
            raise DataError(
                f"Ray failed ({' '.join(str(fault).split())[:200]}): see its logs; when that is "
                "mended, the same command goes on"
            )
        for key, unit in self._left.items():
            name = name_of(unit.uri)
            yield Outcome(
                key,
                name,
                failure=f"{name} was given up: workers ended over it each time (out of "
                "memory?); use fewer --workers, or look at the file",
            )

    def _pass(self, together: int, waiting: int) -> Generator[Outcome, None, Exception | None]:
        """Give all that is left; what Ray itself failed of, if it did."""
        import ray

        blocks = [
            _table("unit", [[key, asdict(unit)] for key, unit in block])
            for block in _batched(self._left.items(), together)
        ]
        data = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=self._given,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=min(self._workers, len(blocks)), max_tasks_in_flight_per_actor=waiting
            ),
            num_cpus=None if self._gpus else 1,
            num_gpus=self._gpus or None,
        )
        try:
            answers: Any = data.iter_batches(batch_size=None, batch_format="pyarrow")
            for block in answers:
                for row in map(json.loads, block.column("outcome").to_pylist()):
                    if "fault" in row:
                        raise DataError(row["fault"])
                    if self._left.pop(row["key"], None) is not None:  # else told a second time
                        yield Outcome(**{**row, "reasons": tuple(row["reasons"])})
        except ray.exceptions.RayError as error:
            return error
        return None


def _windows(units: Iterator[Keyed], workers: int) -> Iterator[list[Keyed]]:
    """Some units after the other; while some are done, the following are listed."""

    def gather() -> list[Keyed]:
        begin, window = time.monotonic(), list[Keyed]()
        for each in units:
            window.append(each)
            enough = len(window) >= _PER_WORKER * workers
            if len(window) >= _WINDOW or (enough and time.monotonic() - begin > _SECONDS):
                break
        return window

    lister = ThreadPoolExecutor(1)
    try:
        following = lister.submit(gather)
        while window := following.result():
            following = lister.submit(gather)
            yield window
    finally:
        lister.shutdown(wait=False, cancel_futures=True)


def _batched(items: Iterable[Keyed], size: int) -> Iterator[list[Keyed]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _table(name: str, rows: Sequence[Any]) -> Any:
    """Rows of JSON in one column: all blocks have one schema, whatever is in them."""
    arrow = import_extra("pyarrow", "archive", "an archive")
    return arrow.table({name: arrow.array(map(json.dumps, rows), arrow.string())})


def _room(ray: Any, gpus: float) -> int:
    """How many workers the cluster has room for."""
    there = ray.cluster_resources()
    if not gpus:
        return max(1, int(there.get("CPU", 1)))
    cards = there.get("GPU", 0)
    if cards < gpus:
        raise OptionError(
            f"--gpus-per-worker is {gpus:g}, but the cluster has {cards:g} GPUs: leave it out"
        )
    return int(cards) * max(1, int(1 / gpus)) if gpus <= 1 else int(cards / gpus)


def _connect(address: str, workers: int | None) -> Any:
    """Start Ray here, or find a cluster; nothing is told to anybody outside.

    Raises:
        MissingExtraError: It is not installed.
        OptionError: No cluster answers, or it refuses the token.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address == LOCAL:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    if _is_here(address):
        # Ray takes 127.0.0.1 for the address that other machines see, but for this.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray = import_extra("ray", "ray", "--ray")
    data = import_extra("ray.data", "ray", "--ray")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        # Only names travel: little memory is shared.
        options |= {
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": 2**27,
        }
    try:
        ray.init(address, **options)
    except ray.exceptions.AuthenticationError as error:
        raise OptionError(
            f"--ray {address} asks for a token: put the cluster's into RAY_AUTH_TOKEN or "
            "~/.ray/auth_token, or set RAY_AUTH_MODE=disabled for a cluster without one"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        detail = " ".join(str(error).split())[:200].rstrip(".")
        raise OptionError(
            f"--ray {address}: no cluster answers ({detail}); start one (ray start --head), or use "
            f"--ray {LOCAL}"
        ) from error
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what their units are, a window knows
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


def _is_here(address: str) -> bool:
    """Whether an address is of this machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return address == LOCAL or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
