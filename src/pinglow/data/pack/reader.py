"""Read a pack: one file that holds data folders, smaller than they are and without loss.

A pack is a zip file. First comes a text for people, then two members for every some megabytes of a
folder's files, then ``pack.json.xz``, the manifest:

====================  =============================================================================
pinglow-pack.txt      what the file is, and the license of each folder
NAME/NUMBER.xz        what is compressed as a whole: text, masks, headers, PNGs' filters
NAME/NUMBER.blobs     what is kept as it is: frames as JPEG XL, files that are compressed already
pack.json.xz          folders, and of each file size, SHA-256 and form (`pinglow.data.pack.coding`)
====================  =============================================================================

`pinglow.data.pack.cache` reads it in the place of a folder.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import uuid
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, TypeVar

from pydantic import Field

from pinglow.data.pack.coding import InnerPath, StoredFile, decode_file
from pinglow.data.pack.png import Stored
from pinglow.errors import DataError, PinglowError
from pinglow.files import naming

FORMAT: Final = "pinglow-pack"
VERSION: Final = 1
NOTE: Final = "pinglow-pack.txt"
MANIFEST: Final = "pack.json.xz"

_START: Final = b"PK\x03\x04"
_LARGEST_MANIFEST: Final = 2**28  # bytes
_MEMORY: Final = 2**28  # bytes, for what unpacks xz

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Part(Stored):
    """Files whose bytes are in one pair of members.

    Attributes:
        files: In their order there.
        sha256: Of the two members, one after the other.
    """

    files: list[StoredFile]
    sha256: str


class PackedFolder(Stored):
    """A folder in a pack.

    Attributes:
        name: The folder's.
        license: Of its frames, or "not stated".
        parts: Its files.
        empty: Folders in it that hold nothing.
    """

    name: InnerPath = Field(pattern="^[^/]+$")
    license: str
    parts: list[Part]
    empty: tuple[InnerPath, ...] = ()

    @property
    def files(self) -> list[StoredFile]:
        """All of its files."""
        return [file for part in self.parts for file in part.files]


class Manifest(Stored):
    """What a pack says of itself."""

    format: Literal["pinglow-pack"]
    version: Literal[1]
    folders: list[PackedFolder] = Field(min_length=1)


class Pack:
    """An open pack; a context manager.

    Args:
        path: The file.

    Attributes:
        path: The file.
        folders: By name.
        digest: Of the manifest, and thereby of all that is in the pack.

    Raises:
        DataError: The file is no pack, damaged, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not os.path.lexists(path):
            raise DataError(f"{path} does not exist: check the path")
        if not path.is_file() or not is_pack(path):
            raise DataError(f"{path} is no pack: name a file that pinglow data pack has written")
        with ExitStack() as stack:
            with _name_damage(path):
                self._zip = stack.enter_context(zipfile.ZipFile(path))
                packed = self._member(MANIFEST)
                text = _inflate(packed, _LARGEST_MANIFEST)
                content = json.loads(text)
                version = content.get("version") if content.get("format") == FORMAT else None
                if isinstance(version, int) and version > VERSION:
                    raise DataError(
                        f"{path} is a pack of version {version}, this pinglow reads {VERSION}: "
                        "update pinglow"
                    )
                manifest = Manifest.model_validate_json(text)
            self._close = stack.pop_all().close
        self.digest = hashlib.sha256(packed).hexdigest()
        self.folders = {folder.name: folder for folder in manifest.folders}

    def __enter__(self) -> Pack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._close()

    def verify(self) -> None:
        """See that all bytes are those that were packed.

        Raises:
            DataError: They are not.
        """
        for folder in self.folders.values():
            for number, part in enumerate(folder.parts, start=1):
                with _name_damage(self.path):
                    self._part(folder, number, part)

    def extract(
        self,
        name: str,
        target: Path,
        exact: bool = True,
        on_file: Callable[[], object] = lambda: None,
    ) -> int:
        """Write a folder, which appears under its name when it is whole.

        Args:
            name: Of a folder in the pack.
            target: The folder to write, which must not exist.
            exact: Byte for byte; off: PNGs need equal pixels and chunks only, which is quicker.
            on_file: Called after each file.

        Returns:
            How many PNGs have equal pixels and chunks but other bytes.

        Raises:
            DataError: The pack is damaged.
        """
        folder = self.folders[name]
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")

        def write(given: tuple[StoredFile, bytes, bytes]) -> bool:
            with _name_damage(self.path):
                content, equal = decode_file(*given, exact)
            place = part / given[0].path
            place.parent.mkdir(parents=True, exist_ok=True)
            with naming(place):
                place.write_bytes(content)
            return equal

        other = 0
        try:
            part.mkdir(parents=True)
            for path in folder.empty:
                (part / path).mkdir(parents=True, exist_ok=True)
            with closing(work_through(write, self._read_files(folder))) as written:
                for equal in written:
                    other += not equal
                    on_file()
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return other

    def _read_files(self, folder: PackedFolder) -> Iterator[tuple[StoredFile, bytes, bytes]]:
        """Each file with its bytes in the two members of its part."""
        for number, part in enumerate(folder.parts, start=1):
            with _name_damage(self.path):
                packed, blobs = self._part(folder, number, part)
                solid = _inflate(packed, sum(file.solid for file in part.files))
            s = b = 0
            for file in part.files:
                yield file, solid[s : s + file.solid], blobs[b : b + file.blob]
                s, b = s + file.solid, b + file.blob

    def _part(self, folder: PackedFolder, number: int, part: Part) -> tuple[bytes, bytes]:
        """The two members of a part."""
        packed, blobs = (
            self._member(member(folder.name, number, kind)) for kind in ("xz", "blobs")
        )
        if digest_part(packed, blobs) != part.sha256:
            raise ValueError("a checksum differs")
        return packed, blobs

    def _member(self, name: str) -> bytes:
        info = self._zip.getinfo(name)
        # All are kept as they are, so none is larger than the pack.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self.path.stat().st_size:
            raise ValueError(f"{name} is larger than the pack")
        return self._zip.read(info)


def member(name: str, number: int, kind: str) -> str:
    """Name of a part's member in the zip file."""
    return f"{name}/{number}.{kind}"


def digest_part(packed: bytes, blobs: bytes) -> str:
    """SHA-256 of a part's two members."""
    return hashlib.sha256(packed + blobs).hexdigest()


def unpack_folders(pack: Pack, out: Path, on_file: Callable[[], object] = lambda: None) -> int:
    """Write the folders of a pack, byte for byte.

    Args:
        pack: The pack.
        out: The folder to write them into. One that is there already is passed over if it holds
            the pack's files.
        on_file: Called after each file that is written.

    Returns:
        How many PNGs have equal pixels and chunks but other bytes, because this build of zlib makes
        other streams than the one that packed.

    Raises:
        DataError: The pack is damaged, or a folder is there with other files.
    """
    missing = []
    for folder in pack.folders.values():
        target = out / folder.name
        if not os.path.lexists(target):
            missing.append(folder.name)
        elif not all(_is_equal(target / file.path, file) for file in folder.files):
            raise DataError(
                f"{target} is there already and differs from the pack's: name another folder"
            )
    return sum(pack.extract(name, out / name, on_file=on_file) for name in missing)


def work_through(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int | None = None
) -> Generator[_Result, None, None]:
    """What a function returns for each item, in order; it runs in threads, few items ahead.

    Args:
        function: Is called with each.
        items: Are taken as others are done.
        threads: As many as there are cores, unless given.
    """
    threads = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _is_equal(path: Path, file: StoredFile) -> bool:
    return (
        path.is_file()
        and path.stat().st_size == file.size
        and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
    )


def is_pack(path: Path) -> bool:
    """Whether a file begins as a pack does: a zip file whose first member is `NOTE`."""
    with path.open("rb") as file:
        start = file.read(30 + len(NOTE))
    return start.startswith(_START) and start.endswith(NOTE.encode())


def _inflate(packed: bytes, most: int) -> bytes:
    """Unpack xz that has no more than so many bytes."""
    inflater = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)
    content = inflater.decompress(packed, most + 1)
    if len(content) > most or not inflater.eof:
        raise ValueError("a part is larger than it may be, or cut short")
    return content


@contextmanager
def _name_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except PinglowError:
        raise
    except ImportError as error:
        raise DataError(
            f"{path} holds JPEG XL, which the installed imagecodecs lacks ({error}): "
            "pip install --upgrade imagecodecs"
        ) from error
    except Exception as error:  # zip, xz, JSON and pictures: damaged bytes raise anything at all
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"{path} is damaged or cut short ({detail}): copy or pack it again"
        ) from error
