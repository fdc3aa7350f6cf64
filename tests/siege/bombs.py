"""Small files that claim, or turn into, far more than they are: images and archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache

Make = Callable[[], bytes]

HUGE = (65535, 65535)


# --- images ---------------------------------------------------------------------------------------


def _chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    length = struct.pack(">I", len(content) if size is None else size)
    return length + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int, height: int, *before: bytes, bits: int = 16, color: int = 0, data: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    content = data or zlib.compress(bytes(1000))
    chunks = (_chunk(b"IHDR", header), *before, _chunk(b"IDAT", content), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@cache
def flat(mebibytes: int) -> bytes:
    """Zeros as raw deflate, a thousandth of them: the same block again and again."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return block * mebibytes + b"\3\0"


def deflated(mebibytes: int) -> bytes:
    """The same for zlib, with its checksum."""
    check = (mebibytes * 2**20 % 65521) << 16 | 1
    return b"\x78\x9c" + flat(mebibytes) + struct.pack(">I", check)


@cache
def gzipped(mebibytes: int) -> bytes:
    """The same for gzip."""
    check = 0
    for _ in range(mebibytes):
        check = zlib.crc32(bytes(2**20), check)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return head + flat(mebibytes) + struct.pack("<II", check, mebibytes * 2**20 % 2**32)


def tiff(entries: list[tuple[int, int, int, int]], following: int = 0, data: bytes = b"") -> bytes:
    """A TIFF of entries (tag, type, count, value), pixels behind them."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return head + table + struct.pack("<I", following) + data


def _plain_tiff(
    width: int, height: int, counts: int = 8, compression: int = 1, **other: int
) -> bytes:
    """One strip, said to be longer than the file; `other` is a tag's number after an x."""
    entries = {
        **{256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 16), 259: (3, 1, compression)},
        **{262: (3, 1, 1), 273: (4, 1, 200), 277: (3, 1, 1), 278: (4, 1, height)},
        **{279: (4, 1, counts)},
        **{int(tag[1:]): (4, 1, value) for tag, value in other.items()},
    }
    return tiff([(tag, *rest) for tag, rest in sorted(entries.items())], data=bytes(400))


def _looped_tiff(pages: int) -> bytes:
    """A page that says the next one is itself, after some others that lie on each other."""
    return _plain_tiff(64, 64)[:-404] + struct.pack("<I", 8) + bytes(400 * pages)


def npy(shape: str, kind: str = "<u2", data: bytes = bytes(64), order: str = "False") -> bytes:
    header = f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data


def _bmp(width: int, height: int, bits: int = 8) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1064, 0, 0, 54 + 1024) + head + bytes(1064)


def _jpeg(width: int, height: int, *before: bytes) -> bytes:
    frame = struct.pack(">HHBHHB", 0xFFC0, 11, 8, height, width, 1) + b"\1\x11\0"
    return b"\xff\xd8" + b"".join(before) + frame + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(99)


def _fits(*cards: str) -> bytes:
    head = "".join(card.ljust(80) for card in (*cards, "END"))
    return head.ljust(2880 * (len(head) // 2880 + 1)).encode() + bytes(2880)


def _flat_fits(bits: int, first: int, second: int) -> bytes:
    sides = (f"NAXIS1  = {first:>20}", f"NAXIS2  = {second:>20}")
    return _fits(f"SIMPLE  = {'T':>20}", f"BITPIX  = {bits:>20}", f"NAXIS   = {2:>20}", *sides)


def images() -> Iterator[tuple[str, Make]]:
    """Names and makers of frames that no service should spend memory on."""
    sides = (HUGE, (2**31 - 1, 1), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (0, 0), (2**32 - 1, 4))
    for number, (width, height) in enumerate(sides):
        yield f"claim-{number}.png", lambda w=width, h=height: png(w, h)
        yield f"claim-{number}-rgb.png", lambda w=width, h=height: png(w, h, bits=8, color=2)
        yield f"claim-{number}.pgm", lambda w=width, h=height: f"P5 {w} {h} 65535\n".encode() + b"x"
        yield f"claim-{number}.tif", lambda w=width, h=height: _plain_tiff(w, h)
        yield f"claim-{number}.npy", lambda w=width, h=height: npy(f"({h}, {w})")
        yield f"claim-{number}.fits", lambda w=width, h=height: _flat_fits(16, w, h)
        signed = ((width + 2**31) % 2**32 - 2**31, (height + 2**31) % 2**32 - 2**31)
        yield f"claim-{number}.bmp", lambda s=signed: _bmp(*s)
        small = (min(width, 65535), min(height, 65535))
        yield f"claim-{number}.jpg", lambda s=small: _jpeg(*s)
    yield "deflated.png", lambda: png(60000, 30000, bits=8, data=deflated(1800))
    yield "deflated-rows.png", lambda: png(64, 64, data=deflated(1000))
    text = b"Comment\0\0" + deflated(1000)
    yield "text.png", lambda: png(64, 64, *[_chunk(b"zTXt", text)] * 4)
    yield "language.png", lambda: png(64, 64, _chunk(b"iTXt", b"Title\0\1\0\0\0" + deflated(1000)))
    yield "profile.png", lambda: png(64, 64, _chunk(b"iCCP", b"icc\0\0" + deflated(1000)))
    yield "chunks.png", lambda: png(64, 64, *[_chunk(b"tEXt", b"a\0b")] * 200_000)
    yield "chunk-claim.png", lambda: png(64, 64, _chunk(b"tEXt", b"a\0b", 2**31 - 1))
    yield "animated.png", lambda: png(64, 64, _chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)))
    yield "bytes.tif", lambda: _plain_tiff(64, 64, counts=2**32 - 1)
    yield "looped.tif", lambda: _looped_tiff(1)
    yield "samples.tif", lambda: _plain_tiff(64, 64, x277=65535)
    yield "tiles.tif", lambda: _plain_tiff(64, 64, x322=2**30, x323=2**30)
    yield "rows.tif", lambda: _plain_tiff(64, 2**31, x278=1)
    for compression in (5, 7, 8, 32773, 50000, 34925, 33003, 65000):
        yield f"packed-{compression}.tif", lambda c=compression: _plain_tiff(*HUGE, compression=c)
    yield "tags.tif", lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(12) * 65535
    yield "count.tif", lambda: tiff([(256, 4, 2**32 - 1, 8), (257, 4, 2**32 - 1, 8)])
    yield "big.tif", lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63) + bytes(99)
    yield "pickle.npy", lambda: npy("(1,)", "|O", b"cos\nsystem\n(S'touch pinglow-evil'\ntR.")
    yield "void.npy", lambda: npy("(64, 64)", "|V2147483647")
    yield "negative.npy", lambda: npy("(-64, 64)")
    yield "deep.npy", lambda: npy("(" * 5000 + ")" * 5000)
    yield "expression.npy", lambda: npy("(9**9**9, 2)")
    yield "head.npy", lambda: b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 1) + b"{" * 1000
    yield "axes.fits", lambda: _fits("SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 999")
    yield "cards.fits", lambda: _fits("SIMPLE  = T", *["COMMENT x"] * 50_000)
    yield "open.pgm", lambda: b"P5 " + b"#" * 1_000_000
    yield "digits.pgm", lambda: b"P5 " + b"9" * 100_000 + b" 1 255\n"
    yield "plain.pgm", lambda: b"P2 8 8 255\n" + b"1" * 1_000_000
    yield "segments.jpg", lambda: _jpeg(8, 8, *[b"\xff\xe1\xff\xff" + bytes(65533)] * 200)
    yield "flir.jpg", lambda: _jpeg(8, 8, b"\xff\xe1\0\x20FLIR\0\1\xff\xff" + bytes(22))
    yield "magic.fff", lambda: b"FFF\0" + b"\xff" * 400
    yield "magic.h5", lambda: b"\x89HDF\r\n\x1a\n" + b"\xff" * 400
    yield "magic.gif", lambda: b"GIF89a\xff\xff\xff\xff" + bytes(40)
    yield "magic.webp", lambda: b"RIFF\xff\xff\xff\xffWEBPVP8L" + b"\xff" * 40
    yield "empty.png", lambda: b""
    yield "noise.png", lambda: bytes(range(256)) * 4000
    yield "page.svg", lambda: b'<svg><image href="file:///etc/passwd"/></svg>'
    yield "script.mvg", lambda: b"push graphic-context\nimage over 0,0 0,0 'label:@/etc/passwd'"


# --- archives -------------------------------------------------------------------------------------


def zipped(*members: tuple[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return buffer.getvalue()


def linked_zip(name: str, target: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = 0o120777 << 16
        archive.writestr(info, target)
    return buffer.getvalue()


def tarred(*members: tuple[str, bytes], **header: object) -> bytes:
    """A tar; fields of its members' headers as given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", errors="surrogateescape") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in header.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _overlapping() -> bytes:
    """A thousand members that are one stretch of the file (after David Fifield's bomb)."""
    stretch = flat(100)
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 0, 0, 0, 0, 5, 0) + b"a.png"
    entries = b""
    for number in range(1000):
        name = f"{number:04}.png".encode()
        sizes = (len(stretch), 100 * 2**20)
        entries += struct.pack(
            "<IHHHHHHIIIHHHHHII",
            *(0x02014B50, 20, 20, 0, 8, 0, 0, 0, *sizes, len(name), 0, 0, 0, 0, 0, 0),
        )
        entries += name
    body = local + stretch
    tail = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1000, 1000, len(entries), len(body), 0)
    return body + entries + tail


def _lying_zip(field: int, value: int) -> bytes:
    """A zip whose directory says another number in one of its fields of four bytes."""
    content = bytearray(zipped(("a.png", png(64, 64))))
    place = content.rindex(b"PK\1\2") + field
    content[place : place + 4] = struct.pack("<I", value)
    return bytes(content)


def _nested(depth: int) -> bytes:
    content = zipped(("a.png", png(64, 64)))
    for _ in range(depth):
        content = zipped(*[(f"{number}.zip", content) for number in range(8)])
    return content


def _lying_tar(size: bytes) -> bytes:
    content = bytearray(tarred(("a.png", png(64, 64))))
    content[124:136] = size.ljust(12, b"\0")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


def archives() -> Iterator[tuple[str, Make]]:
    """Names and makers of archives that blow up or lie."""
    zeros = bytes(2**20) * 32
    yield "flat.zip", lambda: zipped(("zeros.png", bytes(2**20) * 100))
    yield "flat-lzma.zip", lambda: zipped(("zeros.png", zeros), kind=zipfile.ZIP_LZMA)
    yield "flat-bzip2.zip", lambda: zipped(("zeros.png", zeros), kind=zipfile.ZIP_BZIP2)
    yield "overlapping.zip", _overlapping
    yield "members.zip", lambda: zipped(*[(f"{n}.png", b"") for n in range(8000)])
    yield "nested.zip", lambda: _nested(4)
    yield "bombs.zip", lambda: zipped(*[(f"{n}.png", png(*HUGE)) for n in range(50)])
    for number, (place, value) in enumerate(((20, 2**32 - 2), (24, 2**32 - 2), (42, 2**32 - 2))):
        yield f"lying-{number}.zip", lambda p=place, v=value: _lying_zip(p, v)
    yield "zip64.zip", lambda: _lying_zip(20, 2**32 - 1)
    yield "encrypted.zip", lambda: _lying_zip(8, 0x00080001)
    yield "cut.zip", lambda: zipped(("a.png", png(64, 64)))[:-10]
    yield "none.zip", zipped
    yield "comment.zip", lambda: zipped(("a.png", b""))[:-2] + b"\xff\xff" + b"PK\5\6" * 16383
    yield "flat.tar.gz", lambda: gzip.compress(tarred(("zeros.png", zeros)))
    yield "flat.tar.xz", lambda: lzma.compress(tarred(("zeros.png", zeros)), preset=0)
    yield "flat.tar.bz2", lambda: bz2.compress(tarred(("zeros.png", zeros)), 1)
    yield "members.tar", lambda: tarred(*[(f"{n}.png", b"") for n in range(8000)])
    for number, size in enumerate((b"77777777777", b"\x80" + b"\xff" * 11, b"-1", b"\xff" * 12)):
        yield f"lying-{number}.tar", lambda s=size: _lying_tar(s)
    yield "sparse.tar", lambda: tarred(("a.png", b"x"), type=tarfile.GNUTYPE_SPARSE)
    yield "pax.tar", lambda: tarred(("a.png", b"x"), pax_headers={"comment": "x" * 10_000_000})
    yield "name.tar", lambda: tarred(("d/" * 50_000 + "a.png", b"x"))
    yield "cut.tar", lambda: tarred(("a.png", png(64, 64)))[:600]


def members(outside: str) -> Iterator[tuple[str, Make]]:
    """Archives whose members lie, or lead, outside of where they are unpacked.

    Args:
        outside: The absolute path of a folder beside the service's, where nothing may appear.
    """
    names = ("../pinglow-evil.png", "../" * 12 + f"{outside[1:]}/pinglow-evil.png")
    names += (f"{outside}/pinglow-evil.png", f"/{outside}/pinglow-evil.png", "..", ".", "/", "")
    names += ("a/../../pinglow-evil.png", "..\\pinglow-evil.png", "C:\\pinglow-evil.png")
    names += ("a.png\0/../pinglow-evil.png", "\x1b]0;pinglow-evil\x07.png", "a\npinglow-evil.png")
    names += ("CON.png", "x" * 5000 + ".png", "~/pinglow-evil.png", "é\udcff.png")
    for number, name in enumerate(names):
        yield f"name-{number}.zip", lambda n=name: _unsafe_zip(n)
        yield f"name-{number}.tar", lambda n=name: tarred((n, png(64, 64)))
    target = "/etc/passwd"
    yield "link.zip", lambda: linked_zip("a.png", target)
    yield "folder-link.zip", lambda: linked_zip("a", outside) + b""
    kinds = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}
    kinds |= {"character": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "folder": tarfile.DIRTYPE}
    for name, kind in kinds.items():
        yield (
            f"{name}.tar",
            lambda k=kind: tarred(("a.png", b""), type=k, linkname=target, devmajor=1, devminor=5),
        )
    yield "through-link.tar", lambda: _through_link(outside)
    yield "setuid.tar", lambda: tarred(("a.png", png(64, 64)), mode=0o6777)


def _unsafe_zip(name: str) -> bytes:
    stand_in = "n" * max(1, len(name.encode("utf-8", "surrogateescape")))
    raw = name.encode("utf-8", "surrogateescape") or b"n"
    return zipped((stand_in, png(64, 64))).replace(stand_in.encode(), raw)


def _through_link(outside: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, outside
        archive.addfile(link)
        inside = tarfile.TarInfo("a/pinglow-evil.png")
        inside.size = 3
        archive.addfile(inside, io.BytesIO(b"abc"))
    return buffer.getvalue()
