"""Optional packages: loaded where they are needed, with one sentence where they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from pinglow.errors import MissingExtraError


def import_extra(package: str, extra: str, purpose: str) -> Any:
    """Import an optional package.

    Args:
        package: Its import name.
        extra: The extra of pinglow that brings it.
        purpose: What needs it, as the start of a sentence.

    Raises:
        MissingExtraError: It is not installed, or does not load.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {package}, which cannot be loaded ({error}): "
            f"pip install 'pinglow[{extra}]'"
        ) from error


def is_installed(package: str) -> bool:
    """Whether a package is there, without importing it."""
    return importlib.util.find_spec(package) is not None
