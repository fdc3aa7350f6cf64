"""pinglow detect: where its commands are now."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from pinglow.errors import OptionError

_NOW: Final = {
    "train": "pinglow train takes a detector's recipe, as detect",
    "predict": "pinglow predict takes a detector's weights",
    "evaluate": "pinglow evaluate takes a detector's weights, and --score boxes for other models",
}


def detect(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="What followed pinglow detect.")
    ] = None,
) -> None:
    """Say which command does now what this one did.

    Raises:
        OptionError: Always.
    """
    command = next(iter(arguments or []), "")
    told = [_NOW[command]] if command in _NOW else _NOW.values()
    raise OptionError(f"pinglow detect is no more: {'; '.join(told)}")
