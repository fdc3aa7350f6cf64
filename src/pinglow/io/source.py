"""Where frames come from: an image, a stack of pages, a video, a folder, bytes; all look alike.

A source that is broken says so when it is read, so that a job goes on with the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from pinglow.errors import FrameError, OptionError
from pinglow.io.counts import MAX_PIXELS
from pinglow.io.frames import count_pages, find_frames, open_frames, read_only_frame
from pinglow.io.memory import MemoryFile
from pinglow.io.video import is_video, probe_video, read_video

_LONGEST_VIDEO: Final = 1e8  # seconds, three years


@dataclass(frozen=True)
class Selection:
    """Which frames of a video, a multi-page file or a folder are taken.

    Attributes:
        every: Each ``every``-th, from the first; of single images, of those in one folder.
        start: Seconds from the start of a video.
        end: The same; None: to its end.

    Raises:
        OptionError: A value is impossible.
    """

    every: int = 1
    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.every < 1:
            raise OptionError(f"every is {self.every}; use 1 or more")
        if not 0 <= self.start < _LONGEST_VIDEO:
            raise OptionError(f"start is {self.start}; use 0 seconds or more")
        if self.end is not None and not self.end > self.start:
            raise OptionError(f"end is {self.end}; use more than start, which is {self.start}")

    @property
    def by_time(self) -> bool:
        """Whether it asks for the times of frames."""
        return self.start > 0 or self.end is not None


_ALL: Final = Selection()


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame of a source.

    Attributes:
        index: Its number in the source, from 0.
        counts: (H, W) as `read_frame` gives them, or why it cannot be read.
        label: What tells its output files from those of the source's other frames.
        time: Seconds from the start; None: nothing says when it was taken.
    """

    index: int
    counts: NDArray[Any] | FrameError
    label: str = ""
    time: float | None = None


class Source:
    """Frames in their order; a source of its own kind gives `select`.

    Attributes:
        name: As messages and tables name it; a file name need not be valid UTF-8, this is.
        stem: What its output files are called; where stems collide, `home` goes before it.
        home: The folder that it lies in.
        sequence: What its frames are a part of in time: the folder of a single image, else itself.
        frames: How many there are, which is an estimate for some videos; None: it does not end.
        rate: Frames a second; None: nothing says when they were taken.
    """

    def __init__(
        self, path: str | Path, frames: int | None, rate: float | None = None, stem: str = ""
    ) -> None:
        self.name = str(path).encode("utf-8", "backslashreplace").decode()
        self.stem = stem or Path(path).stem
        self.sequence = self.name
        self.frames, self.rate = frames, rate
        self._place = Path(path)

    @property
    def home(self) -> str:
        """See `Source`."""
        return self._place.resolve().parent.name

    def select(self, selection: Selection = _ALL) -> Iterator[SourceFrame]:
        """Read the frames that are selected, one after the other."""
        raise NotImplementedError

    def expect(self, selection: Selection) -> int | None:
        """How many frames are likely to be selected; None: there is no end."""
        return None if self.frames is None else -(-self.frames // selection.every)

    def answered(self, index: int) -> None:
        """Hear that the results of a frame are written: a live source measures by it."""

    def close(self) -> None:
        """Stop waiting for frames, from any thread."""

    def read(self, index: int) -> NDArray[Any]:
        """(H, W) counts of one frame.

        Raises:
            FrameError: It cannot be read, or is not there.
        """
        found = next(itertools.islice(self.select(), index, None), None)
        if found is None:
            raise FrameError(f"{self.name} has no frame {index}: its first is 0")
        if isinstance(found.counts, FrameError):
            raise found.counts
        return found.counts


class ImageSource(Source):
    """An image, or a file of several pages; on disk or in memory."""

    def __init__(self, file: Path | MemoryFile, max_pixels: int = MAX_PIXELS) -> None:
        try:
            pages = count_pages(file)
        except FrameError:
            pages = 1  # reading it says why
        super().__init__(str(file), pages)
        self._file, self._max_pixels = file, max_pixels
        self._pages = pages
        if pages == 1 and isinstance(file, Path):
            self.sequence = str(file.parent)

    def select(self, selection: Selection = _ALL) -> Iterator[SourceFrame]:
        """See `Source`; a page that cannot be read costs no other."""
        digits = len(str(self._pages - 1))
        counts: NDArray[Any] | FrameError
        try:
            with open_frames(self._file, max_pixels=self._max_pixels) as read:
                for page in range(0, self._pages, selection.every):
                    try:
                        counts = read(page)
                    except FrameError as error:
                        counts = error
                    label = f"_p{page:0{digits}}" if self._pages > 1 else ""
                    yield SourceFrame(page, counts, label)
        except FrameError as error:
            yield SourceFrame(0, error)

    def read(self, index: int) -> NDArray[Any]:
        """See `Source`."""
        with open_frames(self._file, max_pixels=self._max_pixels) as read:
            return read(index)


class VideoSource(Source):
    """A video.

    Raises:
        MissingExtraError: There is no library to read it.
    """

    def __init__(self, path: Path, stream: int | None = None, max_pixels: int = MAX_PIXELS) -> None:
        try:
            info = probe_video(path, stream)
            frames, rate = info.frames or 1, info.rate
        except FrameError:
            frames, rate = 1, 1.0  # reading it says why
        super().__init__(path, frames, rate)
        self._path, self._frames, self._rate = path, frames, rate
        self._options: dict[str, Any] = {"stream": stream, "max_pixels": max_pixels}

    def select(self, selection: Selection = _ALL) -> Iterator[SourceFrame]:
        """See `Source`; what is wrong is said after all frames that can be decoded."""
        digits = max(4, len(str(self._frames - 1)))
        index = 0
        try:
            chosen = selection.every, selection.start, selection.end
            for frame in read_video(self._path, *chosen, **self._options):
                index = frame.index
                yield SourceFrame(index, frame.counts, f"_f{index:0{digits}}", frame.time)
        except FrameError as error:
            yield SourceFrame(index, error)

    def expect(self, selection: Selection) -> int:
        """See `Source`."""
        seconds = self._frames / self._rate
        span = min(seconds, selection.end or seconds) - min(seconds, selection.start)
        return round(span * self._rate / selection.every)


class FolderSource(Source):
    """The images of a folder, a frame each, in the order of their numbers.

    Raises:
        DataError: It holds none.
    """

    def __init__(self, folder: Path) -> None:
        self._files = find_frames([folder])
        super().__init__(folder, len(self._files), stem=folder.resolve().name)

    def select(self, selection: Selection = _ALL) -> Iterator[SourceFrame]:
        """See `Source`."""
        counts: NDArray[Any] | FrameError
        for index in range(0, len(self._files), selection.every):
            try:
                counts = self.read(index)
            except FrameError as error:
                counts = error
            yield SourceFrame(index, counts, f"_{self._files[index].stem}")

    def read(self, index: int) -> NDArray[Any]:
        """See `Source`."""
        if not 0 <= index < len(self._files):
            raise FrameError(
                f"{self.name} has no frame {index}: choose 0 to {len(self._files) - 1}"
            )
        return read_only_frame(self._files[index])


def open_source(
    what: str | Path | bytes,
    name: str = "frame",
    video_stream: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Open whatever holds frames.

    Args:
        what: The path of an image, a multi-page file, a video or a folder of images; or the bytes
            of an image file.
        name: What bytes are called.
        video_stream: Which video stream of a file, from 0; see `read_video`.
        max_pixels: Of a frame of an image or a video; see `read_frame`.

    Raises:
        DataError: A folder holds no frames.
        MissingExtraError: It is a video, and there is no library to read it.
    """
    if isinstance(what, bytes):
        return ImageSource(MemoryFile(name, what), max_pixels)
    path = Path(what).expanduser()
    if path.is_dir():
        return FolderSource(path)
    if is_video(path):
        return VideoSource(path, video_stream, max_pixels)
    return ImageSource(path, max_pixels)
