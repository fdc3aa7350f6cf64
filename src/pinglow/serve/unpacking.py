"""Unpack a zip or tar of frames that a stranger has sent.

The sizes that it claims are added up before anything is written, and what it says of itself has to
fit into bounded memory. Only regular files are taken, and of their names only what cannot lead out
of the folder. An archive in it stays as it is.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from pinglow.errors import FrameError

MOST_MEMBERS: Final = 100_000
_MEMORY: Final = 2**30  # bytes more than before, while it unpacks
_CHUNK: Final = 2**20
_DEEPEST: Final = 8  # folders in folders
_LONGEST: Final = 200  # bytes of a part of a name; file systems take 255
_UNFIT: Final = re.compile(r"[^\w.,+@=() -]")
_TAR: Final = slice(257, 262)  # where a tar says that it is one
_COMPRESSED: Final[dict[bytes, Callable[..., Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_DAMAGE: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    *(EOFError, ValueError, RuntimeError, OverflowError),
)
"""What is raised of archives that are damaged or encrypted."""

_Member = tuple[str, int, Callable[[], IO[bytes] | None] | None]
"""Name, bytes when unpacked, and what opens it; None: it is no regular file."""


def is_archive(path: Path, name: str) -> bool:
    """Whether a file is a zip or a tar, by its first bytes; one that is called .npz is a frame."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return not name.lower().endswith(".npz")
    return head[_TAR] == b"ustar" or head.startswith(tuple(_COMPRESSED))


def unpack(path: Path, name: str, folder: Path, most_bytes: int) -> None:
    """Unpack an archive, see `is_archive`.

    Args:
        path: The file.
        name: What messages call it.
        folder: Where its members go.
        most_bytes: Of its members together.

    Raises:
        FrameError: It is damaged or encrypted, or has too many members or bytes.
        OSError: The disk is full.
    """
    try:
        with _bounded_memory():
            total = 0
            for number, (member, size, open_member) in enumerate(_list_members(path)):
                total += size
                if total > most_bytes or number >= MOST_MEMBERS:
                    raise FrameError(
                        f"{name} has more than {most_bytes / 2**20:,.0f} MB when unpacked, or more "
                        f"than {MOST_MEMBERS:,} members: send it in parts"
                    )
                content = None if open_member is None else open_member()
                if content is not None:
                    with content:
                        _write(content, size, folder, member, name)
    except MemoryError:
        raise FrameError(f"{name} takes too much memory to unpack: send it in parts") from None
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or "it ends too early"
        raise FrameError(
            f"{name} cannot be unpacked ({reason}): send a zip or a tar, without a password"
        ) from None


def clean_name(name: str) -> str:
    """What of a name can be a relative path, folders with /; empty: nothing."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    cleaned = (_UNFIT.sub("_", part).encode()[-_LONGEST:] for part in parts[-_DEEPEST:])
    return "/".join(part.decode(errors="ignore") for part in cleaned)


def _list_members(path: Path) -> Iterator[_Member]:
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(file) as archive:
                opener: Callable[[], IO[bytes] | None] | None
                for each in archive.infolist():
                    special = each.is_dir() or (each.external_attr >> 28) not in (0, 8)
                    opener = None if special else partial(archive.open, each)
                    yield each.filename, each.file_size, opener
            return
        for start, decompress in _COMPRESSED.items():
            if head.startswith(start):
                file = decompress(file)
        # Not tarfile's own choice: it would also look for what is compressed twice.
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for entry in tar:
                opener = partial(tar.extractfile, entry) if entry.isreg() else None
                yield entry.name, entry.size, opener


def _write(content: IO[bytes], size: int, folder: Path, member: str, name: str) -> None:
    place = folder / (clean_name(member) or "unnamed")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            left = size
            while left > 0 and (chunk := content.read(min(_CHUNK, left))):
                file.write(chunk)
                left -= len(chunk)
    except (FileExistsError, NotADirectoryError):
        raise FrameError(
            f"{name} has two members called {place.relative_to(folder)}: name them differently"
        ) from None


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Let what takes much more memory fail; lists of members and compression can claim any."""
    try:
        import resource

        status = Path("/proc/self/status").read_text()
    except (ImportError, OSError):  # only Linux counts so
        yield
        return
    used = re.search(r"VmData:\s*(\d+) kB", status)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _MEMORY + (int(used[1]) * 1024 if used else 0)
    limits = [most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
