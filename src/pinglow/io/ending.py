"""What a video promised and what came of it: how many frames are missing at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pinglow.errors import FrameError
from pinglow.io.containers import asf_seconds, file_size, lacks_bytes
from pinglow.io.memory import OpenedFile

_LOOSE: Final = 0.05  # of its length: where only times are known, a last frame may be long
_FEW: Final = 3  # frames
_TICKS: Final = 1000.0  # frames a second: what FFmpeg says where ASF does not tell
_FASTEST: Final = 60.0  # frames a second; FFmpeg takes ticks for the rate of a very short video
_REORDERED: Final = 16  # frames that may be stored out of order
_GUESSED: Final = ("mpegts", "mpeg", "yuv4mpegpipe")  # FFmpeg takes their length from what is there
_FROM_0: Final = ("matroska", "flv")  # their length counts from 0, not from the first frame


class Ending:
    """Follows the packets of a video, and says in the end what is missing.

    Attributes:
        lost: Why each packet that could not be decoded could not be.
        frames: How many were decoded.
    """

    def __init__(
        self,
        path: Path | OpenedFile,
        container: Any,
        stream: Any,
        rate: float,
        *,
        whole: bool,
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
        self.frames = 0
        self._path, self._container, self._stream, self._rate = path, container, stream, rate
        self._kind = str(container.format.name)
        self._whole = whole
        self._packets = self._shown = self._bytes = 0
        self._end: float | None = None  # seconds, as packets count them
        self._longest = 0.0  # seconds from one frame to the next
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
        missing = self._find_missing()
        if self.lost and not (missing and len(self.lost) == 1):  # else it is the last, torn
            lost = max(len(self.lost), self._shown - self.frames)  # some are lost with others
            wrong.append(
                f"is damaged: {lost} of its packets could not be decoded "
                f"({self.lost[0]}); the others were read"
            )
        if missing:
            wrong.append(f"is cut short: {missing}; copy it again")
        if wrong:
            raise FrameError(f"{self._path} {', and it '.join(wrong)}")

    def _is_torn(self, packet: Any) -> bool:
        """Whether the end of the file cuts the last packet."""
        return bool(packet.is_corrupt) or (self._cut and self._kind in _GUESSED)

    def _note(self, packet: Any) -> None:
        if not packet.size:
            return
        self._packets += 1
        self._shown += not getattr(packet, "is_discard", False)  # by an edit list
        self._bytes = (packet.pos or 0) + packet.size
        base = float(packet.time_base or 0)
        # AVI stores no times, and FFmpeg makes up when frames are shown.
        start = packet.dts if "avi" in self._kind or packet.pts is None else packet.pts
        if start is not None:
            end = start * base + (float(packet.duration or 0) * base or 1 / self._rate)
            if self._end is not None:
                self._longest = max(self._longest, end - self._end)
            self._end = end if self._end is None else max(self._end, end)

    def _find_missing(self) -> str:
        """What is missing at the end, in words; empty: nothing."""
        if "mov" in self._kind and self._whole:
            # The index has exactly the frames that are shown or lead to them; the header also has
            # those that an edit list leaves out.
            index = len(getattr(self._stream, "index_entries", ()))
            index = max(index, self._stream.frames if self._cut else 0)
            if index > self._packets:
                return self._name(index - self._packets)
            if index and not self._cut:
                return ""
        promised = self._promise()
        if promised is None:
            torn = self._torn or self._cut
            if self._kind == "yuv4mpegpipe":  # frames of one size
                torn = file_size(self._path) > self._bytes
            return "its last frame is not whole, and how many follow it does not say" * torn
        start = self._start()
        ends = start if self._end is None else self._end
        late = promised - ends
        missing = round(late * self._rate)
        if not self._cut and not self._torn:
            if "matroska" in self._kind:  # it is as long as it says; a last frame may be held
                return ""
            length = promised - start
            loose = _FEW / min(self._rate, _FASTEST) + _LOOSE * length
            return self._guess(late) if late > max(loose, self._longest) else ""
        holes = round((ends - start) * self._rate) - self._packets  # stored after the last one
        if not self._whole or holes > _REORDERED or self._rate >= _TICKS:
            return self._guess(late) if missing > 0 else ""
        if not self._stream.codec_context.has_b_frames or "avi" in self._kind:
            holes = 0
        return self._name(missing + holes) if missing + max(holes, 0) > 0 else ""

    def _name(self, missing: int) -> str:
        total = missing + self._packets
        missing += self._shown - self.frames if len(self.lost) == 1 else 0  # see `check`
        are = "is" if missing == 1 else "are"
        return f"{missing} of {total} frames {are} missing at its end"

    def _guess(self, late: float) -> str:
        """Where frames are not evenly spaced, or not all were read."""
        if self._rate >= _TICKS:
            return f"about {late:.1f} s are missing at its end"
        frames = max(1, round(late * self._rate))
        return f"about {frames} frames ({late:.1f} s) are missing at its end"

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
        if "asf" in self._kind:
            return asf_seconds(self._path) or None
        tag = self._stream.metadata.get("DURATION", "") if "matroska" in self._kind else ""
        seconds = _parse_clock(tag)
        if not seconds and self._stream.duration and self._stream.time_base:
            seconds = float(self._stream.duration * self._stream.time_base)
        if not seconds and (self._cut or self._torn or len(self._container.streams) == 1):
            seconds = float(self._container.duration or 0) / 1e6  # of the longest stream
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
