"""The files that sources stand for, one after the other: none of the lists is held."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any, Final, TypeVar

from pinglow.data.pack.reader import work_through
from pinglow.errors import DataError
from pinglow.extras import import_extra
from pinglow.io.places import (
    PlaceError,
    absolute,
    file_system,
    is_url,
    list_folder,
    open_object,
    reaching,
    try_again,
)
from pinglow.io.readers import frame_suffixes
from pinglow.io.video import VIDEO_SUFFIXES

_Given = TypeVar("_Given")
_Answer = TypeVar("_Answer")

TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz")
"""Of shards: tar files of frames."""

# What file systems call what tells one version of an object from another, and when it was made.
_CHECKSUMS: Final = ("ETag", "etag", "md5Hash", "Content-MD5", "Digest")
_TIMES: Final = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")
_ASKED: Final = 16  # files of a list that are asked for their size at a time


@dataclass(frozen=True, slots=True)
class Found:
    """A file or object that was listed.

    Attributes:
        uri: Its absolute path or its address.
        size: In bytes; None: it is not said.
        mark: Its etag, or its size and time of change: another one is another file.
    """

    uri: str
    size: int | None
    mark: str


def list_sources(words: Iterable[str], on_trouble: Callable[[str], None]) -> Iterator[Found]:
    """The files that files, folders, patterns, lists and shards stand for.

    Folders are searched to their depth, for what is named as frames, videos and tar files are;
    hidden files are left out. ``@list.txt`` names a text file with a source a line.

    Args:
        words: Paths and addresses.
        on_trouble: Told in a sentence what of them cannot be listed, where others can.

    Raises:
        DataError: A source is not there or cannot be listed.
    """
    for word in words:
        if word.startswith("@"):
            lines = partial(_list_one, on_trouble=on_trouble)
            for some in work_through(
                _keep_trouble(lines, on_trouble), _read_list(word[1:]), _ASKED
            ):
                yield from some
        elif _is_pattern(word):
            yield from _list_pattern(absolute(word), on_trouble)
        else:
            yield from _list_one(word, on_trouble)


def _keep_trouble(
    call: Callable[[str], Iterable[Found]], on_trouble: Callable[[str], None]
) -> Callable[[str], list[Found]]:
    """A call that tells of a line which cannot be listed, so that the others go on."""

    def listed(line: str) -> list[Found]:
        try:
            return list(call(line))
        except DataError as error:
            on_trouble(str(error))
            return []

    return listed


def _read_list(name: str) -> Iterator[str]:
    uri = absolute(name)
    empty = True
    with try_again(partial(open_object, uri)) as file:
        while True:
            with reaching(uri):
                line = file.readline()
            if not line:
                break
            text = os.fsdecode(line).strip()
            if text and not text.startswith("#"):
                empty = False
                yield text
    if empty:
        raise DataError(f"{name} names nothing: give a source a line")


def _list_one(word: str, on_trouble: Callable[[str], None]) -> Iterator[Found]:
    uri = absolute(word)
    if not is_url(uri):
        if os.path.isdir(uri):
            yield from _keep_frames(uri, _walk(uri, on_trouble))
            return
        with reaching(uri):
            status = os.stat(uri)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{word} is a pipe or a device: save it to a file")
        yield Found(uri, status.st_size, _local_mark(status))
        return
    system, path = file_system(uri)

    def ask() -> Any:
        with reaching(uri):
            return system.info(path)

    entry = try_again(ask)
    if entry.get("type") == "directory" or word.endswith("/"):
        yield from _keep_frames(uri, _walk_store(uri))
    else:
        yield _entry(uri, entry)


def _list_pattern(pattern: str, on_trouble: Callable[[str], None]) -> Iterator[Found]:
    base = pattern[: re.search(r"[*?[]", pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]
    translate = import_extra("fsspec.utils", "archive", "a pattern").glob_translate
    fits = re.compile(translate(pattern.replace(os.sep, "/")))
    files = _walk_store(base) if is_url(pattern) else _walk(base or "/", on_trouble)
    matching = (each for each in files if fits.fullmatch(each.uri.replace(os.sep, "/")))
    yield from _keep_frames(pattern, matching)


def _is_pattern(word: str) -> bool:
    if is_url(word):
        return word.startswith("http") is False and glob.has_magic(word)
    return glob.has_magic(word) and not os.path.exists(absolute(word))


def _keep_frames(source: str, files: Iterable[Found]) -> Iterator[Found]:
    """Those that are named as sources of frames are.

    Raises:
        DataError: None is.
    """
    suffixes = frame_suffixes() | VIDEO_SUFFIXES
    kept = False
    for each in files:
        name = each.uri.rpartition("/")[2].lower()
        if PurePath(name).suffix in suffixes or name.endswith(TAR_SUFFIXES):
            kept = True
            yield each
    if not kept:
        raise DataError(
            f"{source} holds no frames: name a place with images, videos or tar files of them"
        )


def _walk(folder: str, on_trouble: Callable[[str], None]) -> Iterator[Found]:
    """The files below a local folder, each once: links may go in a circle."""
    folders, seen = [folder], set()
    while folders:
        place = folders.pop()
        try:
            with reaching(place, "listed"):
                status = os.stat(place)
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                for path, status in _scan(place, on_trouble):
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(path)
                    elif stat.S_ISREG(status.st_mode):
                        yield Found(path, status.st_size, _local_mark(status))
        except PlaceError as error:
            if place == folder:
                raise
            on_trouble(str(error))


def _scan(folder: str, on_trouble: Callable[[str], None]) -> Iterator[tuple[str, os.stat_result]]:
    """What is in a folder; hidden files and what is gone by now are left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                with reaching(entry.path):
                    status = entry.stat()
            except PlaceError as error:  # a link may lead nowhere
                if not error.gone:
                    on_trouble(str(error))
                continue
            yield entry.path, status


def _walk_store(url: str) -> Iterator[Found]:
    system, path = file_system(url)
    path = path.rstrip("/")
    with reaching(url, "listed"):
        for entry in list_folder(system, path, deep=True):
            inner = entry["name"].removeprefix(path)
            if inner != entry["name"] and "/." not in inner:  # a page may have other links
                yield _entry(url.rstrip("/") + inner, entry)


def _entry(uri: str, entry: dict[str, Any]) -> Found:
    size = entry.get("size")
    mark = next((entry[key] for key in _CHECKSUMS if entry.get(key)), None)
    if mark is None:
        changed = next((entry[key] for key in _TIMES if entry.get(key)), "")
        mark = f"{size}-{changed}"
    return Found(uri, size, str(mark).strip('"'))


def _local_mark(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def mark_of(uri: str) -> str:
    """The mark that a local file has now.

    Raises:
        PlaceError: It is not there any more.
    """
    with reaching(uri):
        return _local_mark(os.stat(uri))
