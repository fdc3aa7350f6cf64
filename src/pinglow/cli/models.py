"""pinglow models: the bundled weights and their cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pinglow.cli.output_file import STANDARD_OUTPUT, write_json
from pinglow.terminal import escape_controls

if TYPE_CHECKING:
    from pinglow.models.card import ModelCard


def models(
    name: Annotated[
        str | None, typer.Argument(help="A bundled model or a weights file: show its card.")
    ] = None,
    recipe: Annotated[
        bool, typer.Option("--recipe", help="Print the whole recipe below the card.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List the bundled models, or show the card of one.

    A card says what the model was trained on, under which licenses, how to
    train it again, and what it scored by which protocol.

    Example: pinglow models pinglow-fast
    """
    from rich.markdown import Markdown

    from pinglow.backends.opening import open_model
    from pinglow.console import Console
    from pinglow.models.card import EXPORTED, bundled_models, find_model, read_card
    from pinglow.models.card_page import card_page

    if name is not None:
        exported = find_model(name).suffix.lower() in EXPORTED
        card = open_model(name, device="cpu")[1] if exported else read_card(name)
        if json:
            write_json(STANDARD_OUTPUT, card.model_dump(mode="json"))
        else:
            lines = map(escape_controls, card_page(card, recipe=recipe).split("\n"))
            Console().print(Markdown("\n".join(lines)))
        return
    cards = [read_card(bundled) for bundled in bundled_models()]
    if json:
        write_json(STANDARD_OUTPUT, [card.model_dump(mode="json") for card in cards])
    else:
        _print_list(Console(), cards)


def _print_list(console: Any, cards: list[ModelCard]) -> None:
    from rich.table import Table

    table = Table("model", "parameters", "smallest score", "trained on", "license")
    for card in cards:
        table.add_row(
            card.name,
            f"{card.parameters:,}",
            f"{card.choose_score():.4g}",
            ", ".join(str(entry["name"]) for entry in card.data),
            card.license,
        )
    console.print(table)
    console.print("pinglow models NAME shows the whole card.", highlight=False)
