"""What the wheel holds is enough, anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="needs hatchling: pip install hatchling")

ROOT = Path(__file__).parents[1]
CODE = """
from pinglow.models.card import bundled_models
from pinglow.training.recipe_file import bundled_recipes, load_recipe

for name in bundled_recipes():
    init = load_recipe(name).init
    assert init is None or init in bundled_models(), (name, init)
    print(name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = out.glob("*.whl")
    return file


def test_it_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 30e6


def test_every_recipe_loads_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """And starts from nothing, or from weights that the wheel has."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(
        path.stem for path in (ROOT / "recipes").glob("*.toml")
    )


def test_it_holds_the_page_of_results(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "pinglow/output/page.html" in archive.namelist()
