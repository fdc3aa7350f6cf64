"""Near-duplicates: frames of one sequence, or one background with another target.

A published split often puts one frame of a sequence into training and the next into the test set.
Frames are compared as small maps of their middle-sized detail, so that neither bit depth, nor
brightness, nor contrast, nor the target itself matters, and a small camera shift hardly does.
Windows of one larger picture that overlap by half are not found, nor are mirrored frames.
Source: ours; the constants were set by eye on pairs of SIRST, IRSTD-1k and NUDT-SIRST.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

GRID = 64
"""A frame of any size becomes GRID x GRID cells, each the mean of its pixels."""
SHIFT = 2
"""Frames may be shifted against each other by this many cells (1/32 of the frame) each way."""
THRESHOLD = 0.4
"""Smallest correlation of two near-duplicates. Nearly all unrelated frames stay within +-0.2,
black skies over a treeline reach 0.35, single pairs 0.55; true pairs were seen down to 0.41."""

# Removing structure wider than a few cells removes what unrelated frames share: sky gradients,
# a horizon's brightness, the vignetting of one camera. Its rest in the corners goes with the rim.
_HIGH_PASS_SIGMA = 2.0
_RIM = 4
_CLIP = 2.5
_BLOCK = 256


def group_near_duplicates(frames: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    """Number the groups of near-duplicate frames.

    Groups are the connected components of "i is a near-duplicate of j", so a whole sequence falls
    into one group even where its first frame no longer resembles its last.

    Args:
        frames: N frames of shape (H, W), any size and number type; read one at a time.

    Returns:
        (N,) int64: the group of each frame, counted from 0 in order of first appearance.
    """
    maps = [_detail(frame) for frame in frames]
    groups = np.arange(len(maps))
    if not maps:
        return groups
    details = np.stack(maps)
    still = _window(details, 0, 0)
    # Moving i by (dy, dx) against j is moving j by (-dy, -dx): half of the shifts covers all.
    for dy, dx in _half_plane(SHIFT):
        moved = _window(details, dy, dx)
        for start in range(0, len(details), _BLOCK):
            rows, columns = np.nonzero(still[start : start + _BLOCK] @ moved.T > THRESHOLD)
            groups = join_groups(groups, rows + start, columns)
    # Joining keeps the order of first appearance and leaves gaps.
    return np.asarray(np.unique(groups, return_inverse=True)[1], dtype=np.int64)


def join_groups(
    groups: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Groups (N,) after those of each pair of members are made one.

    Pairs are joined as they are found, and those that are together already are dropped: of a
    sequence nearly every pair is similar, and all of them at once would take memory of N squared.
    """
    ends = groups[first], groups[second]
    apart = ends[0] != ends[1]
    if not apart.any():
        return groups
    edges = ends[0][apart], ends[1][apart]
    graph = sparse.coo_array((np.ones(len(edges[0])), edges), (len(groups), len(groups)))
    _, joined = sparse.csgraph.connected_components(graph, directed=False)
    return np.asarray(joined[groups], dtype=np.int64)


def _half_plane(reach: int) -> list[tuple[int, int]]:
    """One of each two opposite shifts within the reach, and (0, 0)."""
    around = range(-reach, reach + 1)
    return [(dy, dx) for dy in around for dx in around if (dy, dx) >= (0, 0)]


def _detail(frame: NDArray[Any]) -> NDArray[np.float32]:
    """A frame's middle-sized detail: (GRID, GRID) float32, brightness and gradients removed."""
    cells = _area_mean(frame)
    return np.asarray(cells - ndimage.gaussian_filter(cells, _HIGH_PASS_SIGMA), dtype=np.float32)


def _area_mean(frame: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over each cell of a GRID x GRID grid; a frame smaller than that repeats pixels."""
    rows = np.linspace(0, frame.shape[0], GRID + 1).astype(np.int64)
    columns = np.linspace(0, frame.shape[1], GRID + 1).astype(np.int64)
    finite = np.nan_to_num(frame.astype(np.float64), posinf=0, neginf=0)
    sums = np.add.reduceat(finite, rows[:-1], axis=0)
    sums = np.add.reduceat(sums, columns[:-1], axis=1)
    areas = np.outer(np.diff(rows).clip(1), np.diff(columns).clip(1))
    return np.asarray(sums / areas)


def _window(details: NDArray[np.float32], dy: int, dx: int) -> NDArray[np.float32]:
    """Cut shifted windows, (N, cells) float32, each with mean 0 and norm 1 (or 0 if featureless).

    Clipping keeps a bright target, or one hot edge, from deciding alone.
    """
    side = GRID - 2 * _RIM
    cut = details[:, _RIM + dy : _RIM + dy + side, _RIM + dx : _RIM + dx + side]
    flat = cut.reshape(len(details), -1)
    # The median is 0 where most of the sky is one value; then the deviation sets the scale.
    spread = 1.4826 * np.median(np.abs(flat), axis=1, keepdims=True)
    spread = np.where(spread > 0, spread, flat.std(axis=1, keepdims=True))
    flat = flat.clip(-_CLIP * spread, _CLIP * spread)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 0)
    return np.asarray(unit, dtype=np.float32)
