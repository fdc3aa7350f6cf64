"""Where frames lie: local disks, and object stores by fsspec."""

from __future__ import annotations

import functools
import io
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from pinglow.errors import DataError, MissingExtraError, PinglowError
from pinglow.extras import import_extra
from pinglow.io import s3
from pinglow.io.streams import hide_login

_Answer = TypeVar("_Answer")

_URL: Final = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]+)://(?P<host>[^/]*)")
_TRIES: Final = 4
_PAUSE: Final = 0.5  # seconds before the second try; twice as long before each one after it
_BLOCK: Final = 2**20  # bytes of a clip that are read at a time


class PlaceError(DataError):
    """A file or an object cannot be read, listed or written now.

    Attributes:
        again: Whether the next moment may be better: the network, or a service that is busy.
        gone: Whether it is not there.
    """

    def __init__(self, message: str, *, again: bool = False, gone: bool = False) -> None:
        super().__init__(message)
        self.again, self.gone = again, gone


@contextmanager
def reaching(name: str, verb: str = "read") -> Iterator[None]:
    """Turn whatever a file system raises into one sentence that names the file or object.

    Raises:
        PlaceError: In the place of any other error.
    """
    name = hide_login(name)
    try:
        yield
    except PinglowError:
        raise
    except FileNotFoundError as error:
        raise PlaceError(f"{name} is not there: check the name", gone=True) from error
    except PermissionError as error:
        raise PlaceError(
            f"{name} may not be {verb} ({_detail(error)}): check its permissions, or renew the "
            "credentials"
        ) from error
    except Exception as error:  # object stores have trees of their own
        if type(error).__name__ == "FileExpired":  # s3fs's, of another ETag than at the start
            raise changed(name) from error
        raise PlaceError(
            f"{name} cannot be {verb} ({_detail(error)}): check the place and the network",
            again=True,
        ) from error


def _detail(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return hide_login(" ".join(str(text).split())[:200].rstrip("."))


def try_again(call: Callable[[], _Answer], tries: int = _TRIES) -> _Answer:
    """What a call gives; after an error that may pass, it is called again, a few times.

    Raises:
        PlaceError: It never did.
    """
    for number in range(1, tries):
        try:
            return call()
        except PlaceError as error:
            if not error.again:
                raise
        time.sleep(_PAUSE * 2 ** (number - 1) * random.uniform(0.5, 1.5))
    return call()


def is_url(word: str) -> bool:
    """Whether a word is an address of something that is not on a local disk."""
    match = _URL.match(word)
    return match is not None and match["scheme"].lower() not in ("file", "local")


def absolute(word: str) -> str:
    """The one name of a file, folder or pattern: an address as it is, else an absolute path."""
    if is_url(word):
        return word
    match = _URL.match(word)
    return os.path.abspath(word if match is None else word[match.end("scheme") + 3 :])


def file_system(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path there.

    Raises:
        MissingExtraError: The package for this kind of address is not installed.
        PlaceError: There is no such kind, or it cannot be used.
    """
    match = _URL.match(url)
    assert match is not None
    system = _open_system(match[0])
    with reaching(url):
        return system, str(system._strip_protocol(url))


@functools.lru_cache(maxsize=64)
def _open_system(root: str) -> Any:
    """One for all threads: fsspec would open one a thread."""
    fsspec = import_extra("fsspec", "archive", f"reading {root}")
    try:
        with reaching(root):
            # What was listed an hour ago says nothing about now.
            return fsspec.core.url_to_fs(root, use_listings_cache=False, skip_instance_cache=True)[
                0
            ]
    except PlaceError as error:
        cause = error.__cause__
        if isinstance(cause, ImportError):
            package = re.search(r"[Ii]nstall ['\"`]?([\w.-]+)", str(cause))
            name = package[1] if package else str(cause)
            raise MissingExtraError(
                f"{root} needs {name}, which is not installed: pip install {name}"
            ) from cause
        if isinstance(cause, ValueError):
            raise PlaceError(
                f"{root} is of a kind that fsspec does not know ({_detail(cause)}): use a path, "
                "s3://, gs://, az:// or https://"
            ) from cause
        raise


def fetch(uri: str, mark: str | None = None) -> bytes:
    """All bytes of a file or object.

    Args:
        uri: It.
        mark: Its ETag; an object in S3 that has another one by now is refused.

    Raises:
        PlaceError: It cannot be read.
    """
    if not is_url(uri):
        with reaching(uri):
            return Path(uri).read_bytes()
    system, path = file_system(uri)
    with reaching(uri):
        if not mark or not s3.is_s3(system):
            return bytes(system.cat_file(path))
        content, etag = s3.fetch(system, path)
    if etag not in (mark, ""):  # not all stores tell it
        raise changed(uri)
    return content


def open_object(uri: str, mark: str | None = None) -> IO[bytes]:
    """A file or object to read and seek in, of which only what is asked for is read.

    Args:
        uri: It.
        mark: See `fetch`.

    Raises:
        PlaceError: It cannot be read.
    """
    if not is_url(uri):
        with reaching(uri):
            return Path(uri).open("rb")
    return io.BufferedReader(_ObjectFile(uri, mark), 2**16)


def changed(uri: str) -> PlaceError:
    """What is raised of a file or object that is another one by now."""
    return PlaceError(f"{hide_login(uri)} has changed since it was listed: run again")


class _ObjectFile(io.RawIOBase):
    """An object that is read in ranges; what fails is tried again."""

    def __init__(self, uri: str, mark: str | None) -> None:
        self._uri = uri
        system, path = file_system(uri)

        def start() -> Any:
            with reaching(uri):
                file = system.open(path, "rb", block_size=_BLOCK, cache_type="readahead")
                # Later on s3fs itself sees to it.
                if mark and s3.is_s3(system) and s3.etag_of(file.details) != mark:
                    raise changed(uri)
                return file

        self._file = try_again(start)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is, where its server gives ranges."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        at = self._file.tell()

        def read() -> bytes:
            with reaching(self._uri):
                if self._file.tell() != at:
                    self._file.seek(at)
                content: bytes = self._file.read(len(buffer))
            return content

        content = try_again(read)
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        with reaching(self._uri):
            place: int = self._file.seek(offset, whence)
        return place

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        place: int = self._file.tell()
        return place

    def close(self) -> None:
        """See `io.RawIOBase`."""
        if not self.closed:
            self._file.close()
        super().close()


def list_folder(system: Any, path: str, *, deep: bool = False) -> Iterator[dict[str, Any]]:
    """What fsspec says of each entry of a folder, page by page where the store has pages.

    Args:
        system: Of fsspec.
        path: The folder there.
        deep: List the files in all folders below it instead; folders themselves are left out.
    """
    if s3.is_s3(system):
        yield from s3.list_folder(system, path, deep=deep)
        return
    folders = [path]
    while folders:
        for entry in system.ls(folders.pop(), detail=True):
            if deep and entry.get("type") == "directory":
                if entry["name"].rstrip("/") != path.rstrip("/"):
                    folders.append(entry["name"])
            else:
                yield entry
