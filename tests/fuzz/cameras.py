"""Small whole files as cameras and instruments write them, to be spoiled."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from fuzz.corpus import HEIGHT, WIDTH, scene


def cameras() -> dict[str, bytes]:
    """Files of one frame, or of several, by their names."""
    import imagecodecs

    deep = scene()
    plain, packed = deep.astype("<u2").tobytes(), bytes(imagecodecs.png_encode(deep))
    whole = _flir(plain)
    zipped = io.BytesIO()
    np.savez_compressed(zipped, frame=deep, time=3.0)
    return {
        "radiometric.jpg": _radiometric(whole),
        "packed.jpg": _radiometric(_flir(packed)),
        "frame.fff": whole,
        "frames.seq": b"".join(_flir(content, b"AFF\0") for content in (plain, packed, plain)),
        "raw.dng": _dng(deep),
        "lossless.jpg": bytes(imagecodecs.ljpeg_encode(deep, bitspersample=14)),
        "frame.jls": bytes(imagecodecs.jpegls_encode(deep)),
        "cube.fits": _fits(np.stack([deep, deep[::-1]])),
        "frame.hdr": _ENVI.encode(),
        "frame.npz": zipped.getvalue(),
    }


def beside(name: str) -> bytes | None:
    """What belongs beside a file of this name; None: nothing does."""
    return scene().astype("<u2").tobytes() if name.endswith(".hdr") else None


def hdf5() -> dict[str, bytes]:
    """A stack of two frames, stored in compressed chunks."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as writer:
        stack = np.stack([scene(), scene()[::-1]])
        writer.create_dataset("a/frames", data=stack, chunks=(1, 17, 20), compression="gzip")
        writer.create_dataset("times", data=np.arange(2.0))
    return {"stack.h5": file.getvalue()}


_ENVI = f"""ENVI
description = {{ made }}
samples = {WIDTH}
lines = {HEIGHT}
bands = 1
header offset = 0
data type = 12
interleave = bsq
byte order = 0
"""


def _flir(payload: bytes, name: bytes = b"FFF\0") -> bytes:
    """A block with one record of counts; https://exiftool.org/TagNames/FLIR.html."""
    record = struct.pack("<HHH", 2, WIDTH, HEIGHT).ljust(32, b"\0") + payload
    header = name.ljust(20, b"\0") + struct.pack(">III", 100, 64, 1)
    entry = struct.pack(">HHIIIIIII", 1, 1, 100, 1, 96, len(record), 0, 0, 0)
    return header.ljust(64, b"\0") + entry.ljust(32, b"\0") + record


def _radiometric(flir: bytes) -> bytes:
    """A preview with a block in APP1."""
    file = io.BytesIO()
    Image.fromarray(scene(255)).save(file, "JPEG")
    preview = file.getvalue()
    content = b"FLIR\0\1\0\0" + flir
    segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    return preview[:2] + segment + preview[2:]


def _dng(deep: NDArray[Any]) -> bytes:
    """A thumbnail, and the frame below it."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(scene(255)[::2, ::2], subifds=1, subfiletype=1, photometric="minisblack")
        tiff.write(deep, photometric="minisblack")
    return file.getvalue()


def _fits(stack: NDArray[Any]) -> bytes:
    """Cards of 80 letters, then big-endian numbers, in blocks of 2,880 bytes."""
    cards: dict[str, Any] = {"SIMPLE": "T", "BITPIX": 16, "NAXIS": stack.ndim}
    cards |= {f"NAXIS{place + 1}": side for place, side in enumerate(stack.shape[::-1])}
    cards |= {"BZERO": 32768, "BSCALE": 1}
    header = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in cards.items()) + "END"
    content = (stack.astype(np.int32) - 32768).astype(">i2").tobytes()
    blocks = header.encode().ljust(-(-len(header) // 2880) * 2880)
    return blocks + content.ljust(-(-len(content) // 2880) * 2880, b"\0")
