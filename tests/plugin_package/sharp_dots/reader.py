from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_counts(path: Path, page: int, max_pixels: int) -> NDArray[np.uint16]:
    """Counts of a frame that is written as numbers with spaces between them."""
    return np.loadtxt(path, dtype=np.uint16, max_rows=max_pixels)
