"""Files for results that an option names: said to be impossible before the work, not after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pinglow.errors import OptionError
from pinglow.files import explain, write_whole


def check_output_file(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written.

    Raises:
        OptionError: It is a folder, or its folder does not exist.
    """
    if path is None:
        return
    if path.is_dir():
        raise OptionError(f"{option} {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise OptionError(f"{option} {path} is in a folder that does not exist: make it first")


def write_json(path: Path | None, content: Any) -> None:
    """Write what ``--json`` asks for, if it was given.

    Raises:
        OptionError: The file cannot be written.
    """
    from json import dumps

    if path is None:
        return
    text = dumps(content, indent=2, allow_nan=False)
    try:
        write_whole(path, f"{text}\n".encode())
    except OSError as error:
        raise OptionError(f"--json: {explain(error)}") from error
