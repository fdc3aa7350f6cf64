"""Panels of the frames of an evaluation in which most went wrong."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from pinglow.data.folder import FrameFolder
from pinglow.evaluation.pixels import ScoredFrame
from pinglow.files import write_whole
from pinglow.metrics.report import ImageCounts
from pinglow.output.panels import draw_panels
from pinglow.structures import BoolArray

PROTOCOL: Final = "strict"
"""By which frames are put in order, and what panels show."""


class PanelCollector:
    """Keeps what models predicted while they are scored, and draws panels at the end.

    What is kept of a frame are some hundred bytes a model.
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[str, tuple[ImageCounts, bytes]]] = {}
        self._titles: list[str] = []

    def watch(self, title: str, scored: Iterable[ScoredFrame]) -> Iterator[ScoredFrame]:
        """Pass on the frames of a model, which are scored by `PROTOCOL` too, and note each."""
        self._titles.append(title)
        for each in scored:
            place = [scorer.protocol.name for scorer in each.scorers].index(PROTOCOL)
            scorer = each.scorers[place]
            predicted = each.maps[place] > scorer.threshold
            packed = zlib.compress(np.packbits(predicted).tobytes(), 1)
            self._found.setdefault(each.name, {})[title] = scorer.images[0], packed
            yield each

    @property
    def order(self) -> str:
        """Which frame comes first, in words."""
        return "the worst frame" if len(self._titles) < 2 else "where the models differ most"

    def rank(self) -> list[str]:
        """The frames that all models scored, the worst first.

        Of several models that is where their errors differ most, then where there are most: misses
        and false alarms count one each, and at last the IoU decides.
        """
        whole = [name for name, found in self._found.items() if len(found) == len(self._titles)]
        return sorted(whole, key=self._goodness)

    def _goodness(self, name: str) -> tuple[float, ...]:
        counts = [counts for counts, _ in self._found[name].values()]
        errors = [each.targets + each.components - 2 * each.matches for each in counts]
        overlap = sum(each.intersection for each in counts)
        union = sum(each.union for each in counts)
        return min(errors) - max(errors), -sum(errors), overlap / union if union else 1.0

    def write(self, folder: Path, frames: FrameFolder, most: int) -> int:
        """Draw the panels of the worst frames into a folder, the first as 01-NAME-2-wrong.png.

        Those of an earlier evaluation are removed.

        Args:
            folder: Is made if need be.
            frames: What was scored.
            most: Panels.

        Returns:
            How many were drawn.

        Raises:
            OSError: The folder cannot be written to.
        """
        places = {name: place for place, name in enumerate(frames.names)}

        def draw(name: str) -> Image.Image:
            frame, truth = frames.pair(places[name])
            found = self._found[name]
            masks = {title: _unpack(found[title][1], truth.shape) for title in self._titles}
            return draw_panels(frame, truth, masks, title=name)

        worst = self.rank()[:most]
        endings = (f"-{-int(self._goodness(name)[1])}-wrong" for name in worst)
        return write_panels(folder, zip(worst, endings, strict=True), draw, "[0-9]*-*-wrong.png")


def write_panels(
    folder: Path,
    frames: Iterable[tuple[str, str]],
    draw: Callable[[str], Image.Image],
    earlier: str,
) -> int:
    """Write a picture for each frame, the first as 01-NAME.png, and remove those of another time.

    Args:
        folder: Is made if need be.
        frames: Names, and what their files' names end in.
        draw: Makes a frame's picture.
        earlier: Pattern of the files that are removed.

    Returns:
        How many were written.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(earlier):
        old.unlink()
    frames = list(frames)
    digits = max(2, len(str(len(frames))))
    for number, (name, ending) in enumerate(frames, start=1):
        content = io.BytesIO()
        draw(name).save(content, "PNG")
        path = folder / f"{number:0{digits}d}-{plain_name(name)}{ending}.png"
        write_whole(path, content.getvalue(), durable=False)
    return len(frames)


def plain_name(name: str) -> str:
    """A name as the part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")[:100] or "_"


def _unpack(packed: bytes, shape: tuple[int, ...]) -> BoolArray:
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
