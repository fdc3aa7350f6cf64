"""Packs on object storage: fetched once, whole and checked, into the cache folder."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from pathlib import Path
from typing import Final

from pinglow.data.pack.reader import Pack
from pinglow.errors import DataError
from pinglow.files import alone, open_whole
from pinglow.io.places import file_system, open_object, reaching

_logger = logging.getLogger("pinglow")

# One slash where a Path has taken the other; one letter is a drive of Windows.
_ADDRESS: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/{1,2}(?P<rest>[^/].*)", re.DOTALL)


def split_address(path: str | Path) -> tuple[str, tuple[str, ...]] | None:
    """The address of a pack and the path into it; None: the path is a local one.

    Raises:
        DataError: It is an address, but not of a pack.
    """
    found = _ADDRESS.fullmatch(str(path))
    if found is None or Path(path).exists():
        return None
    parts = found["rest"].rstrip("/").split("/")
    for number, part in enumerate(parts, start=1):
        if part.endswith(".pack"):
            return f"{found['scheme']}://{'/'.join(parts[:number])}", tuple(parts[number:])
    raise DataError(
        f"{found['scheme']}://{found['rest']} is no pack: name one that ends in .pack (pinglow "
        "data pack makes it), or for frames that lie there use pinglow archive run"
    )


def fetch_pack(address: str, folder: Path) -> Path:
    """The local copy of a pack; fetched unless there is one of the same address and version.

    A copy appears when it is whole and each of its checksums is right. Processes of one machine
    fetch it once.

    Args:
        address: As ``s3://bucket/frames.pack``.
        folder: Where copies lie.

    Raises:
        DataError: It does not exist, may not be read, or does not arrive as it was packed.
        MissingExtraError: The package that reads such addresses is not installed.
    """
    system, path = file_system(address)
    with reaching(address):
        size, version = system.info(path)["size"], system.checksum(path)
    key = hashlib.sha256(f"{address}\n{size}\n{version}".encode()).hexdigest()[:32]
    copy = folder / f"{key}.pack"
    with alone(folder / f"{key}.lock"):
        if not copy.exists():
            _logger.warning(f"fetching {address} into {copy} (once)")
            with open_whole(copy, durable=False) as file:
                with open_object(address) as source:
                    shutil.copyfileobj(source, file, 2**22)
                file.flush()
                _verify(Path(file.name), address)
    return copy


def _verify(copy: Path, address: str) -> None:
    try:
        with Pack(copy) as pack:
            pack.verify()
    except DataError as error:
        detail = str(error).replace(str(copy), "it")
        raise DataError(f"{address} is no whole pack: {detail}") from error
