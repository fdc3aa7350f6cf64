"""The text of a list or a label, however it was saved."""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from pinglow.errors import DataError

_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_XML_STARTS: Final = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
_XML_DECLARED: Final = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")


def read_text(path: Path, *, largest: int = 2**28) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Args:
        path: The file.
        largest: Refuse a larger one, in bytes.

    Raises:
        DataError: It is missing, no file, too large, or no such text.
    """
    data = _read_bytes(path, largest)
    return _decode(path, data, _marked_encoding(data) or "utf-8")


def decode_start(path: Path, size: int) -> str:
    """The first text of a file, as far as it is text; "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(size)
    except OSError:
        return ""
    return data.decode(_marked_encoding(data) or "utf-8", errors="ignore")


def read_xml_text(path: Path, *, largest: int) -> str:
    """The text of an XML file, in the encoding that it declares.

    Raises:
        DataError: As `read_text`.
    """
    data = _read_bytes(path, largest)
    encoding = _marked_encoding(data) or _XML_STARTS.get(data[:2])
    if encoding is None:
        declared = _XML_DECLARED.match(data)
        encoding = declared[1].decode() if declared else "utf-8"
    return _decode(path, data, encoding)


def read_json(path: Path, *, largest: int = 2**29) -> Any:
    """What a file of JSON holds.

    Raises:
        DataError: As `read_text`, or it is no JSON.
    """
    try:
        return json.loads(read_text(path, largest=largest))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not whole JSON ({error}): export it again") from error


def read_xml(path: Path, *, largest: int, root: str) -> ElementTree.Element:
    """The root of an XML file, which has to have a name and no entities.

    Raises:
        DataError: As `read_text`, or it is no such XML.
    """
    text = read_xml_text(path, largest=largest)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can grow beyond any memory
        raise DataError(f"{path} declares a DOCTYPE or entities: take them out of the file")
    try:
        element = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not whole XML ({error}): export it again") from error
    if element.tag != root:
        raise DataError(f"{path} holds <{element.tag}>: such files hold <{root}>")
    return element


def spellings(name: str) -> list[str]:
    """A name as it is, composed (NFC) and decomposed (NFD, as macOS may write it), each once."""
    if name.isascii():
        return [name]
    forms = (unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return list(dict.fromkeys((name, *forms)))


def _read_bytes(path: Path, largest: int) -> bytes:
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder: name a file in it")
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is a pipe or a device: save the text to a file")
        if path.stat().st_size > largest:
            raise DataError(f"{path} has over {largest >> 20} MB: no such text is as large")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be opened ({error}): check its permissions") from error


def _marked_encoding(data: bytes) -> str | None:
    return next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)


def _decode(path: Path, data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except LookupError:
        raise DataError(
            f"{path} declares the unknown encoding {encoding}: save it as UTF-8"
        ) from None
    except ValueError:
        raise DataError(f"{path} is not text in {encoding.upper()}: save it as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path} holds bytes of 0, which no text does: save it as UTF-8")
    return text
