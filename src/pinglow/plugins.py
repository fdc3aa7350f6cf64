"""What other packages add: networks, losses, readers, backends; by entry points or by name.

A package offers something under a name in its pyproject.toml:

    [project.entry-points."pinglow.models"]
    tiny = "my_package.config:TinyConfig"

Without a package of its own, ``module:Name`` stands for what a module that can be imported has.
"""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_type_hints

from pinglow.errors import MissingExtraError


def plugin_names(group: str) -> list[str]:
    """The names that installed packages add to a group, as ``pinglow.models``."""
    return sorted(entry_points(group=group).names)


def find_plugin(group: str, name: str) -> Any:
    """What a package adds to a group under a name, or what ``module:Name`` stands for.

    Returns:
        The object; None: nobody knows the name.

    Raises:
        MissingExtraError: It cannot be imported.
    """
    entry = next(iter(entry_points(group=group, name=name)), None)
    return load_object(name if entry is None else entry.value) if entry or ":" in name else None


def load_object(place: str) -> Any:
    """Import what ``module:Name`` stands for.

    Raises:
        MissingExtraError: It cannot be imported.
    """
    try:
        return EntryPoint(place, place, "").load()
    except (ImportError, AttributeError, ValueError) as error:
        raise MissingExtraError(
            f"{place} cannot be imported ({error}): install its package, or name a module on "
            "PYTHONPATH as module:Class"
        ) from error


def constructor_fields(kind: type) -> dict[str, Any]:
    """The arguments of a class as the fields of a pydantic model: (annotation, default) by name.

    Without a constructor of its own a torch module takes nothing.
    """
    constructor = inspect.getattr_static(kind, "__init__")
    try:
        hints = get_type_hints(constructor)
    except (NameError, TypeError):  # an annotation for type checkers only
        hints = {}
    return {
        name: (
            hints.get(name, Any),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for name, parameter in list(inspect.signature(constructor).parameters.items())[1:]
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
