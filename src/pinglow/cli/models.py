"""pinglow models: the bundled weights and their cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pinglow.inference.weights import ModelCard


def models(
    name: Annotated[
        str | None, typer.Argument(help="A bundled model or a weights file: show its whole card.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List the bundled models, or show the card of one.

    A card says what the model was trained on, under which licences, how to
    train it again, and what it scored by which protocol.

    Example: pinglow models pinglow-fast
    """
    from rich.console import Console

    from pinglow.inference.weights import bundled_models, read_card

    if name is not None:
        card = read_card(name)
        if json:
            typer.echo(card.model_dump_json(indent=2))
        else:
            _print_card(Console(), card)
        return
    cards = [read_card(bundled) for bundled in bundled_models()]
    if json:
        from json import dumps

        typer.echo(dumps([card.model_dump(mode="json") for card in cards], indent=2))
    else:
        _print_list(Console(), cards)


def _print_list(console: Any, cards: list[ModelCard]) -> None:
    from rich.table import Table

    table = Table("model", "parameters", "threshold", "trained on", "licence")
    for card in cards:
        table.add_row(
            card.name,
            f"{card.parameters:,}",
            f"{card.threshold:g}",
            ", ".join(str(entry["name"]) for entry in card.data),
            card.licence,
        )
    console.print(table)
    console.print("pinglow models NAME shows the whole card.", highlight=False)


def _print_card(console: Any, card: ModelCard) -> None:
    """Print single values line by line and lists of records as tables."""
    from rich.markup import escape
    from rich.table import Table

    lines = Table.grid(padding=(0, 2))
    tables = []
    for key, value in card.model_dump(mode="json").items():
        if isinstance(value, list) and value:
            columns = list(dict.fromkeys(column for row in value for column in row))
            table = Table(*columns, title=key, title_justify="left")
            for row in value:
                table.add_row(*(escape(_text(row.get(column))) for column in columns))
            tables.append(table)
        elif isinstance(value, dict):
            pairs = ", ".join(f"{inner} {_text(entry)}" for inner, entry in value.items())
            lines.add_row(key, escape(pairs))
        else:
            lines.add_row(key, escape(_text(value)))
    console.print(lines, *tables)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
