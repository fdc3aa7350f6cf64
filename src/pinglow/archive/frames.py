"""The frames of a unit, in their order, read from wherever it lies; nothing is unpacked to disk."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from pinglow.archive.listing import TAR_SUFFIXES, mark_of
from pinglow.errors import FrameError
from pinglow.io.memory import MemoryFile
from pinglow.io.places import PlaceError, changed, fetch, is_url, open_object, try_again
from pinglow.io.readers import FRAME_SUFFIXES, frame_suffixes
from pinglow.io.source import ImageSource
from pinglow.io.streams import hide_login
from pinglow.io.video import VIDEO_SUFFIXES, is_video, probe_video, read_video

if TYPE_CHECKING:
    from pinglow.archive.units import Unit

_IN_MEMORY: Final = 2**28  # bytes; local files beyond are read from their disk
_LARGEST: Final = 2**31  # bytes of an object, or of a file in a tar, that is taken into memory
_NAMED: Final = FRAME_SUFFIXES - {".hdr"}  # whose first bytes say all; ENVI has a file beside
_END: Final = 1024  # bytes of zeros at the end of a tar


@dataclass(frozen=True, eq=False)
class UnitFrame:
    """One frame of a unit.

    Attributes:
        source: The file that it is of; in a tar the tar's name and the file's, with a slash.
        index: Its number there, from 0.
        counts: (H, W) as `read_frame` gives them, or why it cannot be read.
        time: Seconds from the start of its clip; None: it is of none.
    """

    source: str
    index: int
    counts: NDArray[Any] | FrameError
    time: float | None = None


class ClipFile:
    """An object elsewhere that is read as a video; see `pinglow.io.memory.OpenedFile`."""

    def __init__(self, uri: str, mark: str) -> None:
        self._uri, self._mark = uri, mark

    def __str__(self) -> str:
        return hide_login(self._uri)

    def is_file(self) -> bool:
        """It is one, as far as it was listed."""
        return True

    def exists(self) -> bool:
        """See `is_file`."""
        return True

    def open(self, mode: str = "rb") -> IO[bytes]:
        """To be read in ranges."""
        return open_object(self._uri, self._mark)


def name_of(uri: str) -> str:
    """A file as tables and messages name it: without logins, and valid UTF-8."""
    return hide_login(uri).encode("utf-8", "backslashreplace").decode()


def is_still(unit: Unit) -> bool:
    """Whether a unit's file is an image by its name, so that it is read at once."""
    name = unit.uri.lower()
    return PurePath(name).suffix not in VIDEO_SUFFIXES and not name.endswith(TAR_SUFFIXES)


def load(unit: Unit) -> bytes | None:
    """The bytes of a unit that is best fetched whole; None: it is read piece by piece.

    Raises:
        PlaceError: It cannot be fetched, or is not what was listed.
        FrameError: It is too large to be fetched.
    """
    suffix = PurePath(unit.uri).suffix.lower()
    size = unit.size or 0
    if not is_still(unit):
        return None
    if not is_url(unit.uri) and (suffix not in _NAMED or size > _IN_MEMORY):
        return None
    if size > _LARGEST:
        raise FrameError(
            f"{name_of(unit.uri)} has {size / 2**30:.1f} GB, too many for a still: copy it to a "
            "local disk"
        )

    def get() -> bytes:
        content = fetch(unit.uri, unit.mark)
        if unit.size not in (None, len(content)):
            raise PlaceError(
                f"{name_of(unit.uri)} has {len(content):,} bytes, where the listing said "
                f"{unit.size:,}: it was cut on its way, or changed; run again",
                again=is_url(unit.uri),
            )
        return content

    return try_again(get)


def read_frames(unit: Unit, content: bytes | None) -> Iterator[UnitFrame]:
    """The frames of a unit; what cannot be read of it is one of them, with the reason.

    Args:
        unit: See `make_units`.
        content: See `load`.

    Raises:
        PlaceError: It cannot be reached, or is not what was listed any more.
        MissingExtraError: It is of a kind whose package is not installed.
    """
    name = name_of(unit.uri)
    if content is None and not is_url(unit.uri):
        open_object(unit.uri).close()  # what may not be read is not damaged
    if content is not None:
        yield from _read_image(name, MemoryFile(name, content))
    elif unit.uri.lower().endswith(TAR_SUFFIXES):
        yield from _read_tar(name, unit)
    elif is_url(unit.uri):
        yield from _read_clip(name, ClipFile(unit.uri, unit.mark), unit.first, unit.last)
    elif is_video(Path(unit.uri)):
        yield from _read_clip(name, Path(unit.uri), unit.first, unit.last)
    else:
        yield from _read_image(name, Path(unit.uri))
    if not is_url(unit.uri) and mark_of(unit.uri) != unit.mark:
        raise changed(name)


def _read_image(name: str, file: Path | MemoryFile) -> Iterator[UnitFrame]:
    for frame in ImageSource(file).select():
        yield UnitFrame(name, frame.index, frame.counts)


def _read_clip(
    name: str, file: Any, first: int = 0, last: int | None = None
) -> Iterator[UnitFrame]:
    """Frames of a clip; those of a slice by their times, so that each is in one slice alone."""
    index = first
    try:
        start, end = 0.0, None
        if first or last is not None:
            rate = probe_video(file).rate
            # Half a frame before: times are rounded.
            start = max(0.0, (first - 0.5) / rate)
            end = None if last is None else (last - 0.5) / rate
        for frame in read_video(file, start=start, end=end):
            index = frame.index
            yield UnitFrame(name, index, frame.counts, frame.time)
    except FrameError as error:
        yield UnitFrame(name, index, error)


def _read_tar(name: str, unit: Unit) -> Iterator[UnitFrame]:
    """Frames of the files in a tar, as they come: it is read once, from its start to its end."""
    suffixes = frame_suffixes() | VIDEO_SUFFIXES
    with open_object(unit.uri, unit.mark) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    inner = PurePath(member.name)
                    if not member.isfile() or inner.name.startswith("."):
                        continue
                    if inner.suffix.lower() not in suffixes:
                        continue
                    yield from _read_member(f"{name}/{name_of(member.name)}", tar, member)
            if unit.uri.lower().endswith(".tar") and not _has_end(file):
                raise tarfile.ReadError("its end is missing")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            reason = FrameError(
                f"{name} is damaged or cut short ({error}): what comes before was read; copy it "
                "again"
            )
            yield UnitFrame(name, 0, reason)


def _read_member(name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[UnitFrame]:
    if member.size > _LARGEST:
        reason = FrameError(
            f"{name} has {member.size / 2**30:.1f} GB, too many for a file in a tar: unpack it"
        )
        yield UnitFrame(name, 0, reason)
        return
    opened = tar.extractfile(member)
    assert opened is not None  # it is a file
    file = MemoryFile(name, opened.read())
    if PurePath(member.name).suffix.lower() in VIDEO_SUFFIXES:
        yield from _read_clip(name, file)
    else:
        yield from _read_image(name, file)


def _has_end(file: IO[bytes]) -> bool:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END))
    return not any(file.read(_END))
