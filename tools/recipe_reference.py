"""Write the reference of recipe keys, as Markdown, from the recipe's classes.

python tools/recipe_reference.py > build/docs/recipes.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pinglow.models.registry import NETWORKS
from pinglow.training.recipe import Recipe

SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def main() -> None:
    print("\n".join(table("The whole run", Recipe, "")))
    for name, field in Recipe.model_fields.items():
        section = section_of(field.annotation)
        if section is not None and name != "network":
            several = get_origin(field.annotation) is tuple
            print("\n".join(sections(section, f"[[{name}]]" if several else f"[{name}]", name)))
    for config in dict.fromkeys(NETWORKS.values()):
        types = ", ".join(f"`{name}`" for name, known in NETWORKS.items() if known is config)
        print("\n".join(table(f"[network] of type {types}", config, "network.")))


def sections(section: type[BaseModel], title: str, path: str) -> Iterator[str]:
    """The table of a section, and of the sections in it."""
    yield from table(title, section, f"{path}.")
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            yield from sections(inner, f"[[{path}.{name}]]", f"{path}.{name}")


def table(title: str, section: type[BaseModel], prefix: str) -> Iterator[str]:
    """A heading, what the class says of itself, and a row a key."""
    yield f"## {title}\n"
    yield f"{(section.__doc__ or '').strip().splitlines()[0]}\n"
    yield "| key | type | default | |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        if section_of(field.annotation) is None and name not in ("type", "network"):
            cells = (
                f"`{prefix}{name}`",
                type_of(field),
                default_of(field),
                field.description or "",
            )
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds: by itself, or none, or several."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def type_of(field: FieldInfo) -> str:
    """A field's type and bounds in words."""
    bounds = [
        f"{sign} {getattr(item, kind.__name__.lower())}"
        for item in field.metadata
        for kind, sign in SIGNS.items()
        if isinstance(item, kind)
    ]
    least = [f"at least {item.min_length}" for item in field.metadata if isinstance(item, MinLen)]
    return ", ".join([words(field.annotation), *bounds, *least])


def words(kind: Any) -> str:
    """A type as a person writes it."""
    arguments = [each for each in get_args(kind) if each not in (type(None), ...)]
    if get_origin(kind) is tuple:
        return f"list of {words(arguments[0])}"
    if get_origin(kind) is dict:
        return "table"
    if arguments and all(not isinstance(each, type) for each in arguments):
        return " or ".join(
            str(each) if isinstance(each, str) else words(each) for each in arguments
        )
    if arguments:
        return words(arguments[0])
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(kind, str(getattr(kind, "__name__", kind)))


def default_of(field: FieldInfo) -> str:
    """A field's default as TOML has it; required ones say so."""
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None or field.default in ((), {}):
        return "none"
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value) if isinstance(value, tuple) else value}`"


if __name__ == "__main__":
    main()
