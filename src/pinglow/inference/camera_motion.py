"""How far the camera has moved between two frames: phase correlation, gated by its peak.

Source: Kuglin and Hines, "The phase correlation image alignment method", 1975. Ours: the gates. So
that what moves in the picture is not taken for the camera, targets are taken out first, and several
parts of the picture must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from pinglow.structures import FloatArray, Target

_SIDE: Final = 320  # the long side at which frames are compared, at most, px
_SMALLEST: Final = 32  # px; less has too little to tell
_BLUR: Final = 0.8  # px there; noise and the sensor's fixed pattern are finer
_PEAK: Final = 0.08  # of 1, the height where all of two frames fits
_CLEAR: Final = 1.5  # times the next highest peak
_FARTHEST: Final = 0.25  # of a side; farther, too little of the two frames is the same
_STILL: Final = 0.5  # px of the frame; less is not told from a camera that stands
_AROUND: Final = 3  # px around a target that are taken out with it

_PARTS: Final = 4  # on each side of the picture
_AGREE: Final = 4  # of the parts must differ less by the shift
_BETTER: Final = 0.95  # of the difference without it, that is
_GAIN: Final = (
    3.0  # times what other parts differ more by it; a flat sky differs by next to nothing
)

_Spectrum = NDArray[np.complex64]


@dataclass(frozen=True, eq=False)
class _Look:
    """A frame at the size at which frames are compared.

    Attributes:
        shape: (H, W) of the frame.
        image: (h, w) means of blocks.
        spectrum: Of the image, windowed.
    """

    shape: tuple[int, ...]
    image: FloatArray
    spectrum: _Spectrum


class CameraMotion:
    """Tells how far the picture has moved since the frame before.

    It sees shifts: a camera that turns about its axis or zooms is taken as one that stands.
    """

    def __init__(self) -> None:
        self._before: _Look | None = None

    def update(self, frame: NDArray[Any], targets: Sequence[Target] = ()) -> tuple[float, float]:
        """How far what stands still has moved in the picture, (x, y) in pixels of the frame.

        (0, 0) where the two frames do not say so clearly, or it is less than half a pixel.

        Args:
            frame: (H, W) counts.
            targets: What was found in it; these pixels do not count.
        """
        if min(frame.shape) < _SMALLEST:
            return 0.0, 0.0
        step = -(-max(frame.shape) // _SIDE)
        image = _shrink(frame, step, targets)
        spectrum = _transform(image)
        before = self._before
        self._before = after = None if spectrum is None else _Look(frame.shape, image, spectrum)
        if after is None or before is None or before.shape != after.shape:
            return 0.0, 0.0
        x, y = _find_shift(before.spectrum, after.spectrum, image.shape)
        if max(abs(x), abs(y)) * step < _STILL or not _agrees(
            before.image, image, round(x), round(y)
        ):
            return 0.0, 0.0
        return x * step, y * step


def _shrink(frame: NDArray[Any], step: int, targets: Sequence[Target]) -> FloatArray:
    """(H // step, W // step) means of blocks; targets and pixels without a number are the mean."""
    height, width = (side // step * step for side in frame.shape)
    counts = frame[:height, :width].astype(np.float32)
    known = np.isfinite(counts) if frame.dtype.kind == "f" else np.ones(counts.shape, np.bool_)
    for target in targets:
        left, top, wide, high = target.bbox
        rows = slice(max(0, top - _AROUND), max(0, top + high + _AROUND))
        known[rows, max(0, left - _AROUND) : max(0, left + wide + _AROUND)] = False
    if not known.all():
        counts = np.where(known, counts, counts[known].mean() if known.any() else np.float32(0))
    if step > 1:  # slice by slice: ten times as fast as a mean over short axes
        counts = np.sum([counts[row::step] for row in range(step)], axis=0)
        counts = np.sum([counts[:, column::step] for column in range(step)], axis=0) / step**2
    return counts


def _transform(image: FloatArray) -> _Spectrum | None:
    """The spectrum of a windowed image; None: it is flat."""
    image = image - image.mean()
    top = np.abs(image).max()
    if not top > 0:
        return None
    spectrum: _Spectrum = fft.rfft2(image / top * _window(image.shape))
    return spectrum


@lru_cache(maxsize=4)
def _window(shape: tuple[int, ...]) -> FloatArray:
    sides = (np.hanning(side + 2)[1:-1] for side in shape)
    return np.asarray(np.outer(*sides), dtype=np.float32)


@lru_cache(maxsize=4)
def _weigh(shape: tuple[int, ...]) -> FloatArray:
    """What each frequency counts, so that the peak is 1 high where all of two images fits."""
    down, across = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None]
    weight = np.exp(-2 * (np.pi * _BLUR) ** 2 * (down**2 + across**2))
    return np.asarray(weight / fft.irfft2(weight, shape)[0, 0], dtype=np.float32)


def _find_shift(before: _Spectrum, after: _Spectrum, shape: tuple[int, ...]) -> tuple[float, float]:
    """The (x, y) by which the second image is moved against the first; (0, 0): not clear."""
    cross = after * before.conj()
    cross /= np.maximum(np.abs(cross), 1e-30)
    surface = fft.irfft2(cross * _weigh(shape), shape)
    place = np.unravel_index(int(surface.argmax()), shape)
    peak = surface[place]
    around = [np.arange(-3, 4) + at for at in place]
    near = np.ix_(*(at % side for at, side in zip(around, shape, strict=True)))
    top = surface[near].copy()  # (7, 7), the peak in the middle
    surface[near] = 0
    moved = [
        (int(at) + side // 2) % side - side // 2 for at, side in zip(place, shape, strict=True)
    ]
    far = any(abs(by) > _FARTHEST * side for by, side in zip(moved, shape, strict=True))
    if far or peak < _PEAK or peak < _CLEAR * surface.max():
        return 0.0, 0.0
    return moved[1] + _vertex(top[3, 2:5]), moved[0] + _vertex(top[2:5, 3])


def _vertex(three: NDArray[Any]) -> float:
    """Where a Gaussian through three heights is highest, from the middle one."""
    low, middle, high = np.log(np.maximum(three, 1e-6))
    bend = low - 2 * middle + high
    return float(0.5 * (low - high) / bend) if bend < 0 else 0.0


def _agrees(before: FloatArray, after: FloatArray, x: int, y: int) -> bool:
    """Whether several parts of the second image fit the first better where that is moved."""
    height, width = after.shape
    rows, columns = slice(max(0, y), height + min(0, y)), slice(max(0, x), width + min(0, x))
    now = after[rows, columns]
    still = np.abs(now - before[rows, columns])
    moved = np.abs(now - before[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)])
    parts = [
        (float(still[part].sum()), float(moved[part].sum()))
        for part in (
            np.ix_(down, across)
            for down in np.array_split(np.arange(now.shape[0]), _PARTS)
            for across in np.array_split(np.arange(now.shape[1]), _PARTS)
        )
    ]
    better = sum(second < _BETTER * first for first, second in parts)
    gain = sum(max(0.0, first - second) for first, second in parts)
    loss = sum(max(0.0, second - first) for first, second in parts)
    return better >= _AGREE and gain >= _GAIN * loss
