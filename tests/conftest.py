"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real frames beside the checkout; skip where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("needs the real frames in ../shared/data, which are not part of the project")
    return _SHARED_DATA
