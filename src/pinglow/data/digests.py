"""Digests of frames: whether two are the same picture, whatever file each lies in.

A card keeps 32 bits of each training frame, as text: 5.4 characters a frame, 11 kB for 2,000. Of
100 other frames one is taken for one of those 2,000 by chance in one of 20,000 sets. A Bloom filter
as sure as that takes as much room.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BYTES = 4


def digest_frame(counts: NDArray[Any]) -> str:
    """SHA-256 of the size, the type and the values of (H, W) counts, as hexadecimal digits."""
    values = np.ascontiguousarray(counts)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{values.shape} {values.dtype.kind}{values.itemsize} ".encode())
    digest.update(values.data)
    return digest.hexdigest()


def pack_digests(digests: Iterable[str]) -> str:
    """The first 32 bits of each digest, sorted, as base64."""
    short = sorted({bytes.fromhex(each)[:_BYTES] for each in digests})
    return base64.b64encode(b"".join(short)).decode()


def count_known(packed: Iterable[str], digests: Iterable[str]) -> int:
    """How many digests are among those of some packed texts; what is no such text is empty."""
    known: set[bytes] = set()
    for text in packed:
        with suppress(ValueError):
            content = base64.b64decode(text, validate=True)
            known.update(content[at : at + _BYTES] for at in range(0, len(content), _BYTES))
    return sum(bytes.fromhex(each)[:_BYTES] in known for each in digests)
