"""Windows of one larger picture: frames that overlap, found by correlation over all shifts.

A frame becomes cells of a size in pixels that is the same for all frames, each cell the mean of its
pixels; structure wider than a few cells is removed, and what remains is brought to one contrast all
over the frame. Two frames are compared at every shift by which they overlap enough. First all pairs
are, by products of their Fourier transforms with most of the spectrum's slope taken out, which
leaves a sharp peak where two pictures are one and none where two horizons lie on each other. Pairs
with such a peak are then compared finely, divided by the energy that each has in the overlap.

Source: ours; the thresholds were measured on SIRST, IRSTD-1k, NUDT-SIRST and windows cut from their
frames, see docs/guides/labels.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Map = NDArray[np.float32]

THRESHOLD: Final = 5.0
"""Smallest product of the correlation of an overlap and of how far it stands out among shifts."""
SHARE: Final = 0.2
"""Smallest overlap that is looked at, as a share of the smaller frame."""

_COARSE: Final = 48  # cells on the long side of a usual frame, and of the middle of a larger one
_FINE: Final = 64
_SIGMA: Final = 2.0  # cells; wider structure is removed, as in `pinglow.data.duplicates`
_CLIP: Final = 2.5
_RIM: Final = 2  # cells without a full surrounding
_WHITER: Final = 0.75  # power of its size that each part of a spectrum is divided by
_LEAST: Final = 0.5  # correlation
_PEAK: Final = 7.0  # times the root mean square over all shifts, of a pair's best
_BESIDE: Final = 3  # cells around a peak that belong to it
_BATCH: Final = 128


def find_overlaps(
    frames: Iterable[NDArray[Any]], side: float, on_frame: Callable[[], object] = lambda: None
) -> Iterator[tuple[int, int]]:
    """Each two frames that are windows of one larger picture, by their numbers.

    A thousand frames are half a million pairs, which take about a minute.

    Args:
        frames: N frames of shape (H, W), one at a time.
        side: The long side of a usual frame, in pixels.
        on_frame: Called when a frame has been compared with all later ones.
    """
    coarse, fine = [], []
    for frame in frames:
        coarse.append(flatten(frame, side, _COARSE))
        fine.append(flatten(frame, side, _FINE))
    for first, seconds in _candidates(coarse):
        for second in seconds:
            correlation, peak = correlate(fine[first], fine[second])
            if correlation > _LEAST and correlation * peak > THRESHOLD:
                yield first, second
        on_frame()


def _candidates(maps: list[Map]) -> Iterator[tuple[int, list[int]]]:
    """For each frame, the later ones with a peak of the correlation that stands out."""
    if not maps:
        return
    side = fft.next_fast_len(2 * max(max(each.shape) for each in maps), real=True)
    spectra = np.stack([_whiten(fft.rfft2(each, (side, side))) for each in maps])
    weights: dict[Any, Map] = {}
    for first in range(len(maps)):
        found = []
        for start in range(first + 1, len(maps), _BATCH):
            products = spectra[start : start + _BATCH].conj() * spectra[first]
            moved = fft.irfft2(products, (side, side), overwrite_x=True)
            for other, scores in enumerate(moved, start=start):
                shapes = maps[first].shape, maps[other].shape
                if shapes not in weights:
                    weights[shapes] = _overlap_weights(*shapes, side)
                scores *= weights[shapes]
                spread = np.sqrt(np.vdot(scores, scores) / np.count_nonzero(weights[shapes]))
                if scores.max() > _PEAK * spread > 0:
                    found.append(other)
        yield first, found


def _whiten(spectrum: NDArray[np.complex64]) -> NDArray[np.complex64]:
    size = np.abs(spectrum)
    return np.asarray(spectrum / np.maximum(size, 1e-6) ** _WHITER, dtype=np.complex64)


def _overlap_weights(first: tuple[int, ...], second: tuple[int, ...], side: int) -> Map:
    """(side, side) 1 / sqrt(cells in common) at each cyclic shift, 0 where they are too few."""
    common = np.outer(*(_spans(a, b, side) for a, b in zip(first, second, strict=True)))
    least = SHARE * min(first[0] * first[1], second[0] * second[1])
    weights = np.where(common >= max(least, 1), 1 / np.sqrt(common.clip(1)), 0)
    return np.asarray(weights, dtype=np.float32)


def _spans(first: int, second: int, side: int) -> NDArray[np.int64]:
    """Cells that two stretches have in common when the second is moved by 0, 1, ..., -1."""
    moved = fft.fftfreq(side, 1 / side).round().astype(np.int64)
    common = np.minimum(first, second + moved) - np.maximum(0, moved)
    return np.asarray(common.clip(0))


def correlate(first: Map, second: Map) -> tuple[float, float]:
    """Largest normalized correlation of two maps over all shifts with enough in common.

    Args:
        first: (h, w) from `flatten`.
        second: The same, of any size.

    Returns:
        The correlation, in [-1, 1], and how many times the root mean square of all others it is.
    """
    sides = [
        fft.next_fast_len(a + b, real=True) for a, b in zip(first.shape, second.shape, strict=True)
    ]

    def product(one: Map, other: Map) -> Map:
        spectrum = fft.rfft2(one, sides) * fft.rfft2(other, sides).conj()
        return np.asarray(fft.irfft2(spectrum, sides), dtype=np.float32)

    energy = product(first**2, np.ones_like(second)) * product(np.ones_like(first), second**2)
    common = np.outer(*map(_spans, first.shape, second.shape, sides))
    enough = common >= max(SHARE * min(first.size, second.size), 1)
    # A nearly empty overlap would divide by nearly nothing.
    least = (0.1 * common) ** 2
    scores = product(first, second) / np.sqrt(np.maximum(energy, least).clip(1e-6))
    best = np.unravel_index(np.where(enough, scores, -1).argmax(), scores.shape)
    around = np.arange(-_BESIDE, _BESIDE + 1)
    rows, columns = ((place + around) % side for place, side in zip(best, sides, strict=True))
    others = enough.copy()
    others[np.ix_(rows, columns)] = False
    spread = float(np.sqrt((scores[others] ** 2).mean())) if others.any() else 1.0
    return float(scores[best]), float(scores[best] / max(spread, 1e-6))


def _cells(frame: NDArray[Any], size: float, most: int) -> NDArray[np.float64]:
    """Mean over each cell of so many pixels, of the middle of a frame that is far larger."""
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


def flatten(frame: NDArray[Any], side: float, cells: int) -> Map:
    """A frame's middle-sized detail at one contrast: mean 0, spread 1, no cell beyond the clip.

    Args:
        frame: (H, W) counts.
        side: The long side of a usual frame, in pixels.
        cells: How many cells that side has.
    """
    cells_of = _cells(frame, max(side / cells, 1.0), cells)
    detail = cells_of - ndimage.gaussian_filter(cells_of, _SIGMA)
    if min(detail.shape) > 4 * _RIM:
        detail = detail[_RIM:-_RIM, _RIM:-_RIM]
    spread = 1.4826 * float(np.median(np.abs(detail)))
    spread = spread or float(detail.std())
    if spread == 0:
        return np.zeros(detail.shape, dtype=np.float32)
    detail = (detail / spread).clip(-_CLIP, _CLIP)
    detail -= detail.mean()
    return np.asarray(detail / max(float(detail.std()), 1e-12), dtype=np.float32)
