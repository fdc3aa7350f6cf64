"""Spoil files for as long as asked, each kind in a process of its own that may crash or hang.

python tests/fuzz --seconds 3600              all kinds in turn; failures into build/fuzz
python tests/fuzz --kind image --number 17    one batch again
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from fuzz.jobs import KINDS, make_batch  # noqa: E402
from fuzz.promises import SECONDS, BrokenPromiseError  # noqa: E402

_SLICE = 40  # seconds that a process of one kind lasts
_MEMORY = 8 * 2**30  # bytes of address space, so that no file takes the machine down


def try_batch(kind: str, number: int) -> str | None:
    """What promise a batch breaks; None: none."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        try:
            KINDS[kind].run(Path(name), make_batch(kind, number))
        except BrokenPromiseError as error:
            return str(error).replace(name, "FOLDER")
    return None


def work(kind: str, number: int, seconds: float) -> None:
    """Try batches from a number on and tell each, before it begins and after it has failed."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        print(f"begin {number}", flush=True)
        broken = try_batch(kind, number)
        if broken is not None:
            print(f"broken {number} {broken!r}", flush=True)
        number += 1
    print(f"end {number}", flush=True)


def run_slice(kind: str, number: int, seconds: float) -> tuple[int, dict[int, str]]:
    """Let a process try batches; the number after the last one, and what each broke."""
    command = [sys.executable, __file__, "--work", "--kind", kind]
    command += ["--number", str(number), "--seconds", str(seconds)]
    broken: dict[int, str] = {}
    following = number + 1
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as error:
        process = subprocess.Popen(command, stdout=told, stderr=error, cwd=ROOT)
        try:
            code = process.wait(seconds + 6 * SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        told.seek(0)
        error.seek(0)
        last = ""
        for line in told:
            word, _, rest = line.strip().partition(" ")
            if word == "begin":
                following = int(rest) + 1
            elif word == "broken":
                place, _, text = rest.partition(" ")
                broken[int(place)] = text
            last = word
        if code or last != "end":
            tail = error.read()[-3000:]
            broken[following - 1] = f"the process ended with {code}\n{tail}"
    return following, broken


def keep(folder: Path, kind: str, number: int, broken: str) -> None:
    """Save a batch that broke a promise, and what it broke."""
    place = folder / f"{kind}-{number}"
    place.mkdir(parents=True, exist_ok=True)
    for index, (name, content) in enumerate(make_batch(kind, number)):
        (place / f"s{index:03}-{name}").write_bytes(content)
    again = f"python tests/fuzz --kind {kind} --number {number}"
    text = broken.encode().decode("unicode_escape", "replace") if "\\n" in broken else broken
    (place / "README").write_text(f"{again}\n\n{text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all in turn")
    parser.add_argument("--number", type=int, help="of one batch")
    parser.add_argument("--first", type=int, default=0, help="number of the first batch")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-cache-") as cache:
        os.environ.setdefault("XDG_CACHE_HOME", cache)
        os.environ["PINGLOW_FUZZ"] = "1"
        if asked.work:
            work(asked.kind[0], asked.number, asked.seconds)
            return 0
        if asked.number is not None:
            broken = try_batch(asked.kind[0], asked.number)
            print(broken or "every promise holds")
            return int(broken is not None)
        return go_round(asked.kind or list(KINDS), asked.first, asked.seconds, asked.out)


def go_round(kinds: list[str], first: int, seconds: float, out: Path) -> int:
    """All kinds in turn until the time is over."""
    shutil.rmtree(out, ignore_errors=True)
    begin = time.monotonic()
    following = dict.fromkeys(kinds, first)
    failures: Counter[str] = Counter()
    span = min(_SLICE, max(5.0, seconds / len(kinds)))
    while (spent := time.monotonic() - begin) < seconds:
        for kind in kinds:
            following[kind], broken = run_slice(kind, following[kind], span)
            for number, text in broken.items():
                keep(out, kind, number, text)
            failures[kind] += len(broken)
            spent = time.monotonic() - begin
            files = (following[kind] - first) * KINDS[kind].together
            print(f"{spent:6.0f} s  {kind:10} {files:8,} files, {failures[kind]} broke", flush=True)
            if spent >= seconds:
                break
    total = sum((following[kind] - first) * KINDS[kind].together for kind in kinds)
    print(
        f"{total:,} files in {spent / 60:.0f} minutes, {failures.total()} batches broke a promise"
    )
    if failures.total():
        print(f"they are in {out}")
    return int(failures.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
