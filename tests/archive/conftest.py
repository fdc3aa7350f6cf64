from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from finders import save_still

fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install '.[archive]'")
pytest.importorskip("pyarrow", reason="needs pyarrow: pip install '.[archive]'")


@pytest.fixture
def footage(tmp_path: Path, save_clip: Callable[..., Path]) -> Path:
    """Return a folder of two stills, one without a target, a stack, a clip and a tar of stills."""
    folder = tmp_path / "footage"
    save_still(folder / "cam1" / "a.png", 1)
    Image.fromarray(np.full((20, 30), 50, np.uint8)).save(folder / "cam1" / "b.png")
    pages = np.full((3, 16, 24), 50, np.uint16)
    pages[2, 4:6, 5:9] = 900
    tifffile.imwrite(folder / "stack.tif", pages, photometric="minisblack")
    save_clip(folder / "clip.mkv", count=5)
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for number in (3, 4):
            still = save_still(tmp_path / f"s{number}.png", number)
            tar.add(still, f"night/{number}.png")
            still.unlink()
        (tmp_path / "s3.json").write_text("{}")
        tar.add(tmp_path / "s3.json", "night/3.json")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    return folder


class FlakyFileSystem(fsspec.get_filesystem_class("memory")):  # type: ignore[misc]
    """Objects in memory; ``faults`` maps the end of a name to what reading it raises."""

    protocol = "flaky"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    faults: dict[str, list[Exception]] = {}  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def cat_file(self, path: str, *rest: Any, **named: Any) -> Any:
        for end, errors in self.faults.items():
            if path.endswith(end) and errors:
                raise errors.pop(0)
        return super().cat_file(path, *rest, **named)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FlakyFileSystem]]:
    """Return a store at flaky://, empty, whose reading can be made to fail."""
    from pinglow.io import places

    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    monkeypatch.setattr(places, "_PAUSE", 0.0)
    FlakyFileSystem.store.clear()
    FlakyFileSystem.faults = {}
    yield FlakyFileSystem
    places._open_system.cache_clear()
