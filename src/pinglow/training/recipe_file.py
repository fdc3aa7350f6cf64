"""Reading recipes: TOML files, bundled ones, changes to them, and what is wrong with them."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from pinglow.errors import RecipeError
from pinglow.training.recipe import Recipe, RunRecipe, name_nearest

_COMMANDS: Final = {"detector": "pinglow detect train", "network": "pinglow train"}
"""What trains by recipes that have a section."""

AnyRecipe = TypeVar("AnyRecipe", bound=RunRecipe)


def load_recipe(
    name_or_path: str | Path, changes: list[str] | Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe of a segmentation network; see `load_run_recipe`."""
    return load_run_recipe(Recipe, name_or_path, changes)


def load_run_recipe(
    kind: type[AnyRecipe],
    name_or_path: str | Path,
    changes: list[str] | Mapping[str, Any] | None = None,
) -> AnyRecipe:
    """Read a recipe of a kind and apply changes.

    Args:
        kind: What it is a recipe for.
        name_or_path: Path of a TOML file, or the name of a bundled recipe.
        changes: Items "section.key=value", the value in TOML (a bare word is a string), or a
            mapping of such keys to values.

    Raises:
        RecipeError: The file cannot be read, a key is unknown, or a value is out of range.
    """
    path = _find(name_or_path, kind)
    content = read_toml(path)
    values = changes or {}
    pairs = values.items() if isinstance(values, Mapping) else map(_split_change, values)
    for key, value in pairs:
        _change(content, key, value)
    return parse_recipe(kind, content, f"{path} with the changes given" if changes else str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        RecipeError: It cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not readable TOML: {error}") from error


def parse_recipe(kind: type[AnyRecipe], content: dict[str, Any], source: str) -> AnyRecipe:
    """Validate a recipe's content; ``source`` names it in errors.

    Raises:
        RecipeError: A key is unknown or a value out of range; the first fault is named.
    """
    try:
        recipe = kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(explain_fault(error, source, kind)) from error
    if recipe.steps:
        recipe = recipe.fit_to_steps()
    recipe.check(source)
    return recipe


def bundled_recipes(kind: type[RunRecipe]) -> dict[str, Path]:
    """Recipes of a kind that come with pinglow, by name."""
    package = Path(str(resources.files("pinglow")))
    # In a wheel the recipes lie inside the package, in a checkout beside src.
    folders = [package / "recipes", package.parents[1] / "recipes"]
    files = [file for folder in folders for file in (folder / kind.bundled_in).glob("*.toml")]
    return {file.stem: file for file in sorted(files)}


def _find(name_or_path: str | Path, kind: type[RunRecipe]) -> Path:
    path = Path(name_or_path)
    if path.is_file():
        return path
    bundled = bundled_recipes(kind)
    if str(name_or_path) in bundled:
        return bundled[str(name_or_path)]
    raise RecipeError(
        f"recipe {str(name_or_path)!r} is neither a file nor a bundled recipe; "
        f"bundled: {', '.join(bundled) or 'none'}"
    )


def _split_change(change: str) -> tuple[str, Any]:
    key, separator, text = change.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"--set {change!r} is not of the form key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), text.strip()


def _change(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{key} cannot be set: {section} is a value, not a section")
        content = inner
    content[last] = copy.deepcopy(value)  # a later key may go into it


def explain_fault(error: ValidationError, source: str, kind: type[BaseModel]) -> str:
    """One sentence about the first fault in a TOML file of a kind; ``source`` names it."""
    # A misspelled key is often a missing one, too: the unknown key says more.
    fault = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    location = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        key = ".".join(location)
        if key in _COMMANDS and issubclass(kind, RunRecipe):
            return f"{source} is a recipe of another kind; use {_COMMANDS[key]}"
        return name_nearest(source, key, _keys_beside(location, kind))
    where = f"{'.'.join(location)}: " if location else ""
    return f"{source}: {where}{fault['msg'].removeprefix('Value error, ')}"


def _keys_beside(location: list[str], kind: type[BaseModel]) -> list[str]:
    model = kind
    for part in location[:-1]:
        if part in model.model_fields:  # not the number of one in a list
            annotation = model.model_fields[part].annotation
            for inner in (annotation, *get_args(annotation)):  # a section, or a list of them
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    model = inner
                    break
    return list(model.model_fields)
