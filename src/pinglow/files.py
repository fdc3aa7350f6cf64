"""Where pinglow keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/pinglow``, else ``~/.cache/pinglow``; None where there is no home for it.

    The folder may not exist yet.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pinglow"
    except RuntimeError:  # a user without a home folder, as in many containers
        return None
