"""The pinglow command: one module a sub-command, loaded without torch."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pinglow._version import __version__
from pinglow.cli import data
from pinglow.cli.bench import bench
from pinglow.cli.detect import detect
from pinglow.cli.evaluate import evaluate
from pinglow.cli.export import export
from pinglow.cli.models import models
from pinglow.cli.predict import predict
from pinglow.cli.study import study
from pinglow.cli.train import train
from pinglow.errors import PinglowError, printable
from pinglow.files import NO_ROOM, explain

_HOME = re.compile(r"((?:--)?[\w.-]+=)?(~.*)", re.DOTALL)
"""An argument that begins with a home folder, or gives one to an option or a key."""


class _Group(TyperGroup):
    """Turns what pinglow raises on purpose into one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read ~ as a shell does, also where the shell leaves it: in quotes and after =."""
        return super().parse_args(ctx, [_expand_home(each) for each in args])

    def invoke(self, ctx: Any) -> Any:
        """Run a sub-command: exit with 2 for what the user can mend, with 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except PinglowError as error:
            typer.echo(printable(f"error: {error}"), err=True)
            raise typer.Exit(2) from error
        except OSError as error:
            if error.filename is None and error.errno not in NO_ROOM:  # a closed pipe, for one
                raise
            reason = explain(error)
            typer.echo(printable(f"error: {reason}"), err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.echo("stopped by Ctrl-C", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(predict)
app.command()(train)
app.command()(evaluate)
app.add_typer(data.app, name="data")
app.command()(models)
app.command()(export)
app.command()(bench)
app.command()(study)
app.command(
    hidden=True,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)(detect)


def _expand_home(argument: str) -> str:
    found = _HOME.fullmatch(argument)
    return f"{found[1] or ''}{os.path.expanduser(found[2])}" if found else argument


class _Printable(logging.Formatter):
    """Messages as they are, but for names that would steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pinglow {__version__}")
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
    if logging.lastResort is not None:  # what shows warnings where nobody has asked for more
        logging.lastResort.setFormatter(_Printable())
    if not sys.warnoptions:  # of the libraries; our own are logged
        warnings.simplefilter("ignore")
    # tifffile logs what is wrong with a damaged file; our own message already says it.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    app()
