"""An encoded image in memory, which is read as a file is."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePath


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
