"""Raw frames, one after the other without any header: in a file, or as they come down a pipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError, OptionError
from pinglow.io.counts import MAX_PIXELS
from pinglow.io.source import Selection, Source, SourceFrame

_TYPES: Final = {"gray8": "u1", "gray": "u1", "gray16le": "<u2", "gray16be": ">u2"}
_FORM: Final = re.compile(r"(\d{1,6})x(\d{1,6}):(\w+)(?:@(\d+(?:\.\d+)?))?")
_ALL: Final = Selection()


@dataclass(frozen=True)
class RawFormat:
    """How raw frames lie in a stream.

    Attributes:
        width: Pixels a row.
        height: Rows.
        kind: gray8, gray16le or gray16be, as FFmpeg names them.
        rate: Frames a second; None: not known.
    """

    width: int
    height: int
    kind: str
    rate: float | None = None

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """What ``--raw`` says: WxH:KIND, or WxH:KIND@RATE.

        Raises:
            OptionError: It says something else.
        """
        match = _FORM.fullmatch(text.strip())
        kinds = ", ".join(kind for kind in _TYPES if kind != "gray")
        if match is None or match[3] not in _TYPES:
            raise OptionError(
                f"--raw {text!r} is not WIDTHxHEIGHT:KIND: as in 640x512:gray16le, or "
                f"640x512:gray16le@30 with frames a second; kinds are {kinds}"
            )
        width, height, rate = int(match[1]), int(match[2]), float(match[4] or 0)
        if not 0 < width * height <= MAX_PIXELS:
            raise OptionError(f"--raw {text!r} has no pixels, or too many: check width and height")
        if match[4] and not rate > 0:
            raise OptionError(f"--raw {text!r} has no frames a second: leave out @0")
        return cls(width, height, match[3], rate or None)

    @property
    def dtype(self) -> str:
        """Of its counts, as numpy names it."""
        return _TYPES[self.kind]

    @property
    def size(self) -> int:
        """Bytes a frame."""
        return self.width * self.height * np.dtype(self.dtype).itemsize

    def decode(self, content: bytes | bytearray | memoryview) -> NDArray[Any]:
        """(H, W) counts of one frame's bytes, in the machine's own order."""
        values = np.frombuffer(content, self.dtype)
        return values.reshape(self.height, self.width).astype(values.dtype.newbyteorder("="))

    def cut_short(self, name: str, index: int, got: int) -> FrameError:
        """What is said where a frame's bytes end too early."""
        return FrameError(
            f"{name} ends in the middle of frame {index}, after {got:,} of {self.size:,} bytes "
            f"({self.width} x {self.height}, {self.kind}): it is cut short, or --raw is wrong"
        )

    def read(self, stream: BinaryIO, name: str) -> Iterator[NDArray[Any]]:
        """The frames of an unbuffered stream, to its end.

        Raises:
            FrameError: It ends in the middle of one.
        """
        index = 0
        while True:
            content = memoryview(bytearray(self.size))
            filled = 0
            while filled < self.size:
                got = stream.readinto(content[filled:])  # type: ignore[attr-defined]
                if not got:
                    break
                filled += got
            if not filled:
                return
            if filled < self.size:
                raise self.cut_short(name, index, filled)
            yield self.decode(content)
            index += 1


class RawSource(Source):
    """A file of raw frames."""

    def __init__(self, path: Path, form: RawFormat) -> None:
        self._path, self._form = path, form
        self._size = path.stat().st_size
        super().__init__(path, -(-self._size // form.size), form.rate)

    def select(self, selection: Selection = _ALL) -> Iterator[SourceFrame]:
        """See `Source`; a last frame that is not whole is an error in its place."""
        assert self.frames is not None
        rate = self.rate
        digits = max(4, len(str(self.frames)))
        first = 0 if rate is None else round(selection.start * rate)
        for index in range(0, self.frames, selection.every):
            time = None if rate is None else index / rate
            if time is not None and selection.end is not None and time >= selection.end:
                return
            if index >= first:
                yield SourceFrame(index, self._try(index), f"_f{index:0{digits}}", time)

    def read(self, index: int) -> NDArray[Any]:
        """See `Source`."""
        found = self._try(index) if 0 <= index < (self.frames or 0) else None
        if found is None:
            raise FrameError(f"{self.name} has no frame {index}: it has {self.frames}")
        if isinstance(found, FrameError):
            raise found
        return found

    def _try(self, index: int) -> NDArray[Any] | FrameError:
        left = self._size - index * self._form.size
        if left < self._form.size:
            return self._form.cut_short(self.name, index, left)
        try:
            with self._path.open("rb") as file:
                file.seek(index * self._form.size)
                content = file.read(self._form.size)
        except OSError as error:
            return FrameError(f"{self.name} cannot be read: {error.strerror or error}")
        if len(content) < self._form.size:
            return self._form.cut_short(self.name, index, len(content))
        return self._form.decode(content)
