"""Files that appear whole or not at all, and the folder for what pinglow can make again."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Final

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_ROOM: Final = {
    errno.ENOSPC: "the disk is full, free some space",
    errno.EDQUOT: "your quota is used up, free some space",
    errno.EFBIG: "it is larger than files may be here, raise the limit (ulimit -f) or choose "
    "another disk",
}
"""Why there is no room for a file, by the number of the error."""

LARGEST_TEXT: Final = 2**30
"""Bytes that a file of text has at most: lists, labels, tables."""


_PART: Final = ".pinglow.part"
_ABANDONED: Final = 60.0  # seconds without a change, before which a new file may not be locked yet


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file; see `open_whole`.

    Args:
        path: The file.
        content: All of it.
        durable: Wait until the disk has it, so that it outlives a power cut.

    Raises:
        OSError: It cannot be written; its ``filename`` is the path.
    """
    with open_whole(path, durable=durable) as file:
        file.write(content)


@contextmanager
def open_whole(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing, and the folders it lies in: beside the target, then renamed.

    The old file stays until the new one is whole, at the end of the block; an error in the block
    leaves it. The temporary file lies in the target's folder, because a rename across file systems
    is a copy that can be torn.

    Args:
        path: The file.
        durable: Wait until the disk has it, so that it outlives a power cut.

    Raises:
        OSError: It cannot be written; its ``filename`` is the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Machines that share a folder may have processes of one number.
    own = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name[:200]}.{own}{_PART}")
    try:
        with temporary.open("wb") as file:
            _lock(file)
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # a full disk, or Ctrl-C
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # under the name that is known
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_parts(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder and in the folders in it.

    A file of `write_whole` is left alone while its process lives, on this machine or, where the
    file system has locks, on another one.
    """
    if fcntl is None or not folder.is_dir():
        return
    inner = [each for each in folder.iterdir() if each.is_dir() and not each.is_symlink()]
    for path in (each for place in (folder, *inner) for each in place.glob(f".*{_PART}")):
        with suppress(OSError):  # removed by another process, or not ours to remove
            if time.time() - path.stat().st_mtime > _ABANDONED:
                with path.open("r+b") as file:
                    if _lock(file):
                        path.unlink()


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file until it is closed; whether nobody else has, where that can be known."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # taken, or a file system without locks
        return False
    return True


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system that names no file name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def naming_below(folder: Path, place: Path) -> Iterator[None]:
    """Let an error about a file in a temporary folder name it in the place where it is to go."""
    try:
        yield
    except OSError as error:
        inside = error.filename and Path(str(error.filename)).is_relative_to(folder)
        if not inside:
            raise
        name = place / Path(str(error.filename)).relative_to(folder)
        raise OSError(error.errno, error.strerror, str(name)) from error


def explain(error: OSError) -> str:
    """One sentence about what the system does not do with a file."""
    name = error.filename or "output"
    if error.errno in NO_ROOM:
        return f"cannot write {name}: {NO_ROOM[error.errno]}"
    return f"{name} cannot be used ({error.strerror}): check the path and its permissions"


@contextmanager
def claim(lock: Path) -> Iterator[bool]:
    """Whether no other process holds a lock file; the system frees it when its process ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        if fcntl is None:  # Windows: left to the user
            yield True
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds a lock file, and hold it, where the system has locks."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def refuse_special(path: Path) -> None:
    """See that a path is no pipe and no device: those may never come to an end.

    Raises:
        OSError: It is one, or it is not there; ``strerror`` says so as a part of a sentence.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder, opening it tells
        raise OSError(errno.EINVAL, "it is a pipe or a device; save it to a file", str(path))


def read_whole(path: Path, most: int = LARGEST_TEXT) -> bytes:
    """All bytes of a file.

    Args:
        path: The file.
        most: Bytes that such a file has at most.

    Raises:
        OSError: It is a pipe, a device or larger, or cannot be read; ``strerror`` says so as a part
            of a sentence.
    """
    refuse_special(path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            reason = f"it has more than {most / 2**20:,.0f} MB, too many for such a file"
            raise OSError(errno.EFBIG, reason, str(path))
        return file.read()


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/pinglow``, else ``~/.cache/pinglow``; None where there is no home for it.

    The folder may not exist yet.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pinglow"
    except RuntimeError:  # a user without a home folder, as in many containers
        return None
