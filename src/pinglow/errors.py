"""Everything that pinglow raises on purpose.

    PinglowError
    ├── FrameError    a frame cannot be read: broken, empty, too large, of an unknown kind
    ├── DataError     a data folder, list, mask or saved prediction is missing or does not fit
    ├── RecipeError   a training recipe or study has an unknown key or a value out of range
    ├── ModelError    a model name or file is unknown, damaged or of another kind
    ├── OptionError   a command-line option or argument has an impossible value
    ├── MissingExtraError  an optional package is not installed
    └── TrainingInterruptedError (pinglow.training.run)  a signal stopped a run; all is saved

Each message is one sentence that names the file or option and says what to do next; the command
line prints it and exits with code 2.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class PinglowError(Exception):
    """Base class: catch this to catch every error that pinglow raises on purpose."""


class FrameError(PinglowError):
    """A frame cannot be read."""


class DataError(PinglowError):
    """A data folder, list, mask or saved prediction is missing or does not fit."""


class RecipeError(PinglowError):
    """A training recipe or study has an unknown key or a value out of range."""


class ModelError(PinglowError):
    """A model name or file is unknown, damaged or of another kind."""


class OptionError(PinglowError):
    """A command-line option or argument has an impossible value."""


class MissingExtraError(PinglowError):
    """An optional package is not installed."""


def printable(text: str) -> str:
    """A text for a terminal: what would steer it, or cannot be encoded, is written out."""
    kept = (char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
    return "".join(kept)


def explain_fault(error: ValidationError, kind: type[BaseModel], within: str = "") -> str:
    """One sentence about the first fault in what was to be a ``kind``.

    Args:
        error: What pydantic has found.
        kind: The model that was validated.
        within: The key under which all of it lies.
    """
    # A misspelled key is often a missing one, too: the unknown key says more.
    fault = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    location = [str(part)[:_LONGEST_KEY] for part in fault["loc"][:_MOST_PARTS]]
    where = ".".join([within, *location] if within else location)
    if fault["type"] == "extra_forbidden":
        return name_nearest(where, _keys_beside(location, kind))
    if fault["type"] == EXPLAINED:
        return fault["msg"]
    return (f"{where}: " if where else "") + fault["msg"].removeprefix("Value error, ")


_LONGEST_KEY = 80
_MOST_PARTS = 10

EXPLAINED = "explained"
"""Type of a `pydantic_core.PydanticCustomError` whose message is the whole sentence."""


def name_nearest(key: str, known: list[str]) -> str:
    """One sentence about an unknown key, with the known one that it resembles."""
    nearest = difflib.get_close_matches(key.rpartition(".")[2], known, n=1, cutoff=0.4)
    every = f"known keys: {', '.join(known) or 'none'}"
    hint = f"did you mean {nearest[0]!r}?" if nearest else every
    return f"key {key!r} is unknown; {hint}"


def _keys_beside(location: list[str], kind: type[BaseModel]) -> list[str]:
    from pydantic import BaseModel

    model = kind
    for part in location[:-1]:
        if part in model.model_fields:  # not the number of one in a list
            annotation = model.model_fields[part].annotation
            for inner in (annotation, *get_args(annotation)):  # a section, or a list of them
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    model = inner
                    break
    return list(model.model_fields)
