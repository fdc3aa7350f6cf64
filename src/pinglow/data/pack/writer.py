"""Write a pack: see `pinglow.data.pack.reader` for what it is."""

from __future__ import annotations

import lzma
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pinglow.data.folder import name_folders
from pinglow.data.known import KNOWN_DATASETS
from pinglow.data.pack.coding import Encoded, StoredFile, encode_file
from pinglow.data.pack.reader import (
    FORMAT,
    MANIFEST,
    NOTE,
    VERSION,
    Manifest,
    PackedFolder,
    Part,
    digest_part,
    member,
    work_through,
)
from pinglow.errors import DataError, OptionError
from pinglow.files import naming
from pinglow.io.readers import FRAME_SUFFIXES

_PART: Final = 2**24  # bytes; a part ends where one of its members has as many


@dataclass(frozen=True)
class PackSummary:
    """What was packed.

    Attributes:
        folders: Name of each folder to its license.
        frames: Frames in their images/.
        before: Bytes of all files.
        after: Bytes of the pack.
        kept: PNGs that are in it as they were.
    """

    folders: dict[str, str]
    frames: int
    before: int
    after: int
    kept: int


def list_files(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its inner path; a folder without any by its path and /.

    Links are followed. Hidden files, hidden folders and ``__pycache__`` are left out.

    Raises:
        DataError: There is no such folder or nothing in it; or there is a link to nothing or to a
            folder that it is in, a pipe, a device, or a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name one that holds images/, masks/ and lists")
    _check_name(Path(os.path.abspath(folder)))
    found = dict(_walk(folder, "", frozenset()))
    if not found:
        raise DataError(f"{folder} is empty: there is nothing to pack")
    return found


def write_pack(
    folders: Sequence[Path],
    out: Path,
    *,
    license: str | None = None,
    overwrite: bool = False,
    on_file: Callable[[], object] = lambda: None,
) -> PackSummary:
    """Pack data folders into one file, which appears when it is whole.

    Args:
        folders: What to pack.
        out: The file to write.
        license: Of all of them; None: what `KNOWN_DATASETS` says of a folder's name.
        overwrite: Replace a file that is there.
        on_file: Called after each file.

    Raises:
        DataError: As `list_files`; or a file cannot be read.
        OptionError: ``out`` is there already, or in one of the folders.
    """
    if out.exists() and not overwrite:
        raise OptionError(f"{out} is there already: name another file or use --overwrite")
    for folder in folders:
        if out.resolve().is_relative_to(folder.resolve()):
            raise OptionError(f"{out} would lie in {folder}, which it is to hold: name another")
    names = name_folders(os.path.abspath(folder) for folder in folders)
    listed = {name: list_files(folder) for name, folder in zip(names, folders, strict=True)}
    licenses = {name: license or _known_license(name) for name in names}
    stored: list[StoredFile] = []
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with naming(out), temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                _add(archive, NOTE, _note(licenses).encode())
                packed = []
                for name, files in listed.items():
                    parts = list(_write_parts(archive, name, files, on_file))
                    empty = tuple(path.rstrip("/") for path in files if path.endswith("/"))
                    packed.append(
                        PackedFolder(name=name, license=licenses[name], parts=parts, empty=empty)
                    )
                    stored += packed[-1].files
                manifest = Manifest(format=FORMAT, version=VERSION, folders=packed)
                text = manifest.model_dump_json(exclude_defaults=True)
                _add(archive, MANIFEST, lzma.compress(text.encode()))
            file.flush()
            os.fsync(file.fileno())
        after = temporary.stat().st_size
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return PackSummary(
        folders=licenses,
        frames=sum(_is_frame(file.path) for file in stored),
        before=sum(file.size for file in stored),
        after=after,
        kept=sum(file.path.lower().endswith(".png") and not file.pixels for file in stored),
    )


def _walk(folder: Path, inside: str, above: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """See `list_files`; ``above`` are the folders that lead here."""
    place = os.path.realpath(folder)
    if place in above:
        raise DataError(f"{folder} leads back to a folder that it is in: take that link out")
    for path in sorted(folder.iterdir()):
        name = path.name
        if name.startswith(".") or name == "__pycache__":
            continue
        _check_name(path)
        if path.is_dir():
            found = list(_walk(path, f"{inside}{name}/", above | {place}))
            yield from found or [(f"{inside}{name}/", path)]
        elif path.is_file():
            yield f"{inside}{name}", path
        else:
            raise DataError(
                f"{path} is a link to nothing, a pipe or a device: take it out of the folder"
            )


def _check_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{path!a} has a name that is not UTF-8: rename it") from None


def _write_parts(
    archive: zipfile.ZipFile, name: str, files: dict[str, Path], on_file: Callable[[], object]
) -> Iterator[Part]:
    """Write a folder's files; what is in each pair of members."""
    part: list[Encoded] = []
    number = solid = blobs = 0

    def end() -> Part:
        packed = lzma.compress(b"".join(each.solid for each in part))
        joined = b"".join(each.blob for each in part)
        _add(archive, member(name, number, "xz"), packed)
        _add(archive, member(name, number, "blobs"), joined)
        return Part(files=[each.file for each in part], sha256=digest_part(packed, joined))

    items = [(inner, path) for inner, path in files.items() if not inner.endswith("/")]
    with closing(work_through(_encode, items)) as encoded:
        for each in encoded:
            part.append(each)
            solid, blobs = solid + len(each.solid), blobs + len(each.blob)
            on_file()
            if max(solid, blobs) >= _PART:
                number += 1
                yield end()
                part, solid, blobs = [], 0, 0
    if part:
        number += 1
        yield end()


def _encode(item: tuple[str, Path]) -> Encoded:
    inner, path = item
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check it") from error
    return encode_file(inner, content)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name), content)  # of no date: same files, same bytes


def _note(licenses: dict[str, str]) -> str:
    folders = "".join(f"{name}: license: {license}\n" for name, license in licenses.items())
    return (
        "Data folders, packed by pinglow (a Python package). To have them as they were:\n"
        f"    pinglow data unpack FILE --out DIR\n\n{folders}"
    )


def _known_license(name: str) -> str:
    known = KNOWN_DATASETS.get(name)
    return known.license if known else "not stated"


def _is_frame(path: str) -> bool:
    return path.startswith("images/") and Path(path).suffix.lower() in FRAME_SUFFIXES
