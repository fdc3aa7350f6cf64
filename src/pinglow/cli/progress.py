"""The one progress bar of the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def frame_progress(what: str = "frames") -> Progress:
    """Frames done and time left on stderr; nothing where stderr is not a terminal.

    Args:
        what: Is counted, in the place of frames.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from pinglow.console import Console

    console = Console(stderr=True)
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        f"{what}, time left",
        TimeRemainingColumn(),
        "{task.description}",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
