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
_JUMP: Final = 3.0  # spreads of the picture, behind the edge of such a region
_BLOCK: Final = 16  # rows in which lossy compression mixes a bar with the picture
_MOST_RINGING: Final = 12  # levels
_BLACK: Final = 3  # levels of 8 bits that lossy video makes of black
_RISE: Final = 0.25  # of the jump, by which a soft edge rises at least
_MOST_FADE: Final = 32  # pixels of a soft edge, or an eighth of the frame's shorter side
_MOST_LINES: Final = 8  # of telemetry, at either end
_FEW_PIXELS: Final = 2**14  # of the frame, on which the rest of it is measured


def hide_border(frame: NDArray[Any]) -> NDArray[Any]:
    """A frame in which what is no picture, along its edges, is NaN; the frame itself if all is.

    Letterbox bars, what stabilizing leaves at the corners, the outside of a round field stop, and
    rows or columns of telemetry would move the frame's normalization, and look like structure. Two
    kinds are told from picture:

    - a region of one value that holds a corner of the frame, up to half of it, whose other
      pixels jump where they meet it. A clipped sky does not: it fades out. Nor does a region with
      islands in it, which may be targets, unless it is rows in the outer eighth: text in a bar.
      In 8 bits 0 to 3 count as one value, black: lossy video has noise there. A soft edge of up to
      32 pixels, or an eighth of the frame's shorter side, belongs to it.
    - up to eight rows or columns along an edge of the frame, most of whose pixels lie far outside
      everything else in it. Frames of less than 32 rows or columns have none.

    The first time that a process hides something it says so.

    Args:
        frame: (H, W), any number type.

    Returns:
        (H, W): the frame, or a floating copy that keeps its counts.
    """
    hidden = _one_value_regions(frame)
    telemetry = _find_telemetry(frame, hidden)
    if hidden is None and telemetry is None:
        return frame
    copy = frame.astype(np.result_type(frame.dtype, np.float32))
    for part in (hidden, telemetry):
        if part is not None:
            copy[part] = np.nan
    share = 100 * float(np.isnan(copy).mean())
    warn_once(
        "border",
        f"a frame has a border that is no picture ({share:.3g} % of its pixels: one value from a "
        "corner to an edge, as bars and a clipped sky have, or lines of telemetry): nothing is "
        "looked for there, and it moves nothing",
    )
    return copy


def _one_value_regions(frame: NDArray[Any]) -> BoolArray | None:
    """(H, W) bool: regions of one value at the corners that are no picture; None: there are none.

    A region that cannot be one is mostly known by the few pixels at its corner.
    """
    found: BoolArray | None = None  # (2, H, W), without and with soft edges
    if frame.dtype == np.uint8:
        frame = np.where(frame <= _BLACK, np.uint8(0), frame)
    least = _JUMP * _spread_of_rest(frame, None)
    for flip in (slice(None), slice(None, None, -1)):
        for mirror in (slice(None), slice(None, None, -1)):
            if found is not None and found[0, flip, mirror][0, 0]:
                continue
            regions = _find_region(frame[flip, mirror], least)
            if regions is not None:
                found = np.zeros((2, *frame.shape), dtype=np.bool_) if found is None else found
                found[:, flip, mirror] |= regions
    return found[1] if found is not None and found[0].mean() <= _MOST_HIDDEN else None


def _find_region(view: NDArray[Any], least: float) -> BoolArray | None:
    """(2, H, W) bool: the region of the first pixel, without and with its soft edge; None: picture.

    It has the size of a border, jumps at its edge, and has no islands.
    """
    if not _may_be_none(view):
        return None
    region = _add_ringing(view, _grow(view == view[0, 0]), least)
    if not _LEAST_HIDDEN <= region.mean() <= _MOST_HIDDEN:
        return None
    fade, jump = _find_fade(view, region)
    wanted = least if fade is None else _JUMP * _spread_of_rest(view, fade)
    if jump <= wanted or _has_islands(region):
        return None
    return np.stack([region, region if fade is None else region | fade])


def _may_be_none(view: NDArray[Any]) -> bool:
    """Whether one value runs along an edge from the first pixel, and ends with a jump."""
    edges = view[0].astype(np.float64), view[:, 0].astype(np.float64)
    runs = [int(np.argmin(np.append(edge == edge[0], False))) for edge in edges]
    if max(runs) < min(_LEAST_RUN, max(view.shape)) or not np.isfinite(edges[0][0]):
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


def _spread_of_rest(frame: NDArray[Any], fade: BoolArray | None) -> float:
    """The spread of the counts that differ from those at the corners, never 0."""
    counts = _few(frame, fade)
    corners = frame[[0, 0, -1, -1], [0, -1, 0, -1]].astype(np.float64)
    rest = counts[~np.isin(counts, corners)]
    low, high = np.percentile(rest, [5, 95]) if rest.size else (0.0, 0.0)
    return max(float(high - low) / 3.29, 1e-30)


def _has_islands(region: BoolArray) -> bool:
    """Whether a region surrounds more than the picture."""
    parts, picture = _find_parts(region)  # the picture may have a border all around
    edges = parts[0], parts[-1], parts[:, 0], parts[:, -1]
    shown = {*np.concatenate(edges), picture} - {0}
    return len(shown) < int(parts.max())  # an island touches no edge


def _find_fade(view: NDArray[Any], region: BoolArray) -> tuple[BoolArray | None, float]:
    """A region's soft edge, (H, W), None: it has a hard one; and the jump behind it, in counts.

    A soft edge is rings around the region that rise from its value to a level, and stay there. What
    rises further is a clipped sky that fades out; what falls again is a wire.
    """
    value = float(view[0, 0])
    middle, high = np.percentile(np.abs(_few(view, region) - value), [50, 95])
    spread = (high - middle) / 1.645  # a soft edge is in the lower half
    widest = min(_MOST_FADE, min(view.shape) // 8)
    edge, ring = region, _rim(region)
    levels = [_jump(view, ring)]
    for number in range(widest + 1):
        inner = edge | ring
        ring = _rim(inner, diagonal=number % 2 == 1)  # by turns: nearly round
        levels.append(_jump(view, ring))
        if levels[-1] - levels[-2] <= max(spread / 4, levels[-1] / 64):
            break
        if 2 * widest * levels[-1] < number * middle:  # too slow to get to the picture's level
            return None, levels[1]
        edge = inner
    least = (1 - _RISE) * levels[-1]
    if number in (0, widest) or levels[0] >= least:
        return None, levels[1]
    outer = inner | ring
    behind = ndimage.binary_dilation(outer, iterations=4) & ~outer
    if _jump(view, behind) < least:
        return None, levels[1]
    soft = np.abs(view.astype(np.float64) - value) < levels[-1] - 4 * spread
    # Where the region ends in a tip, it goes on along the frame's edge; elsewhere that is picture.
    inside = slice(number + 1, -number - 1)
    soft[inside, inside] &= outer[inside, inside]
    edge = ndimage.binary_dilation(edge, np.ones((3, 3), np.bool_), widest, mask=soft)
    return edge & ~region, levels[-1]


def _jump(view: NDArray[Any], ring: BoolArray) -> float:
    """By how much three quarters of a ring's pixels differ from the first pixel; 0: it has none."""
    jump = np.abs(view[ring].astype(np.float64) - float(view[0, 0]))
    jump = jump[np.isfinite(jump)]
    return float(np.percentile(jump, 25)) if jump.size else 0.0


def _rim(region: BoolArray, diagonal: bool = False) -> BoolArray:
    """(H, W) bool: the pixels beside a region, and those diagonal to it."""
    near = region.copy()
    near[1:] |= region[:-1]
    near[:-1] |= region[1:]
    beside = near.copy() if diagonal else region
    near[:, 1:] |= beside[:, :-1]
    near[:, :-1] |= beside[:, 1:]
    return near & ~region


def _few(frame: NDArray[Any], hidden: BoolArray | None) -> NDArray[np.float64]:
    """Counts on an even grid of a frame, (N,), without hidden and non-finite ones; at least one."""
    stride = max(1, int(np.sqrt(frame.size / _FEW_PIXELS)))
    counts = frame[::stride, ::stride].astype(np.float64)
    known = np.isfinite(counts)
    if hidden is not None:
        known &= ~hidden[::stride, ::stride]
    return counts[known] if known.any() else np.zeros(1)


def _find_telemetry(frame: NDArray[Any], hidden: BoolArray | None) -> BoolArray | None:
    """(H, W) bool: rows and columns along the edges that are no picture; None: there are none."""
    if min(frame.shape) < 4 * _MOST_LINES:  # a target may cover most of a short line
        return None
    inner = (slice(_MOST_LINES, -_MOST_LINES),) * 2
    low, high = np.percentile(
        _few(frame[inner], None if hidden is None else hidden[inner]), [1, 99]
    )
    margin = 3 * max(high - low, 1.0 if np.issubdtype(frame.dtype, np.integer) else 0.0)
    limits = low - margin, high + margin
    turned = None if hidden is None else hidden.T
    rows, columns = _strange_rows(frame, hidden, limits), _strange_rows(frame.T, turned, limits)
    return rows[:, None] | columns if rows.any() or columns.any() else None


def _strange_rows(
    frame: NDArray[Any], hidden: BoolArray | None, limits: tuple[float, float]
) -> BoolArray:
    """(H,) bool: rows at the top and the bottom most of whose counts lie outside the limits."""
    strange = np.zeros(len(frame), dtype=np.bool_)
    ends = np.r_[0:_MOST_LINES, len(frame) - _MOST_LINES : len(frame)]
    lines = frame[ends].astype(np.float64)
    outside = (lines < limits[0]) | (lines > limits[1])
    shown = ~hidden[ends] if hidden is not None else np.ones_like(outside)
    far = (outside & shown).sum(axis=1) > 0.5 * shown.sum(axis=1)
    top, bottom = far[:_MOST_LINES], far[_MOST_LINES:][::-1]
    for part, side in ((top, strange), (bottom, strange[::-1])):
        if part.any() and not part.all():  # more than these rows are picture of another kind
            side[: int(np.flatnonzero(part)[-1]) + 1] = True
    return strange
