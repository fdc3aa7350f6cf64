"""Which pixels along a frame's edges are no picture. Ours; docs/decisions/normalization.md."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pinglow.structures import BoolArray
from pinglow.terminal import warn_once

_LEAST_RUN: Final = 8  # pixels along an edge, from the corner, that a region of one value has
_LEAST_HIDDEN: Final = 0.001  # of the frame; a smaller region moves nothing
_MOST_HIDDEN: Final = 0.5  # of the frame
_JUMP: Final = 3.0  # spreads of the picture, at the rim of such a region
_BLOCK: Final = 16  # rows in which lossy compression mixes a bar with the picture
_MOST_RINGING: Final = 12  # levels
_BLACK: Final = 3  # levels of 8 bits that lossy video makes of black
_MOST_ROWS: Final = 8  # of telemetry, at either end
_FEW_PIXELS: Final = 2**14  # of the frame, on which the rest of it is measured


def hide_border(frame: NDArray[Any]) -> NDArray[Any]:
    """A frame in which what is no picture, along its edges, is NaN; the frame itself if all is.

    Letterbox bars, what stabilizing leaves at the corners, the outside of a round field stop, and
    rows of telemetry would move the frame's normalization, and look like structure. Two kinds are
    told from picture:

    - a region of one value that holds a corner of the frame, up to half of it, whose other
      pixels jump where they meet it. A clipped sky does not: it fades out. Nor does a region with
      islands in it, which may be targets, unless it is rows in the outer eighth: text in a bar.
      In 8 bits 0 to 3 count as one value, black: lossy video has noise there.
    - up to eight rows at the top or at the bottom, most of whose pixels lie far outside
      everything else in the frame.

    The first time that a process hides something it says so.

    Args:
        frame: (H, W), any number type.

    Returns:
        (H, W): the frame, or a floating copy that keeps its counts.
    """
    hidden = _one_value_regions(frame)
    rows = _strange_rows(frame, hidden)
    if hidden is None and not rows.any():
        return frame
    copy = frame.astype(np.result_type(frame.dtype, np.float32))
    if hidden is not None:
        copy[hidden] = np.nan
    copy[rows] = np.nan
    share = 100 * float(np.isnan(copy).mean())
    warn_once(
        "border",
        f"a frame has a border that is no picture ({share:.3g} % of its pixels: one value from a "
        "corner to a hard edge, as bars and a clipped sky have, or rows of telemetry): nothing is "
        "looked for there, and it moves nothing",
    )
    return copy


def _one_value_regions(frame: NDArray[Any]) -> BoolArray | None:
    """(H, W) bool: regions of one value at the corners that are no picture; None: there are none.

    A region that cannot be one is mostly known by the few pixels at its corner.
    """
    found: BoolArray | None = None
    if frame.dtype == np.uint8:
        frame = np.where(frame <= _BLACK, np.uint8(0), frame)
    jump = _JUMP * max(_spread_of_rest(frame), 1e-30)
    for flip in (slice(None), slice(None, None, -1)):
        for mirror in (slice(None), slice(None, None, -1)):
            view = frame[flip, mirror]
            if found is not None and found[flip, mirror][0, 0]:
                continue
            if not _may_be_none(view):
                continue
            region = _add_ringing(view, _grow(view == view[0, 0]), jump)
            if _is_no_picture(view, region, jump):
                found = np.zeros(frame.shape, dtype=np.bool_) if found is None else found
                found[flip, mirror] |= region
    return found if found is not None and found.mean() <= _MOST_HIDDEN else None


def _may_be_none(view: NDArray[Any]) -> bool:
    """Whether one value runs along an edge from the first pixel, and ends with a jump."""
    edges = view[0].astype(np.float64), view[:, 0].astype(np.float64)
    runs = [int(np.argmin(np.append(edge == edge[0], False))) for edge in edges]
    if max(runs) < min(_LEAST_RUN, *view.shape):
        return False
    with np.errstate(invalid="ignore"):  # of infinite counts
        steps = np.abs(np.diff(view[:: max(1, len(view) // 32)].astype(np.float64), axis=1))
        ends = [  # behind what compression left there, or a frame that was turned
            abs(edge[run : run + _BLOCK + 2] - edge[0]).max()
            for edge, run in zip(edges, runs, strict=True)
            if run < len(edge)
        ]
    steps = steps[(steps > 0) & np.isfinite(steps)]
    noise = float(np.median(steps)) if steps.size else 0.0
    return all(end > 2 * noise for end in ends)


def _grow(same: BoolArray) -> BoolArray:
    """The region of the first pixel, with islands in whole rows that end in the outer eighth."""
    labels, _ = ndimage.label(same)
    region = np.asarray(labels == labels[0, 0])
    if region.all():
        return region
    parts, picture = _find_parts(region)
    eighth = max(1, len(region) // 8)
    for rows, there in ((region[:eighth], parts), (region[::-1][:eighth], parts[::-1])):
        mostly = rows[:, 0] & rows[:, -1] & (rows.mean(axis=1) >= 0.5)
        bar = int(np.argmin(np.append(mostly, False)))
        if bar < eighth:  # a longer one may be sky, with targets in it
            rows[:bar] |= there[:bar] != picture
    return region


def _add_ringing(view: NDArray[Any], region: BoolArray, jump: float) -> BoolArray:
    """The same with the rows behind a bar in which lossy compression left a little."""
    if view.dtype != np.uint8:
        return region
    little = np.abs(view.astype(np.int16) - int(view[0, 0])) <= np.clip(jump / 4, 1, _MOST_RINGING)
    for turned, near in ((region, little), (region.T, little.T)):
        for rows, likely in ((turned, near), (turned[::-1], near[::-1])):
            bar = int(np.argmin(np.append(rows.all(axis=1), False)))
            if _BLOCK // 2 <= bar < len(rows):
                behind = likely[bar : bar + _BLOCK].all(axis=1)
                rows[bar : bar + int(np.argmin(np.append(behind, False)))] = True
    return region


def _find_parts(region: BoolArray) -> tuple[NDArray[Any], int]:
    """What a region leaves, numbered by what hangs together, and the largest one's number."""
    parts, _ = ndimage.label(~region, np.ones((3, 3)))
    return parts, int(np.bincount(parts[~region]).argmax())


def _spread_of_rest(frame: NDArray[Any]) -> float:
    """The spread of the counts that differ from those at the corners."""
    counts = _few(frame, None)
    corners = frame[[0, 0, -1, -1], [0, -1, 0, -1]].astype(np.float64)
    rest = counts[~np.isin(counts, corners)]
    low, high = np.percentile(rest, [5, 95]) if rest.size else (0.0, 0.0)
    return float(high - low) / 3.29


def _is_no_picture(view: NDArray[Any], region: BoolArray, least: float) -> bool:
    """Whether a region has the size of a border, jumps at its rim, and has no islands."""
    if not _LEAST_HIDDEN <= region.mean() <= _MOST_HIDDEN:
        return False
    beside = _rim(region)
    behind = _rim(region | beside)  # a frame that was turned fades for a pixel
    jump = np.abs(view[behind if behind.any() else beside].astype(np.float64) - float(view[0, 0]))
    jump = jump[np.isfinite(jump)]
    if not jump.size or np.percentile(jump, 25) <= least:
        return False
    parts, picture = _find_parts(region)  # the picture may have a border all around
    edges = parts[0], parts[-1], parts[:, 0], parts[:, -1]
    shown = {*np.concatenate(edges), picture} - {0}
    return len(shown) == int(parts.max())  # an island touches no edge


def _rim(region: BoolArray) -> BoolArray:
    """(H, W) bool: the pixels beside a region."""
    near = np.zeros_like(region)
    near[1:] |= region[:-1]
    near[:-1] |= region[1:]
    near[:, 1:] |= region[:, :-1]
    near[:, :-1] |= region[:, 1:]
    return near & ~region


def _few(frame: NDArray[Any], hidden: BoolArray | None) -> NDArray[np.float64]:
    """Counts on an even grid of a frame, (N,), without hidden and non-finite ones; at least one."""
    stride = max(1, int(np.sqrt(frame.size / _FEW_PIXELS)))
    counts = frame[::stride, ::stride].astype(np.float64)
    known = np.isfinite(counts)
    if hidden is not None:
        known &= ~hidden[::stride, ::stride]
    return counts[known] if known.any() else np.zeros(1)


def _strange_rows(frame: NDArray[Any], hidden: BoolArray | None) -> BoolArray:
    """(H,) bool: rows at the top and the bottom that are no picture."""
    strange = np.zeros(len(frame), dtype=np.bool_)
    if len(frame) < 4 * _MOST_ROWS:
        return strange
    inner = slice(_MOST_ROWS, -_MOST_ROWS)
    low, high = np.percentile(
        _few(frame[inner], None if hidden is None else hidden[inner]), [1, 99]
    )
    margin = 3 * max(high - low, 1.0 if np.issubdtype(frame.dtype, np.integer) else 0.0)
    ends = np.r_[0:_MOST_ROWS, len(frame) - _MOST_ROWS : len(frame)]
    lines = frame[ends].astype(np.float64)
    outside = (lines < low - margin) | (lines > high + margin)
    shown = ~hidden[ends] if hidden is not None else np.ones_like(outside)
    far = (outside & shown).sum(axis=1) > 0.5 * shown.sum(axis=1)
    top, bottom = far[:_MOST_ROWS], far[_MOST_ROWS:][::-1]
    for part, side in ((top, strange), (bottom, strange[::-1])):
        if part.any() and not part.all():  # more than these rows are picture of another kind
            side[: int(np.flatnonzero(part)[-1]) + 1] = True
    return strange
