"""Spoil the bytes of a file: the same content and seed give the same bytes."""

from __future__ import annotations

import json
import random
import re
import struct
import zlib
from typing import Final

_NUMBERS: Final = (
    *("0", "-1", "1", "2", "255", "65536", "2147483648", "4294967296", "1e9", "1e309", "-1e309"),
    *("nan", "inf", "-0.0", "1e-320", "0.5", "0x10", "1_0", "١٢", "9" * 400, "9" * 5000, "true"),
    *('"a"', "[]", "{}", "null", ""),
)
_PIECES: Final = (
    *(b"\0", b"\x1b[2J", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b"\r", b"\n\n", b" ", b"\t"),
    *(b'"', b"'", b"/", b"../", b"~", b"a/" * 300, b"x" * 5000, b"[" * 3000, b"{" * 3000, b","),
    *(b"<", b"<a>" * 2000, b"&#0;", b"<!DOCTYPE a>", b"a.b." * 500, b"\xe2\x80\xae", b"caf\xe9"),
)
_TOKEN: Final = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_WORD: Final = re.compile(rb"[A-Za-z_]+")
_PLAIN: Final = frozenset(b"\t\n\r" + bytes(range(32, 127)))


def spoil(content: bytes, seed: str) -> bytes:
    """A variant of a file's bytes; of text, often still text of its kind."""
    rng = random.Random(seed)
    head = content[:512]
    text = sum(byte in _PLAIN for byte in head) > 0.9 * max(1, len(head))
    if content.startswith(b"\x89PNG") and rng.random() < 0.6:
        return _spoil_png(content, rng)
    if content[8:10] == b'{"' and rng.random() < 0.6:
        return _spoil_safetensors(content, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        change = _spoil_text if text and rng.random() < 0.8 else _spoil_bytes
        content = change(content, rng)
    return content


def _spoil_text(content: bytes, rng: random.Random) -> bytes:
    way = rng.randrange(7)
    tokens = list(_TOKEN.finditer(content))
    words = list(_WORD.finditer(content))
    if way < 3 and tokens:
        return _replace(content, rng.choice(tokens), rng.choice(_NUMBERS).encode())
    if way == 3 and words:  # a word that is known, in the place of another
        return _replace(content, rng.choice(words), rng.choice(words)[0])
    if way == 4:
        place = rng.randrange(len(content) + 1)
        return content[:place] + rng.choice(_PIECES) + content[place:]
    lines = content.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    if way == 5:
        lines[first] = lines[second]
    else:
        del lines[min(first, second) : min(first, second) + rng.randrange(1, 4)]
    return b"\n".join(lines)


def _replace(content: bytes, match: re.Match[bytes], new: bytes) -> bytes:
    return content[: match.start()] + new + content[match.end() :]


def _spoil_bytes(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return rng.choice(_PIECES)
    values = bytearray(content)
    # Headers are short, and decide more.
    length = min(len(values), rng.choice((16, 64, 512, len(values))))
    place = rng.randrange(length)
    way = rng.randrange(8)
    if way == 0:
        values[place] ^= 1 << rng.randrange(8)
    elif way == 1:
        values[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif way == 2:
        form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
        top = 1 << (8 * struct.calcsize(form))
        number = rng.choice((0, 1, top - 1, top // 2, top // 2 - 1, 2**15, 255, rng.randrange(top)))
        new = struct.pack(form, number % top)
        values[place : place + len(new)] = new
    elif way == 3:
        del values[rng.randrange(len(values)) :]
    elif way == 4:
        del values[place : place + rng.randrange(1, 64)]
    elif way == 5:
        start = rng.randrange(len(values))
        values[place:place] = values[start : start + rng.randrange(1, 256)]
    elif way == 6:
        values[place : place + rng.randrange(1, 256)] = bytes(rng.randrange(1, 256))
    else:
        values += rng.randbytes(rng.randrange(1, 256))
    return bytes(values)


def _spoil_png(content: bytes, rng: random.Random) -> bytes:
    """Spoil a chunk of a PNG and mend its checksum, which would hide the rest."""
    chunks = []
    place = 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    number = rng.randrange(len(chunks))
    kind, data = chunks[number]
    if kind == b"IDAT" and rng.random() < 0.5:  # below the compression, too
        data = zlib.compress(_spoil_bytes(zlib.decompress(data), rng))
    else:
        data = _spoil_bytes(data, rng)
    chunks[number] = kind, data
    if rng.random() < 0.1:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return content[:8] + body


def _spoil_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Spoil the header, or the card in it, so that its length still fits."""
    (length,) = struct.unpack_from("<Q", content)
    header, rest = content[8 : 8 + length], content[8 + length :]
    card = json.loads(header).get("__metadata__", {}).get("pinglow")
    if card and rng.random() < 0.6:
        whole = json.loads(header)
        spoiled = _spoil_text(card.encode(), rng).decode("utf-8", "replace")
        whole["__metadata__"]["pinglow"] = spoiled
        header = json.dumps(whole).encode()
    else:
        header = _spoil_text(header, rng)
    return struct.pack("<Q", len(header)) + header + rest
