"""Panels of the frames of an evaluation in which most went wrong."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

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
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("[0-9]*-*-wrong.png"):
            old.unlink()
        places = {name: place for place, name in enumerate(frames.names)}
        names = self.rank()[:most]
        digits = max(2, len(str(len(names))))
        for number, name in enumerate(names, start=1):
            frame, truth = frames.pair(places[name])
            found = self._found[name]
            masks = {title: _unpack(found[title][1], truth.shape) for title in self._titles}
            wrong = -int(self._goodness(name)[1])
            content = io.BytesIO()
            draw_panels(frame, truth, masks, title=name).save(content, "PNG")
            plain = re.sub(r"[^\w.-]+", "_", name)[:100]
            path = folder / f"{number:0{digits}d}-{plain}-{wrong}-wrong.png"
            write_whole(path, content.getvalue(), durable=False)
        return len(names)


def _unpack(packed: bytes, shape: tuple[int, ...]) -> BoolArray:
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
