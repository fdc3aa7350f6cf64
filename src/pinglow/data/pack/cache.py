"""Packs in the place of data folders: each is unpacked once, into the cache folder.

``frames.pack`` stands for the only folder in it, ``frames.pack/sirst`` for one of several.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import shutil
import tempfile
from pathlib import Path

from pinglow.data.pack.reader import Pack, is_pack
from pinglow.errors import DataError
from pinglow.files import cache_folder

_logger = logging.getLogger("pinglow")


def open_data(path: str | Path) -> Path:
    """The file or folder that a path means: itself, or its like in the cache if it is in a pack.

    A pack is unpacked once, into the cache folder, or where there is none into a temporary folder
    of this process. A PNG has the same pixels and chunks there, but not always the same bytes.

    Args:
        path: Any path. ``frames.pack`` means the only folder in it, ``frames.pack/sirst`` one by
            its name, ``frames.pack/sirst/train.txt`` a file of it.

    Raises:
        DataError: The pack is damaged, or has no such folder, or several and none is named.
    """
    path = Path(path)
    found = _find_pack(path)
    if found is None:
        return path
    with Pack(found) as pack:
        name, *inner = _choose_folder(pack, path.relative_to(found).parts)
        home = cache_folder() or _temporary_folder()
        target = home / "packs" / pack.digest[:32] / name
        if not target.is_dir():
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except OSError:  # a read-only home
                target = _temporary_folder() / pack.digest[:32] / name
        if not target.is_dir():
            _logger.warning(f"unpacking {found} into {target} (once)")
            try:
                pack.extract(name, target, exact=False)
            except OSError:
                if not target.is_dir():  # else another process was quicker
                    raise
    return target.joinpath(*inner)


def open_images(source: str) -> str | Path:
    """What a source of frames means: of a folder in a pack its images/, else see `open_data`."""
    opened = open_data(source)
    if opened == Path(source):
        return source
    images = opened / "images"
    return images if images.is_dir() else opened


def _find_pack(path: Path) -> Path | None:
    """The pack that a path is or leads into."""
    for place in (path, *path.parents):
        if os.path.isdir(place):
            return None
        if os.path.isfile(place):
            return place if is_pack(place) else None
    return None


def _choose_folder(pack: Pack, parts: tuple[str, ...]) -> tuple[str, ...]:
    """The folder that a path leads to in a pack, and the rest of the path."""
    first, *others = pack.folders
    if parts and parts[0] in pack.folders:
        return parts
    if not others:
        return (first, *parts)
    if parts:
        problem = f"{pack.path} has no folder {parts[0]}, but {', '.join(pack.folders)}"
    else:
        problem = f"{pack.path} holds the folders {', '.join(pack.folders)}"
    raise DataError(f"{problem}: name one of them, as {pack.path / first}")


@functools.cache
def _temporary_folder() -> Path:
    """A folder until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="pinglow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
