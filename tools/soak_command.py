"""A command in a process of its own, killed before one of its changes; `soak` runs this."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

LONGEST = 600
"""Seconds that a command may take."""

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int  # below 0: by this signal
    said: str
    changes: int
    seconds: float


def run_command(
    arguments: list[str],
    folder: Path,
    *,
    kill_at: int | None = None,
    kill_after: float | None = None,
    largest: int | None = None,
) -> Outcome:
    """Run a command in a fork of this process, in which all is imported and nothing has run.

    Args:
        arguments: After ``pinglow``.
        folder: Changes in it are counted.
        kill_at: Kill it before this change.
        kill_after: Kill it after so many seconds.
        largest: Bytes that a file may have, as on a full disk.
    """
    begin = time.monotonic()
    # Pipes: files would be limited, too.
    told, counted = os.pipe(), os.pipe()
    for _, end in (told, counted):
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 2**20)
    child = os.fork()
    if child == 0:
        _be_command(arguments, folder, told[1], counted[1], kill_at, largest)
    os.close(told[1])
    os.close(counted[1])
    code = _wait(child, kill_after)
    seconds = time.monotonic() - begin
    with open(told[0], "rb") as said, open(counted[0], "rb") as changes:
        text = said.read().decode(errors="replace")
        return Outcome(code, text, len(changes.read()), seconds)


def _be_command(
    arguments: list[str],
    folder: Path,
    told: int,
    counted: int,
    kill_at: int | None,
    largest: int | None,
) -> None:
    code = 1
    try:
        for number in (1, 2):
            os.dup2(told, number)
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        _count_changes(folder, counted, kill_at)
        from pinglow.cli.main import app

        app(arguments, prog_name="pinglow")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count_changes(folder: Path, counted: int, kill_at: int | None) -> None:
    """See each change of a file in the folder, before it is made."""
    start = str(folder)
    seen = 0

    def notice(event: str, values: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open":
            _, _, flags = values
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
                return
        elif event not in CHANGES:
            return
        if isinstance(values[0], str | bytes | os.PathLike) and os.fsdecode(values[0]).startswith(
            start
        ):
            seen += 1
            os.write(counted, b".")
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(notice)


def _wait(child: int, kill_after: float | None) -> int:
    begin = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        spent = time.monotonic() - begin
        if spent > LONGEST or (kill_after is not None and spent > kill_after):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGALRM if spent > LONGEST else -signal.SIGKILL
        time.sleep(0.002)
