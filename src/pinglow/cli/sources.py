"""What `pinglow predict` reads: the words that name it, the part that is searched, how it did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinglow.cli.output_file import echo
from pinglow.errors import OptionError

if TYPE_CHECKING:
    from pinglow.io.source import Source

Ignore = Annotated[
    list[str] | None,
    typer.Option(
        help="Look for nothing here: a rectangle in pixels, a polygon X,Y;X,Y;X,Y, an image of the "
        "frames' size whose pixels above 0 are ignored, or a file of polygons (labelme, GeoJSON). "
        "Repeat for several.",
        metavar="X,Y,W,H|POLYGON|MASK|JSON",
    ),
]

Crop = Annotated[
    str | None,
    typer.Option(
        help="Search only this rectangle; results have their place in the whole frame.",
        metavar="X,Y,W,H",
    ),
]

Raw = Annotated[
    str | None,
    typer.Option(
        help="How frames lie in a pipe or a file without any header, as 640x512:gray16le, or with "
        "frames a second 640x512:gray16le@30; kinds: gray8, gray16le, gray16be. Of a camera, what "
        "it is asked for.",
        metavar="WxH:KIND",
    ),
]


def open_sources(
    words: list[str], out: Path, raw: str | None, video_stream: int | None
) -> list[Source]:
    """The sources that arguments stand for, but for those among the results.

    Raises:
        OptionError: One does not end, and there are others; or --raw does not fit them.
        DataError: One does not exist.
    """
    from pinglow.io.raw import RawFormat
    from pinglow.io.streams import hide_login, kind_of, open_stream

    form = None if raw is None else RawFormat.parse(raw)
    kinds = [kind_of(word, raw is not None) for word in words]
    for word, kind in zip(words, kinds, strict=True):
        if kind not in (None, "raw") and len(words) > 1:
            raise OptionError(
                f"{hide_login(word)} may never end, so that what comes after it would not be read: "
                "start a job for each"
            )
        if raw is not None and kind is None:
            raise OptionError(f"--raw is for pipes, raw files and cameras: {word} is none of these")
    if any(kinds):
        return [open_stream(word, form, video_stream) for word in words]
    return open_files(words, out, video_stream)


def open_files(words: list[str], out: Path, video_stream: int | None = None) -> list[Source]:
    """The images and videos that arguments stand for, but for those among the results.

    Raises:
        DataError: One does not exist.
    """
    from pinglow.data.pack.cache import open_images
    from pinglow.io.frames import find_frames
    from pinglow.io.readers import frame_suffixes
    from pinglow.io.source import open_source
    from pinglow.io.video import VIDEO_SUFFIXES
    from pinglow.output.sinks import SINKS

    results = [out / sink.place for sink in SINKS.values()]
    opened = [open_images(word) for word in words]
    files = find_frames(opened, frame_suffixes() | VIDEO_SUFFIXES, results, tell_others=True)
    return [open_source(file, video_stream=video_stream) for file in files]


def tell_live(sources: list[Source]) -> None:
    """Say on stderr what was dropped of a live source, and how late its results were."""
    for source in sources:
        line = describe_live(source)
        if line:
            echo(f"live: {line}", err=True)


def describe_live(source: Source) -> str:
    """One line on how a live source does; "": it is none, or there is nothing to say yet."""
    from pinglow.io.live import LiveSource

    if not isinstance(source, LiveSource):
        return ""
    state = source.state
    if state.latency is None:
        return ""
    median, late = (f"{1000 * seconds:.0f}" for seconds in state.latency)
    back = f", opened again {state.reconnects} x" if state.reconnects else ""
    return (
        f"{state.dropped} of {state.received} frames dropped{back}; results {median} ms after a "
        f"frame came in the median, {late} ms for 95 %"
    )
