"""What is said to a user: once, and without what a terminal would act on."""

from __future__ import annotations

import logging
import unicodedata

_logger = logging.getLogger("pinglow")
_said: set[str] = set()


def warn_once(about: str, message: str) -> None:
    """Warn about the first thing of a kind that a process meets."""
    if about not in _said:
        _said.add(about)
        _logger.warning(f"{message} (said once)")


def escape_controls(text: str) -> str:
    r"""Text on one line that moves no cursor, as ``\x1b`` for the character of that number.

    Escaped are control characters, the end of a line among them, marks that turn the direction of
    writing, and bytes of a name that are not UTF-8.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":  # a wide space
        return character
    return character.encode("unicode_escape").decode("ascii")


class SafeFormatter(logging.Formatter):
    """Writes a message on one line; see `escape_controls`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return escape_controls(super().format(record))
