"""Files that appear whole or not at all, and the folder for what pinglow can make again."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file, and the folders it lies in: beside the target, then renamed.

    The old file stays until the new one is whole. The temporary file lies in the target's folder,
    because a rename across file systems is a copy that can be torn.

    Args:
        path: The file.
        content: All of it.
        durable: Wait until the disk has it, so that it outlives a power cut.

    Raises:
        OSError: It cannot be written; its ``filename`` is always set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # a full disk, or Ctrl-C
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/pinglow``, else ``~/.cache/pinglow``; None where there is no home for it.

    The folder may not exist yet.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pinglow"
    except RuntimeError:  # a user without a home folder, as in many containers
        return None
