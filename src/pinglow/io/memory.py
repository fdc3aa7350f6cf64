"""What is no file of a disk and is read as one: an encoded image in memory, an object elsewhere."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Protocol


class OpenedFile(Protocol):
    """What readers of videos ask of a file that is no `pathlib.Path`; its `str` names it."""

    def is_file(self) -> bool:
        """Whether it is there."""

    def exists(self) -> bool:
        """The same."""

    def open(self, mode: str = "rb") -> IO[bytes]:
        """To be read from its start and sought in."""


@dataclass(frozen=True)
class MemoryFile:
    """The bytes of a file, with as much of `pathlib.Path` as readers ask for.

    Attributes:
        name: What messages call it.
        content: As it would be on disk.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name

    @property
    def suffix(self) -> str:
        """The end of its name, with the dot."""
        return PurePath(self.name).suffix

    def exists(self) -> bool:
        """It does."""
        return True

    def is_file(self) -> bool:
        """It is one."""
        return True

    def is_dir(self) -> bool:
        """It is none."""
        return False

    def read_bytes(self) -> bytes:
        """All of it."""
        return self.content

    def open(self, mode: str = "rb") -> io.BytesIO:
        """To be read from its start."""
        return io.BytesIO(self.content)
