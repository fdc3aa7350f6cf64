"""Packs in the place of data folders: each is unpacked once, into the cache folder.

``frames.pack`` stands for the only folder in it, ``frames.pack/sirst`` for one of several. A pack
on object storage, as ``s3://bucket/frames.pack``, is fetched first; see `pinglow.data.pack.remote`.
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
from pinglow.data.pack.remote import fetch_pack, split_address
from pinglow.errors import DataError
from pinglow.files import alone, cache_folder

_logger = logging.getLogger("pinglow")


def open_data(path: str | Path) -> Path:
    """The file or folder that a path means: itself, or its like in the cache if it is in a pack.

    A pack is unpacked once, into the cache folder, or where there is none into a temporary folder
    of this process. A PNG has the same pixels and chunks there, but not always the same bytes.

    Args:
        path: Any path. ``frames.pack`` means the only folder in it, ``frames.pack/sirst`` one by
            its name, ``frames.pack/sirst/train.txt`` a file of it. Or such a place on object
            storage, as ``s3://bucket/frames.pack/sirst``.

    Raises:
        DataError: The pack is damaged, or has no such folder, or several and none is named; or it
            cannot be fetched.
        MissingExtraError: The package that reads such addresses is not installed.
    """
    address = split_address(path)
    if address is not None:
        called, parts = address
        return _unpack(fetch_pack(called, _packs_folder() / "fetched"), called, parts)
    path = Path(path)
    found = _find_pack(path)
    if found is None:
        return path
    return _unpack(found, str(found), path.relative_to(found).parts)


def _unpack(found: Path, called: str, parts: tuple[str, ...]) -> Path:
    """Unpack what a path into a pack leads to, if it is not there yet."""
    with Pack(found) as pack:
        name, *inner = _choose_folder(pack, called, parts)
        folder = _packs_folder()
        target = folder / pack.digest[:32] / name
        if not target.is_dir():
            with alone(folder / f"{pack.digest[:32]}.lock"):
                _extract(pack, name, target, called)
    return target.joinpath(*inner)


def _extract(pack: Pack, name: str, target: Path, called: str) -> None:
    if target.is_dir():  # another process was quicker
        return
    _logger.warning(f"unpacking {called} into {target} (once)")
    try:
        pack.extract(name, target, exact=False)
    except OSError:
        if not target.is_dir():  # the same, where there are no locks
            raise


def _packs_folder() -> Path:
    """Where packs are unpacked: in the cache folder, or where it cannot be written elsewhere."""
    folder = (cache_folder() or _temporary_folder()) / "packs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home
        return _temporary_folder()
    return folder


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


def _choose_folder(pack: Pack, called: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    """The folder that a path leads to in a pack, and the rest of the path."""
    first, *others = pack.folders
    if parts and parts[0] in pack.folders:
        return parts
    if not others:
        return (first, *parts)
    if parts:
        problem = f"{called} has no folder {parts[0]}, but {', '.join(pack.folders)}"
    else:
        problem = f"{called} holds the folders {', '.join(pack.folders)}"
    raise DataError(f"{problem}: name one of them, as {called}/{first}")


@functools.cache
def _temporary_folder() -> Path:
    """A folder until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="pinglow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
