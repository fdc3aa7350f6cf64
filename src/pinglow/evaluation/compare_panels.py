"""Pictures of the frames in which compared methods differ most."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from PIL.Image import Image

from pinglow.data.boxes import BoxFolder, fill_boxes
from pinglow.data.digests import digest_frame
from pinglow.data.folder import FrameFolder
from pinglow.errors import DataError
from pinglow.evaluation.compare import Comparison, rank_frames
from pinglow.evaluation.panels import write_panels
from pinglow.evaluation.pixels import view
from pinglow.evaluation.results import BoxResults
from pinglow.evaluation.results_file import digest_truth
from pinglow.metrics import PROTOCOLS
from pinglow.output.panels import draw_panels

_PANELS: Final = 12  # frames that are drawn, at most


def write_differences(comparison: Comparison, folder: Path, data: Path | None) -> int:
    """Draw the frames in which methods differ most, the first as 01-NAME.png; say how many.

    Args:
        comparison: The methods' results, all of one list.
        folder: Gets the pictures; those of an earlier comparison go.
        data: Has the frames; None: the folder that the results name.

    Raises:
        DataError: The data are not there, or are others now.
    """
    first = comparison.first.results
    where = data or first.data, first.list
    frames = (
        BoxFolder(*where, first.source) if isinstance(first, BoxResults) else FrameFolder(*where)
    )
    places = {name: place for place, name in enumerate(frames.names)}

    def find(name: str) -> dict[str, Any]:
        """What each method predicts in a frame, as masks."""
        return {row.name: row.results.mask(name) for row in comparison.rows}

    def draw(name: str) -> Image:
        if name not in places:
            raise DataError(f"{frames.folder} has no frame {name} in list {first.list}")
        truth: NDArray[Any]
        if isinstance(frames, BoxFolder):
            frame, truth = frames.boxed(places[name])
            mask = fill_boxes(truth, frame.shape)
        else:
            frame, truth = frames.pair(places[name])
            mask = truth
        if digest_truth(digest_frame(frame), truth) != first.frames[name].digest:
            raise DataError(f"frame {name} of {frames.folder} is not the one that was scored")
        shown, mask = view(frame, mask, PROTOCOLS[first.protocol])
        return draw_panels(shown, mask, find(name), title=name)

    kept = (n for n in rank_frames(comparison) if all(m is not None for m in find(n).values()))
    chosen = islice(kept, _PANELS)
    return write_panels(folder, ((name, "") for name in chosen), draw, "[0-9][0-9]-*.png")
