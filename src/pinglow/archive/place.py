"""Where results go: a folder on a local disk, or in an object store by fsspec."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pinglow.files import remove_parts, write_whole
from pinglow.io.places import (
    absolute,
    fetch,
    file_system,
    is_url,
    list_folder,
    reaching,
    try_again,
)
from pinglow.io.streams import hide_login


class Place:
    """A folder for results on a local disk.

    Args:
        root: Its path.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def __str__(self) -> str:
        return hide_login(self.root)

    def below(self, name: str) -> Place:
        """A folder in it."""
        return type(self)(f"{self.root.rstrip('/')}/{name}")

    def names(self, folder: str = "") -> Iterator[str]:
        """Names of the files and folders in a folder in it, in no order; none if it is not there.

        Raises:
            PlaceError: It cannot be listed.
        """
        return (name for name, _ in self.entries(folder))

    def entries(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """`names`, each with its size in bytes; that of a folder says nothing.

        Raises:
            PlaceError: It cannot be listed.
        """
        with reaching(f"{self}/{folder}", "listed"):
            try:
                with os.scandir(Path(self.root, folder)) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):  # renamed meanwhile
                            yield entry.name, entry.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return

    def read(self, name: str) -> bytes:
        """All bytes of a file in it.

        Raises:
            PlaceError: It cannot be read.
        """
        return try_again(functools.partial(fetch, f"{self.root.rstrip('/')}/{name}"))

    def write(self, name: str, content: bytes, *, replace: bool = True) -> None:
        """Write a file whole or not at all.

        Args:
            name: The file, in this folder.
            content: All of it.
            replace: Where one of this name is there; else, where the store can tell, that stays.

        Raises:
            PlaceError: The store does not take it.
            OSError: The disk does not.
        """
        write_whole(Path(self.root, name), content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            PlaceError: It cannot be removed.
        """
        with reaching(f"{self}/{name}", "removed"):
            Path(self.root, name).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what writers that were killed have left."""
        remove_parts(Path(self.root))


class StorePlace(Place):
    """A folder for results in an object store; the root is its address."""

    def entries(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """See `Place`."""
        system, path = file_system(f"{self.root.rstrip('/')}/{folder}".rstrip("/"))
        with reaching(f"{self}/{folder}", "listed"):
            try:
                for entry in list_folder(system, path):
                    yield entry["name"].rstrip("/").rpartition("/")[2], int(entry["size"] or 0)
            except FileNotFoundError:
                return

    def write(self, name: str, content: bytes, *, replace: bool = True) -> None:
        """See `Place`; stores make an object appear whole."""
        url = f"{self.root.rstrip('/')}/{name}"
        system, path = file_system(url)

        def put() -> None:
            with reaching(url, "written"):
                if replace:
                    system.pipe_file(path, content)
                    return
                try:
                    system.pipe_file(path, content, mode="create")
                except FileExistsError:
                    return
                except (TypeError, NotImplementedError, OSError) as error:
                    if isinstance(error, OSError) and error.errno != errno.ENOSYS:
                        raise
                    system.pipe_file(path, content)  # a store without conditions

        try_again(put)

    def remove(self, name: str) -> None:
        """See `Place`."""
        url = f"{self.root.rstrip('/')}/{name}"
        system, path = file_system(url)
        with reaching(url, "removed"):
            try:
                system.rm_file(path)
            except FileNotFoundError:
                return

    def tidy(self) -> None:
        """See `Place`; stores keep nothing of what was not written whole."""


def open_place(word: str) -> Place:
    """The folder for results that a path or an address names; it need not be there.

    Raises:
        MissingExtraError: The package for this kind of address is not installed.
        PlaceError: There is no such kind.
    """
    root = absolute(word)
    if not is_url(root):
        return Place(root)
    file_system(root)
    return StorePlace(root)
