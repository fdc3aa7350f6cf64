"""The console that commands print tables to."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from pinglow.terminal import escape_controls


class Console(rich.console.Console):  # noqa: TID251
    """Rich's console, with what it cannot show, or would act on, escaped in every cell."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console`."""
        text = escape_controls(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return super().render_str(text, **options)
