"""Reading recipes: TOML files, bundled ones, changes to them, and what is wrong with them."""

from __future__ import annotations

import copy
import functools
import logging
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pinglow.errors import RecipeError, explain_fault
from pinglow.files import read_whole
from pinglow.training.recipe import LossSection, Recipe

_logger = logging.getLogger("pinglow")

_LARGEST: Final = 2**20  # bytes of a recipe
_MOST_PARTS: Final = 32
_PART: Final = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
# tomllib takes memory by the square of a key's parts.
_LONG_KEY: Final = re.compile(rf"(?<![\w-])(?:{_PART}\.[ \t]*+){{{_MOST_PARTS}}}")

_RENAMED: Final = {
    "loss.name": "loss.terms.0.name",
    "loss.options": "loss.terms.0.options",
    "detector": "network",
}
"""Keys of the earlier form of recipes, and of all below them."""


def load_recipe(
    name_or_path: str | Path, changes: list[str] | Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe and apply changes.

    Args:
        name_or_path: Path of a TOML file, or the name of a bundled recipe.
        changes: Items "section.key=value", the value in TOML (a bare word is a string), or a
            mapping of such keys to values. A number in a key counts in a list, from 0.

    Raises:
        RecipeError: The file cannot be read, a key is unknown, or a value is out of range.
    """
    path = _find(name_or_path)
    content = read_toml(path)
    translate_recipe(content, str(path))
    values = changes or {}
    pairs = values.items() if isinstance(values, Mapping) else map(_split_change, values)
    for key, value in pairs:
        _change(content, key, value)
    return parse_recipe(content, f"{path} with the changes given" if changes else str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        RecipeError: It cannot be read.
    """
    try:
        return _loads(read_whole(path, _LARGEST).decode("utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is no text in UTF-8: save it as UTF-8") from error
    except ValueError as error:  # of TOML, of a number
        raise RecipeError(f"{path} is not readable TOML: {error}") from error


def _loads(text: str) -> dict[str, Any]:
    """What a TOML document says; time and memory grow no faster than its length.

    Raises:
        ValueError: It is no TOML, or none that anybody would write.
    """
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {_MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python's own, of a number
        raise ValueError("a number has too many digits") from None


def parse_recipe(content: dict[str, Any], source: str) -> Recipe:
    """Validate a recipe's content; ``source`` names it in errors.

    Raises:
        RecipeError: A key is unknown or a value out of range; the first fault is named.
    """
    translate_recipe(content, source)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{source}: {explain_fault(error, Recipe)}") from error
    if recipe.steps:
        recipe = recipe.fit_to_steps()
    recipe.check(source)
    return recipe


def translate_recipe(content: dict[str, Any], source: str) -> None:
    """Bring a recipe of the earlier form into today's, in place, and say so once.

    That form has loss.name, loss.options and loss.bce_weight instead of terms, and [detector]
    instead of [network].

    Raises:
        RecipeError: It has loss.bce_per_target, which nothing does any more.
    """
    earlier = "detector" in content
    if earlier:
        content["network"] = {"type": "yolov8n-p2"} | content.pop("detector")
    loss = content.get("loss")
    if isinstance(loss, dict):
        if loss.pop("bce_per_target", False):
            raise RecipeError(f"{source}: loss.bce_per_target is no more; leave it out")
        if {"name", "options"} & loss.keys() and "terms" not in loss:
            earlier = True
            term = {"name": loss.pop("name", "scale")}
            default = {"variant": "diff"} if term["name"] == "scale" else {}
            loss["terms"] = [term | {"options": loss.pop("options", default)}]
        if "bce_weight" in loss:
            earlier = True
            weight = loss.pop("bce_weight")
            terms = loss.get("terms", copy.deepcopy(_DEFAULT_TERMS))
            others = [each for each in terms if _name(each) != "bce"]
            loss["terms"] = [*others, {"name": "bce", "weight": weight}] if weight else others
    if earlier:
        _say_earlier(source)


_DEFAULT_TERMS: Final = LossSection().model_dump(mode="json")["terms"]


def _name(term: Any) -> Any:
    return term.get("name") if isinstance(term, dict) else None


@functools.cache
def _say_earlier(source: str) -> None:
    _logger.warning(
        f"{source} is a recipe of the earlier form, read as [[loss.terms]] and [network]; "
        "docs/reference/recipes.md has today's"
    )


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with pinglow, by name."""
    package = Path(str(resources.files("pinglow")))
    # In a wheel the recipes lie inside the package, in a checkout beside src.
    folders = [package / "recipes", package.parents[1] / "recipes"]
    files = [file for folder in folders for file in folder.glob("*.toml")]
    return {file.stem: file for file in sorted(files)}


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    bundled = bundled_recipes()
    if str(name_or_path) in bundled:
        return bundled[str(name_or_path)]
    raise RecipeError(
        f"recipe {str(name_or_path)!r} is neither a file nor a bundled recipe; "
        f"bundled: {', '.join(bundled) or 'none'}"
    )


def _split_change(change: str) -> tuple[str, Any]:
    key, separator, text = change.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"--set {change[:80]!r} is not of the form key=value")
    if key.count(".") >= _MOST_PARTS:
        raise RecipeError(f"--set {key[:40]}... has more than {_MOST_PARTS} parts")
    try:
        return key.strip(), _loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), text.strip()
    except ValueError as error:
        raise RecipeError(
            f"--set {key.strip()} has a value that cannot be read: {error}"
        ) from error


def _change(content: dict[str, Any], key: str, value: Any) -> None:
    for earlier, today in _RENAMED.items():
        if key == earlier or key.startswith(f"{earlier}."):
            key = today + key.removeprefix(earlier)
    if key.startswith("loss.terms.") and isinstance(content.setdefault("loss", {}), dict):
        content["loss"].setdefault("terms", copy.deepcopy(_DEFAULT_TERMS))
    *sections, last = key.split(".")
    place: Any = content
    for section in sections:
        if isinstance(place, dict):
            place = place.setdefault(section, {})
        elif isinstance(place, list):
            place = place[_number(place, section, key)]
        if not isinstance(place, dict | list):
            raise RecipeError(f"{key} cannot be set: {section} is a value, not a section")
    # A copy: a later key may go into it.
    place[_number(place, last, key) if isinstance(place, list) else last] = copy.deepcopy(value)


def _number(items: list[Any], text: str, key: str) -> int:
    if text in map(str, range(len(items))):
        return int(text)
    raise RecipeError(f"{key} cannot be set: {text} is no number of an item below {len(items)}")
