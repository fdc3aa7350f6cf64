"""Windows of one larger picture: frames that overlap, found by correlation over all shifts.

A frame becomes cells of a size in pixels that is the same for all frames, each cell the mean of its
pixels; structure wider than a few cells is removed, and what remains is brought to one contrast all
over the frame. Two frames are correlated at every shift by which they overlap enough: first all
pairs, coarsely, by products of their Fourier transforms; then pairs that stand out, finely, divided
by the energy that each has in the overlap.

Source: ours; the thresholds were measured on SIRST, IRSTD-1k and windows cut from their frames, see
docs/guides/labels.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Map = NDArray[np.float32]

THRESHOLD: Final = 0.6
"""Smallest correlation of the overlap of two windows."""
SHARE: Final = 0.2
"""Smallest overlap that is looked at, as a share of the smaller frame."""

_COARSE: Final = 32  # cells on the long side of a usual frame, for the first look
_FINE: Final = 64
_MOST: Final = 1.5  # times as many cells of a larger frame are looked at, from its middle
_SIGMA: Final = 2.0  # cells; wider structure is removed, as in `pinglow.data.duplicates`
_CLIP: Final = 2.5
_RIM: Final = 2  # cells without a full surrounding
_STANDOUT: Final = 5.0  # spreads of a pair's coarse correlations that its best stands out by
_BATCH: Final = 128


def find_overlaps(
    frames: Callable[[], Iterable[NDArray[Any]]], on_pair: Callable[[int, int], object]
) -> None:
    """Find each two frames that are windows of one larger picture.

    A thousand frames are half a million pairs, which take about a minute.

    Args:
        frames: Gives N frames of shape (H, W), one at a time; is called twice.
        on_pair: Called with the numbers of two frames that overlap.
    """
    sizes = [max(frame.shape) for frame in frames()]
    if len(sizes) < 2:
        return
    side = float(np.median(sizes))
    fine = [_cells(frame, max(side / _FINE, 1.0)) for frame in frames()]
    coarse = [_flatten(_halve(cells)) for cells in fine]
    fine = [_flatten(cells) for cells in fine]
    for first, seconds in _candidates(coarse):
        for second in seconds:
            if correlate(fine[first], fine[second]) > THRESHOLD:
                on_pair(first, second)


def _candidates(maps: list[Map]) -> Iterable[tuple[int, list[int]]]:
    """For each frame, the later ones whose best coarse correlation stands out."""
    side = fft.next_fast_len(2 * max(max(each.shape) for each in maps), real=True)
    spectra = np.stack([fft.rfft2(each, (side, side)) for each in maps])
    weights: dict[Any, Map] = {}
    for first in range(len(maps) - 1):
        found = []
        for start in range(first + 1, len(maps), _BATCH):
            others = range(start, min(start + _BATCH, len(maps)))
            products = spectra[first] * spectra[others.start : others.stop].conj()
            moved = fft.irfft2(products, (side, side))
            for place, other in enumerate(others):
                shapes = maps[first].shape, maps[other].shape
                if shapes not in weights:
                    weights[shapes] = _overlap_weights(*shapes, side)
                # Sums over an overlap of n cells spread as the root of n.
                stands = float((moved[place] * weights[shapes]).max())
                if stands > _STANDOUT:
                    found.append(other)
        yield first, found


def _overlap_weights(first: tuple[int, ...], second: tuple[int, ...], side: int) -> Map:
    """(side, side) 1 / sqrt(cells in common) at each cyclic shift, 0 where they are too few."""
    common = np.outer(*(_spans(a, b, side) for a, b in zip(first, second, strict=True)))
    least = SHARE * min(first[0] * first[1], second[0] * second[1])
    weights = np.where(common >= max(least, 1), 1 / np.sqrt(common.clip(1)), 0)
    return np.asarray(weights, dtype=np.float32)


def _spans(first: int, second: int, side: int) -> NDArray[np.int64]:
    """Cells that two stretches have in common when the second is moved by 0, 1, ..., -1."""
    moved = fft.fftfreq(side, 1 / side).round().astype(np.int64)
    return np.clip(np.minimum(first, second + moved) - np.maximum(0, moved), 0, None)


def correlate(first: Map, second: Map) -> float:
    """Largest normalized correlation of two maps over all shifts with enough in common.

    Args:
        first: (h, w) from `_flatten`.
        second: The same, of any size.
    """
    shape = tuple(
        fft.next_fast_len(a + b, real=True) for a, b in zip(first.shape, second.shape, strict=True)
    )

    def product(one: Map, other: Map) -> Map:
        spectrum = fft.rfft2(one, shape) * fft.rfft2(other, shape).conj()
        return np.asarray(fft.irfft2(spectrum, shape), dtype=np.float32)

    energy = product(first**2, np.ones_like(second)) * product(np.ones_like(first), second**2)
    common = np.outer(
        *(_spans(a, b, side) for a, b, side in zip(first.shape, second.shape, shape, strict=True))
    )
    enough = common >= max(SHARE * min(first.size, second.size), 1)
    # A nearly empty overlap would divide by nearly nothing.
    least = (0.1 * common) ** 2
    scores = product(first, second) / np.sqrt(np.maximum(energy, least).clip(1e-6))
    return float(scores[enough].max(initial=0))


def _cells(frame: NDArray[Any], size: float) -> NDArray[np.float64]:
    """Mean over each cell of so many pixels, of the middle of a frame that is far larger."""
    most = int(_MOST * _FINE)
    edges = []
    for side in frame.shape:
        count = min(max(int(side / size), 1), most)
        start = (side - count * size) / 2 if count == most else 0.0
        edges.append((start + np.arange(count + 1) * size).astype(np.int64))
    rows, columns = edges
    values = np.nan_to_num(
        frame[rows[0] : rows[-1], columns[0] : columns[-1]].astype(np.float64), posinf=0, neginf=0
    )
    sums = np.add.reduceat(values, rows[:-1] - rows[0], axis=0)
    sums = np.add.reduceat(sums, columns[:-1] - columns[0], axis=1)
    return np.asarray(sums / np.outer(np.diff(rows), np.diff(columns)))


def _halve(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = (side // 2 * 2 for side in cells.shape)
    if not height or not width:
        return cells
    part = cells[:height, :width].reshape(height // 2, 2, width // 2, 2)
    return np.asarray(part.mean(axis=(1, 3)))


def _flatten(cells: NDArray[np.float64]) -> Map:
    """A map's middle-sized detail at one contrast: mean 0, spread 1, no cell beyond the clip."""
    detail = cells - ndimage.gaussian_filter(cells, _SIGMA)
    if min(detail.shape) > 4 * _RIM:
        detail = detail[_RIM:-_RIM, _RIM:-_RIM]
    spread = 1.4826 * float(np.median(np.abs(detail)))
    spread = spread or float(detail.std())
    if spread == 0:
        return np.zeros(detail.shape, dtype=np.float32)
    detail = (detail / spread).clip(-_CLIP, _CLIP)
    detail -= detail.mean()
    return np.asarray(detail / max(float(detail.std()), 1e-12), dtype=np.float32)
