"""What holds for every command whatever the files are, and a call that sees whether it did."""

from __future__ import annotations

import faulthandler
import functools
import gc
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, cast

from typer.core import TyperGroup
from typer.main import get_command

SECONDS: Final = 30
"""What a call may take, of files of a few kilobytes."""

GROWTH: Final = 700 * 2**20
"""Bytes by which a call may make the process grow, so that it stays under 1 GB."""

_STATUS: Final = Path("/proc/self/status")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_REAL_ERROR: Final = os.dup(2)  # where a hang is told while standard error is captured
_NOISE: Final = re.compile(
    r"PNG |libpng|\[\w+ @|.*Warning: |.*\.py:\d+:|.*\[[WEF]:onnxruntime|Corrupt|TIFF", re.ASCII
)
"""How lines of libraries begin."""
_SAID: Final = ("error: ", "warning: ", "note: ")


class BrokenPromiseError(AssertionError):
    """Something happened that no file may cause."""


@dataclass(frozen=True)
class Call:
    """What a command did.

    Attributes:
        code: Its exit code.
        out: What it wrote to standard output.
        lines: What it wrote to standard error.
    """

    code: int
    out: str
    lines: list[str]


def call(*arguments: str | Path, codes: Sequence[int] = (0, 2)) -> Call:
    """Run a command in this process.

    Raises:
        BrokenPromiseError: Another exit code, a traceback, a hang, too much memory, noise of a
            library, or a line that is no sentence of ours.
    """
    command = _command()
    gc.collect()
    gc.freeze()  # the next one looks at what came since: all modules would take 0.3 s
    before = _reset_peak()
    shown = " ".join(map(str, arguments))
    with _captured() as read, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with _watchdog():
            try:
                command([str(each) for each in arguments], prog_name="pinglow")
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BrokenPromiseError:
                raise BrokenPromiseError(f"over {SECONDS} s: pinglow {shown}") from None
            except BaseException:
                raise BrokenPromiseError(f"pinglow {shown}\n{traceback.format_exc(-6)}") from None
        out, err = read()
    grown = _peak() - before
    lines = [line for line in err.splitlines() if line.strip()]
    said = "\n".join(lines)[:4000]
    if code not in codes:
        raise BrokenPromiseError(f"exit code {code}: pinglow {shown}\n{said}")
    if "Traceback" in err or "Exception ignored" in err:
        raise BrokenPromiseError(f"a traceback: pinglow {shown}\n{said}")
    if seen:
        raise BrokenPromiseError(f"{seen[0].category.__name__}: {seen[0].message}: pinglow {shown}")
    if noise := [line for line in lines if _NOISE.match(line)]:
        raise BrokenPromiseError(f"a library speaks, {noise[0][:300]!r}: pinglow {shown}")
    if _CONTROL.search(err + out):
        raise BrokenPromiseError(f"control characters: pinglow {shown}\n{said!r}")
    if code == 2 and not any(line.startswith(_SAID) for line in lines):
        raise BrokenPromiseError(f"no reason for exit code 2: pinglow {shown}\n{said}")
    if grown > GROWTH:
        raise BrokenPromiseError(f"{grown >> 20} MB of memory: pinglow {shown}\n{said}")
    return Call(code, out, lines)


@functools.cache
def _command() -> TyperGroup:
    """The command line, of which typer would build all commands at each call."""
    from pinglow.cli.main import app

    return cast(TyperGroup, get_command(app))


@contextmanager
def _captured() -> Iterator[Callable[[], tuple[str, str]]]:
    """Standard output and error of this process, of libraries in C, too."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = sys.stdout, sys.stderr
    saved = os.dup(1), os.dup(2)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as err,
    ):
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = out, err

        def read() -> tuple[str, str]:
            texts = []
            for file in (out, err):
                file.flush()
                file.seek(0)
                texts.append(file.read())
            return texts[0], texts[1]

        try:
            yield read
        finally:
            sys.stdout, sys.stderr = kept
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)


@contextmanager
def _watchdog() -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise BrokenPromiseError

    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    # What hangs in a library never comes back to Python: then the process ends.
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True, file=_REAL_ERROR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _reset_peak() -> int:
    """Bytes that the process has now, from which its peak counts anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # no Linux
        return 0
    return _peak()


def _peak() -> int:
    """The most bytes that the process had at a time."""
    if not _STATUS.exists():
        return 0
    match = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    return int(match[1]) * 1024 if match else 0
