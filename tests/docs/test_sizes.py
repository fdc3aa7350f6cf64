"""What is tracked stays small."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEIGHTS = "src/pinglow/weights/"


def test_no_tracked_file_but_weights_is_over_a_megabyte() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout: what is tracked is asked of git")
    listing = ["git", "ls-files", "-z"]
    output = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [name for name in output.split("\0") if name and not name.startswith(WEIGHTS)]
    assert len(files) > 100
    large = [
        name for name in files if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 2**20
    ]
    assert large == []
