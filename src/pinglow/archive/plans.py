"""Manifests: which units a run is to do, written while its sources are listed.

A plan is a file PLAN.json, written when all is listed, and chunks of it in the folder PLAN: Parquet
files of 16,384 units, sorted by name, so that a million of them never lie in memory. Plans are
numbered as they are begun: clocks of several machines may differ.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import queue
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any, Final

from pinglow.archive.listing import list_sources
from pinglow.archive.place import Place
from pinglow.archive.units import Unit, make_units
from pinglow.data.pack.reader import work_through
from pinglow.errors import DataError, OptionError
from pinglow.extras import import_extra
from pinglow.io.places import PlaceError, absolute

PLANS: Final = "plans"
"""The folder of the plans, in the folder of the results."""

_CHUNK: Final = 2**14  # units
_AT_A_TIME: Final = 256  # units of a chunk that are decoded
_READ: Final = 16  # plans at a time

Keyed = tuple[str, Unit]
"""A key and its unit."""


@dataclass(frozen=True)
class Shard:
    """The share of one of several machines: units whose file's name hashes to it.

    Attributes:
        number: From 1.
        total: How many machines there are.
    """

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """What ``--shard`` says, as in 3/8.

        Raises:
            OptionError: It says something else.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        number, total = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= total:
            raise OptionError(f"--shard is {text!r}: give the number of this machine, as in 3/8")
        return cls(number, total)

    def holds(self, uri: str) -> bool:
        """Whether a file belongs to it; that changes with the number of machines alone."""
        digest = hashlib.sha256(uri.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.total == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


class Planner:
    """Lists sources in a thread of its own, and gives out their units as they are written down.

    Attributes:
        listed: Units so far.
        done: Whether all is listed, so that ``listed`` is the total.
        troubles: What could not be listed, a sentence each.
    """

    def __init__(
        self, place: Place, words: Sequence[str], shard: Shard, key_of: Callable[[Unit], str]
    ) -> None:
        self.listed = 0
        self.done = False
        self.troubles: list[str] = []
        self._place, self._words, self._shard, self._key_of = place, words, shard, key_of
        self._chunks: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        # Chunks wait in a file of our own: another run may replace those of the plan.
        self._waiting = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._list, daemon=True)

    def units(self) -> Iterator[Keyed]:
        """Every unit with its key.

        Raises:
            DataError: A source cannot be listed, or the manifest cannot be written.
            OSError: The disk does not take the manifest.
        """
        self._thread.start()
        at = 0
        while (length := self._chunks.get()) is not None:
            if isinstance(length, BaseException):
                raise length
            with self._lock:
                self._waiting.seek(at)
                content = self._waiting.read(length)
            at += length
            yield from _decode_chunk(content)

    def stop(self) -> None:
        """Stop listing, where it goes on."""
        self._stopped.set()
        self._chunks.put(None)
        with self._lock:
            self._waiting.close()

    def _list(self) -> None:
        try:
            self._write()
        except BaseException as error:
            self._chunks.put(error)

    def _write(self) -> None:
        plan = plan_name(self._words, self._shard)
        plans = _read_plans(self._place)
        number = 1 + max((each.get("number", 0) for each in plans.values()), default=0)
        files = list_sources(self._words, self.troubles.append)
        units = make_units(file for file in files if self._shard.holds(file.uri))
        chunks = []
        while some := list(islice(units, _CHUNK)):
            if self._stopped.is_set():
                return
            keyed = sorted(
                {(unit.uri, unit.first, self._key_of(unit), unit) for unit in some},
                key=lambda each: each[:3],
            )
            content = _chunk_content([(key, unit) for _, _, key, unit in keyed])
            digest = hashlib.sha256(content).hexdigest()[:32]
            # The number, as another run may remove what was there before.
            name = f"{PLANS}/{plan}/{number}-{digest}.parquet"
            self._place.write(name, content, replace=False)
            chunks.append(name)
            self.listed += len(keyed)
            with self._lock:
                if self._stopped.is_set():
                    return
                self._waiting.seek(0, 2)
                self._waiting.write(content)
            self._chunks.put(len(content))
        written = {
            "sources": [absolute(word) for word in self._words],
            "shard": str(self._shard),
            "number": number,
            "units": self.listed,
            "chunks": chunks,
        }
        self._place.write(f"{PLANS}/{plan}.json", json.dumps(written, indent=1).encode())
        for name in {*plans.get(plan, {}).get("chunks", [])} - {*chunks}:
            self._place.remove(name)
        self.done = True
        self._chunks.put(None)


def plan_name(words: Sequence[str], shard: Shard) -> str:
    """What the plan of sources is called: the same for the same sources."""
    text = json.dumps([sorted(map(_canonical, words)), str(shard)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(word: str) -> str:
    return f"@{absolute(word[1:])}" if word.startswith("@") else absolute(word)


def read_units(place: Place) -> Iterator[Keyed]:
    """The units of all plans, each once, sorted by name and first frame.

    Plans may name one file, which was changed meanwhile: what the last of them says of it counts.

    Raises:
        PlaceError: A manifest cannot be read.
    """
    planned = [
        _numbered(read_chunk(place, chunk), plan.get("number", 0))
        for plan in _read_plans(place).values()
        for chunk in plan.get("chunks", [])
    ]
    for _, alike in groupby(heapq.merge(*planned), key=lambda each: each[0]):
        units = list(alike)
        latest = max(units, key=lambda each: each[3])
        before = None
        for _, _, key, number, unit in units:
            if (number, unit.mark) == (latest[3], latest[4].mark) and key != before:
                before = key
                yield key, unit


def _numbered(units: Iterator[Keyed], number: int) -> Iterator[tuple[str, int, str, int, Unit]]:
    for key, unit in units:
        yield unit.uri, unit.first, key, number, unit


def read_chunk(place: Place, name: str) -> Iterator[Keyed]:
    """The units of one chunk.

    Raises:
        PlaceError: It cannot be read.
        DataError: It is damaged.
    """
    arrow = import_extra("pyarrow", "archive", "an archive")
    try:
        content = place.read(name)
    except PlaceError as error:
        if not error.gone:
            raise
        raise DataError(
            f"a run has written the manifest of {place} anew meanwhile: start this command again"
        ) from error
    try:
        yield from _decode_chunk(content)
    except (arrow.ArrowException, ValueError) as error:
        raise DataError(
            f"{place}/{name} is damaged: run again, which writes the manifest anew"
        ) from error


def _decode_chunk(content: bytes) -> Iterator[Keyed]:
    arrow = import_extra("pyarrow", "archive", "an archive")
    parquet = import_extra("pyarrow.parquet", "archive", "an archive")
    for batch in parquet.ParquetFile(arrow.BufferReader(content)).iter_batches(_AT_A_TIME):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            key, uri, *rest = row
            yield key.hex(), Unit(uri.decode("utf-8", "surrogateescape"), *rest)


def _chunk_content(units: list[Keyed]) -> bytes:
    arrow = import_extra("pyarrow", "archive", "an archive")
    parquet = import_extra("pyarrow.parquet", "archive", "an archive")
    kinds: dict[str, Any] = {
        **{"key": arrow.binary(32), "uri": arrow.binary(), "mark": arrow.string()},
        **{"first": arrow.int64(), "last": arrow.int64(), "size": arrow.int64()},
    }
    rows = [
        (bytes.fromhex(key), unit.uri.encode("utf-8", "surrogateescape"), *astuple(unit)[1:])
        for key, unit in units
    ]
    table = arrow.table([list(column) for column in zip(*rows, strict=True)], arrow.schema(kinds))
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def _read_plans(place: Place) -> dict[str, dict[str, Any]]:
    """The plans that were finished, of all runs."""
    found = sorted(name for name in place.names(PLANS) if name.endswith(".json"))
    names = [name.removesuffix(".json") for name in found]
    return dict(zip(names, work_through(partial(_read_plan, place), names, _READ), strict=True))


def _read_plan(place: Place, plan: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(place.read(f"{PLANS}/{plan}.json"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place}/{PLANS}/{plan}.json is damaged: delete it and run again"
        ) from error
    return content
