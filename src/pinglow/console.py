"""The console that commands print tables to."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from pinglow.terminal import escape_controls


class Console(rich.console.Console):  # noqa: TID251
    """Rich's console, with the control characters of every text and cell escaped."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console`."""
        return super().render_str(escape_controls(text), **options)
