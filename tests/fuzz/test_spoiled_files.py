"""A part of what `make fuzz` does for an hour, always the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.jobs import KINDS, make_batch
from fuzz.spoiling import spoil

NEEDS = {"camera": "astropy", "hdf5": "h5py"}
IN_TORCH = ("recipe", "study", "weights", "run")


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.share])
def test_spoiled_files_break_no_promise(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("torch" if kind in IN_TORCH else NEEDS.get(kind, "pinglow"))
    for number in range(KINDS[kind].share):
        folder = tmp_path / str(number)
        folder.mkdir()
        KINDS[kind].run(folder, make_batch(kind, number))


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_pass(kind: str, tmp_path: Path) -> None:
    """What the promises are held against is right."""
    pytest.importorskip("torch" if kind in IN_TORCH else NEEDS.get(kind, "pinglow"))
    whole = list(KINDS[kind].samples().items())
    batches = [whole] if KINDS[kind].together > 1 else [[each] for each in whole]
    for number, batch in enumerate(batches):
        folder = tmp_path / str(number)
        folder.mkdir()
        KINDS[kind].run(folder, batch)


@pytest.mark.parametrize("content", [b"", b"a", b"name = 1\n" * 40, bytes(range(256))])
def test_a_seed_always_spoils_alike_and_others_otherwise(content: bytes) -> None:
    variants = [spoil(content, f"x-{number}") for number in range(50)]
    assert variants == [spoil(content, f"x-{number}") for number in range(50)]
    assert len(set(variants)) > 10
