"""What is tracked stays small."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WEIGHTS = "src/pinglow/weights/"


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    """Return the bytes of each tracked file."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout: what is tracked is asked of git")
    listing = ["git", "ls-files", "-z"]
    output = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {name: ROOT / name for name in output.split("\0") if name}
    return {name: path.stat().st_size for name, path in files.items() if path.is_file()}


def test_no_tracked_file_but_weights_is_over_a_megabyte(sizes: dict[str, int]) -> None:
    assert len(sizes) > 100
    large = [name for name, size in sizes.items() if size > 2**20 and not name.startswith(WEIGHTS)]
    assert large == []


def test_the_tree_is_small(sizes: dict[str, int]) -> None:
    assert sum(sizes.values()) < 20e6
