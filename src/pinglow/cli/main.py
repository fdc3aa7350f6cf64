"""The pinglow command: one module a sub-command, loaded without torch."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os.path import expanduser
from typing import Annotated, Any, Final, TextIO

import typer
from typer.core import TyperGroup

from pinglow._version import __version__
from pinglow.cli import archive, data
from pinglow.cli.bench import bench
from pinglow.cli.calibrate import calibrate
from pinglow.cli.compare import compare
from pinglow.cli.detect import detect
from pinglow.cli.evaluate import evaluate
from pinglow.cli.export import export
from pinglow.cli.models import models
from pinglow.cli.output_file import echo
from pinglow.cli.predict import predict
from pinglow.cli.serve import serve
from pinglow.cli.study import study
from pinglow.cli.train import train
from pinglow.errors import PinglowError
from pinglow.files import NO_ROOM, explain
from pinglow.terminal import SafeFormatter

_HOME: Final = re.compile(r"(^|[=,])(~[^/\\=,]*)(?=[/\\]|$)")


@contextmanager
def _one_line() -> Iterator[None]:
    """Exit with one line and 2 for what the user can mend, with 130 for Ctrl-C.

    Where nobody reads standard output any more, as after ``| head``, with 0 and no word.
    """
    try:
        yield
        sys.stdout.flush()
    except PinglowError as error:
        echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        unread = isinstance(error, BrokenPipeError) and _is_unread(sys.stdout)
        if unread or (error.errno == errno.EPIPE and error.filename == "standard output"):
            raise typer.Exit(0) from error
        if error.filename is None and error.errno not in NO_ROOM:  # a closed pipe, for one
            raise
        echo(f"error: {explain(error)}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        echo("stopped by Ctrl-C", err=True)
        raise typer.Exit(130) from None


def _is_unread(stream: TextIO) -> bool:
    """Whether nobody reads it any more; then what is still to be written to it is dropped."""
    try:
        stream.flush()
    except BrokenPipeError:
        with suppress(OSError):  # one that is no file of the system
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


class _Group(TyperGroup):
    """Turns what pinglow raises on purpose into one line and an exit code."""

    def make_context(self, info_name: Any, args: list[str], *rest: Any, **extra: Any) -> Any:
        """See ``~`` as the home folder wherever a path begins: a shell does so at words only."""
        args = [_HOME.sub(lambda word: word[1] + expanduser(word[2]), arg) for arg in args]
        with _one_line():  # it prints the help and the version
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run a sub-command."""
        with _one_line():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(predict)
app.command()(train)
app.command()(evaluate)
app.command()(calibrate)
app.command()(compare)
app.add_typer(data.app, name="data")
app.add_typer(archive.app, name="archive")
app.command()(models)
app.command()(export)
app.command()(bench)
app.command()(serve)
app.command()(study)
app.command(
    hidden=True,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)(detect)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"pinglow {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def pinglow(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Find tiny, dim targets in infrared frames.

    Start with: pinglow predict my-frames/ and look into pinglow-out/overlays.
    """
    if not sys.warnoptions:  # of the libraries; our own are logged
        warnings.simplefilter("ignore")
    # tifffile logs what is wrong with a damaged file; our own message already says it.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    if logging.lastResort is not None:  # what shows warnings where nobody has asked for more
        logging.lastResort.setFormatter(SafeFormatter())
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(name: str | None = None) -> None:
    """Run the command line, under a name where it is not that of the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of any encoding: what it has not is escaped
            stream.reconfigure(errors="backslashreplace")
    app(prog_name=name)
