"""Where results go: files that an option names, and the terminal.

A file that cannot be written is said to be so before the work, not after it.
"""

from __future__ import annotations

from errno import ELOOP
from pathlib import Path
from typing import Any, Final

import typer

from pinglow.errors import OptionError
from pinglow.files import explain, naming, write_whole
from pinglow.terminal import escape_controls

STANDARD_OUTPUT: Final = Path("-")


def is_standard_output(path: Path | None) -> bool:
    """Whether results go to standard output, so that all else must go to stderr."""
    return path in (STANDARD_OUTPUT, Path("/dev/stdout"))


def is_loop(path: Path) -> bool:
    """Whether it is a link that leads back to itself, or lies behind one."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == ELOOP
    return False


def check_output_file(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written.

    Raises:
        OptionError: It is a folder, a named pipe or a link to itself, its folder does not exist,
            or it is standard output, which is for --json.
    """
    if path is None:
        return
    if is_standard_output(path):
        if option != "--json":
            raise OptionError(f"{option} {path} is standard output: name a file")
        return
    if path.is_dir():
        raise OptionError(f"{option} {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise OptionError(f"{option} {path} is in a folder that does not exist: make it first")
    if is_loop(path):
        raise OptionError(f"{option} {path} is a link that leads to itself: name another file")
    if path.resolve().is_fifo():  # a shell's >(jq), which has its reader, has no such name
        instead = "name a file, or - for standard output" if option == "--json" else "name a file"
        raise OptionError(f"{option} {path} is a pipe, which may never be read: {instead}")


def check_output_folder(option: str, path: Path) -> None:
    """Refuse what cannot be a folder for results.

    Raises:
        OptionError: It is a file, or standard output.
    """
    if is_standard_output(path):
        raise OptionError(f"{option} {path} is standard output: name a folder")
    if is_loop(path):
        raise OptionError(f"{option} {path} is a link that leads to itself: name another folder")
    if path.exists() and not path.is_dir():
        raise OptionError(f"{option} {path} is a file: name a folder")


def write_json(path: Path | None, content: Any) -> None:
    """Write what ``--json`` asks for, if it was given; ``-`` is standard output.

    An earlier file stays until the new one is whole.

    Raises:
        OptionError: The file cannot be written.
    """
    from json import dumps

    if path is None:
        return
    text = dumps(content, indent=2, allow_nan=False)
    if is_standard_output(path):
        print(text)
        return
    try:
        if path.exists() and not path.is_file():  # a pipe or a device
            with naming(path):
                path.write_text(text + "\n", encoding="utf-8")
        else:
            write_whole(path.resolve(), text.encode() + b"\n")  # a link stays one
    except OSError as error:
        raise OptionError(f"--json: {explain(error)}") from error


def echo(text: str, err: bool = False) -> None:
    """Print one line, with control characters escaped."""
    typer.echo(escape_controls(text), err=err)  # noqa: TID251
