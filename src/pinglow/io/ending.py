"""What a video promised and what came of it: how many frames are missing at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pinglow.errors import FrameError
from pinglow.io.containers import lacks_bytes

_LOOSE: Final = 0.05  # of its length: where only times are known, a last frame may be long
_FEW: Final = 3  # frames
_REORDERED: Final = 16  # frames that may be stored out of order
_GUESSED: Final = ("mpegts", "mpeg", "yuv4mpegpipe")  # FFmpeg takes their length from what is there
_FROM_0: Final = ("matroska", "avi", "asf")  # their length counts from 0, not from the first frame


class Ending:
    """Follows the packets of a video, and says in the end what is missing.

    Attributes:
        lost: Why each packet that could not be decoded could not be.
    """

    def __init__(
        self, path: Path, container: Any, stream: Any, rate: float, *, whole: bool
    ) -> None:
        """Begin.

        Args:
            path: The file.
            container: As PyAV has opened it.
            stream: The one that is read.
            rate: Its frames a second.
            whole: It is read from its start.
        """
        self.lost: list[str] = []
        self._path, self._container, self._stream, self._rate = path, container, stream, rate
        self._kind = str(container.format.name)
        self._whole = whole
        self._packets = 0
        self._end: float | None = None  # seconds, as packets count them
        self._torn = False
        self._cut = lacks_bytes(path)

    def follow(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The packets that can be whole: all but a last one that the end of the file cuts."""
        held = None
        for packet in packets:
            if held is not None:
                if not packet.size and self._is_torn(held):
                    self._torn = True
                else:
                    self._note(held)
                    yield held
            held = packet
        if held is not None:
            yield held

    def check(self) -> None:
        """See what came.

        Raises:
            FrameError: Packets could not be decoded, or some are missing.
        """
        wrong = []
        if self.lost:
            wrong.append(
                f"is damaged: {len(self.lost)} of its packets could not be decoded "
                f"({self.lost[0]}); the others were read"
            )
        missing = self._count_missing()
        if missing is not None:
            known = (
                f"{missing} of {missing + self._packets} frames are missing at its end"
                if missing and self._whole
                else f"{missing} frames are missing at its end"
                if missing
                else "its last frame is not whole, and what came after it is not known"
            )
            wrong.append(f"is cut short: {known}; copy it again")
        if wrong:
            raise FrameError(f"{self._path} {', and it '.join(wrong)}")

    def _is_torn(self, packet: Any) -> bool:
        """Whether the end of the file cuts the last packet."""
        return bool(packet.is_corrupt) or (self._cut and self._kind in _GUESSED)

    def _note(self, packet: Any) -> None:
        if not packet.size:
            return
        self._packets += 1
        base = float(packet.time_base or 0)
        # AVI stores no times, and FFmpeg makes up when frames are shown.
        start = packet.dts if "avi" in self._kind or packet.pts is None else packet.pts
        if start is not None:
            end = start * base + (float(packet.duration or 0) * base or 1 / self._rate)
            self._end = end if self._end is None else max(self._end, end)

    def _count_missing(self) -> int | None:
        """How many frames are missing; 0: an unknown number; None: none."""
        index = len(getattr(self._stream, "index_entries", ())) if "mov" in self._kind else 0
        if index and self._whole:
            return index - self._packets if index > self._packets else None
        promised = self._promise()
        if promised is None:
            remains = self._kind == "yuv4mpegpipe" and self._cut
            return 0 if self._torn or remains else None
        ends = self._start() if self._end is None else self._end
        missing = round((promised - ends) * self._rate)
        if self._cut or self._torn:
            return max(missing, 0) + self._count_holes(ends) or (1 if self._torn else None)
        length = promised - self._start()
        return missing if missing > _FEW + _LOOSE * length * self._rate else None

    def _count_holes(self, ends: float) -> int:
        """How many frames are missing before the last one, as they are stored after it."""
        if not self._whole or "avi" in self._kind:
            return 0
        holes = round((ends - self._start()) * self._rate) - self._packets
        return holes if 0 < holes <= _REORDERED and self._stream.codec_context.has_b_frames else 0

    def _start(self) -> float:
        if "avi" in self._kind:
            return 0.0
        return float((self._stream.start_time or 0) * (self._stream.time_base or 0))

    def _promise(self) -> float | None:
        """When the pictures end by the file's own account, as packets count; None: it has none."""
        if self._kind in _GUESSED:
            return None
        if "avi" in self._kind:
            return float(self._stream.frames / self._rate) or None
        tag = self._stream.metadata.get("DURATION", "") if "matroska" in self._kind else ""
        seconds = _parse_clock(tag)
        if not seconds and self._stream.duration and self._stream.time_base:
            seconds = float(self._stream.duration * self._stream.time_base)
        seconds = seconds or float(self._container.duration or 0) / 1e6
        if not seconds > 0:
            return None
        counted = any(kind in self._kind for kind in _FROM_0)
        return seconds if counted else seconds + self._start()


def _parse_clock(text: str) -> float:
    """Seconds of hours:minutes:seconds; 0 for anything else."""
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds
