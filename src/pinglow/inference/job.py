"""Predict a list of files: read, find, write; a broken frame is noted and the job goes on."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from pinglow.data.io import count_pages, read_frame
from pinglow.errors import FrameError
from pinglow.inference.sinks import FrameRecord, Sink
from pinglow.structures import Prediction

_LONGEST: Final = 200  # bytes of an output name; file systems take 255, and sinks add to it


@dataclass(frozen=True)
class JobSummary:
    """What a job did.

    Attributes:
        frames: Frames predicted; every page of a multi-page file counts.
        targets: Targets found in them.
        broken: File and reason of each frame that could not be read or predicted.
        seconds: Wall time, reading and writing included.
    """

    frames: int
    targets: int
    broken: tuple[tuple[Path, str], ...]
    seconds: float


def predict_frames(
    predict: Callable[[NDArray[Any]], Prediction],
    sources: Sequence[Path],
    sinks: Sequence[Sink],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> JobSummary:
    """Predict every page of every file and hand the results to the sinks.

    Args:
        predict: Maps (H, W) counts to a prediction of the same size.
        sources: The files, in the order in which they are read and written.
        sinks: Where results go; the caller opens and closes them.
        on_progress: Called after each frame with the number done, broken ones too, and the total.
    """
    start = time.perf_counter()
    frames = _list_frames(sources)
    predicted = targets = 0
    broken: list[tuple[Path, str]] = []
    for done, (source, page, name) in enumerate(frames, start=1):
        try:
            frame = read_frame(source, page=page)
            prediction = predict(frame)
        except FrameError as error:
            reason = str(error)
            broken.append((source, reason if str(source) in reason else f"{source}: {reason}"))
        else:
            record = FrameRecord(source, page, name, frame, prediction)
            for sink in sinks:
                sink.write(record)
            predicted += 1
            targets += len(prediction.targets)
        on_progress(done, len(frames))
    return JobSummary(predicted, targets, tuple(broken), time.perf_counter() - start)


def _list_frames(sources: Sequence[Path]) -> list[tuple[Path, int, str]]:
    """List (file, page, output name) of every frame.

    A name is the file's stem, where stems collide folder_stem, with _p and the page for a
    multi-page file, and -2, -3, ... should it still be taken. Names are compared without case,
    because a file system may not tell case apart.
    """
    stems = Counter(source.stem.casefold() for source in sources)
    taken: set[str] = set()
    frames = []
    for source in sources:
        stem = source.stem
        if stems[stem.casefold()] > 1:
            stem = f"{source.resolve().parent.name}_{stem}".lstrip("_")
        stem = stem.encode()[:_LONGEST].decode(errors="ignore")
        try:
            pages = count_pages(source)
        except FrameError:
            pages = 1  # reading it will say why
        digits = len(str(pages - 1))
        for page in range(pages):
            wanted = f"{stem}_p{page:0{digits}}" if pages > 1 else stem
            numbered = (f"{wanted}-{number}" for number in itertools.count(2))
            name = next(n for n in itertools.chain([wanted], numbered) if n.casefold() not in taken)
            taken.add(name.casefold())
            frames.append((source, page, name))
    return frames
