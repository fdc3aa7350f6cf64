"""Results files: how a method's results come about, are written and read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pinglow._version import __version__
from pinglow.errors import DataError
from pinglow.evaluation.boxes import ScoredBoxes
from pinglow.evaluation.pixels import ScoredFrame
from pinglow.evaluation.results import FORMAT, RESULTS, BoxFrameResult, Counts, FrameResult, Results
from pinglow.files import read_whole, write_whole
from pinglow.metrics import Protocol, Scorer

_LARGEST: Final = 2**28  # bytes of a file
_MOST_RUNS: Final = 2000  # of found pixels in a frame; with more, a map is noise


def digest_truth(frame_digest: str, truth: NDArray[Any]) -> str:
    """16 hexadecimal digits of a frame and what is true of it.

    Args:
        frame_digest: See `pinglow.data.digests.digest_frame`.
        truth: Its (H, W) mask, or its (n, 4) boxes.
    """
    packed = (np.packbits(truth) if truth.dtype == np.bool_ else truth).tobytes()
    return hashlib.sha256(f"{frame_digest} {truth.shape} ".encode() + packed).hexdigest()[:16]


def collect_results(
    scored: Iterable[ScoredFrame], how: tuple[Protocol, float], digests: Mapping[str, str]
) -> dict[str, Any]:
    """``frames`` and ``thresholds`` of `PixelResults` from the scores of single frames.

    Args:
        scored: By one protocol.
        how: That protocol, and the threshold.
        digests: Of each frame.
    """
    together = Scorer(*how)
    kept: dict[str, dict[str, Any]] = {}
    for each in scored:
        [scorer], [probability] = each.scorers, each.maps
        together.merge(scorer)
        kept[each.name] = {
            "digest": digests[each.name],
            "counts": scorer.images[0],
            "sizes": tuple(scorer.sizes.ravel().tolist()),
            "shape": probability.shape,
            "found": _find_runs(probability > how[1]),
        }
    thresholds, curve = together.trace()
    frames = {
        name: FrameResult(**content, curve=tuple(map(tuple, curve[:, number].tolist())))
        for number, (name, content) in enumerate(kept.items())
    }
    return {"frames": frames, "thresholds": thresholds}


def collect_box_results(
    scored: Iterable[ScoredBoxes], digests: Mapping[str, str]
) -> dict[str, Any]:
    """``frames`` of `BoxResults`.

    Args:
        scored: The boxes of each frame.
        digests: Of each frame.
    """
    return {
        "frames": {
            each.name: BoxFrameResult(
                digest=digests[each.name],
                boxes=tuple(
                    map(tuple, np.column_stack([*each.found.boxes.T, each.found.scores]).tolist())
                ),
                true=tuple(map(tuple, each.true.tolist())),
                shape=each.shape,
            )
            for each in scored
            for boxes in [np.reshape(each.found.boxes, (-1, 4))]
        }
    }


def _find_runs(mask: NDArray[np.bool_]) -> Counts | None:
    ends = np.flatnonzero(np.diff(mask.ravel(), prepend=False, append=False))
    if len(ends) > 2 * _MOST_RUNS:
        return None
    runs = ends.reshape(-1, 2)
    runs = np.column_stack([runs[:, 0], runs[:, 1] - runs[:, 0]])
    return tuple(runs.ravel().tolist())


def write_results(results: Results, path: Path) -> None:
    """Write a results file, whole or not at all."""
    text = json.dumps(results.model_dump(mode="json"), separators=(",", ":"))
    write_whole(path, text.encode() + b"\n")


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        DataError: It is none, is damaged, or is of another version of pinglow.
    """
    advice = "give a file that pinglow compare has written, or make it again"
    try:
        content = json.loads(read_whole(path, _LARGEST))
        written = content["format"]
        if isinstance(written, int) and written != FORMAT:
            raise DataError(
                f"{path} is of format {written}, this version of pinglow ({__version__}) reads "
                f"{FORMAT}: use the version that wrote it, {content.get('pinglow', 'unknown')}, "
                "or make it again"
            )
        return RESULTS[content.get("kind", "pixels")].model_validate(content)
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is no results file, or is damaged: {advice}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {advice}") from error
