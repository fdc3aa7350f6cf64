"""What pictures are drawn with: contrast, scale, outlines, and labels that do not collide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pinglow.structures import BoolArray

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""Left, top, width and height in whole pixels of a frame."""

MARK: Final[Color] = (255, 176, 0)
TEXT: Final[Color] = (235, 235, 235)
GROUND: Final[Color] = (24, 24, 24)
SMALLEST_TEXT: Final = 13  # px; the size in which a picture of `SMALLEST` is labeled
CROP: Final = 25  # px of the frame in an inset
_SMALLEST, _LARGEST = 512, 2048  # the long side of the frame as shown, px
_STRIPE: Final = 120
_DARK: Final = 64  # of 256 levels; a crop with fewer shows nothing
_CROWD: Final = 0.1  # of a picture that labels may cover


@dataclass(frozen=True)
class Contrast:
    """How counts become gray levels, the same for a frame and its insets.

    Attributes:
        bottom: The count that is black.
        top: The count that is white.
    """

    bottom: float
    top: float

    @classmethod
    def of(
        cls,
        frame: NDArray[Any],
        ignored: BoolArray | None = None,
        percentiles: tuple[float, float] = (0.5, 99.9),
    ) -> Contrast:
        """The contrast in which an (H, W) frame is shown whole, between two percentiles."""
        step = max(1, math.isqrt(frame.size // 2**20))  # a million pixels are enough to tell
        sample = frame[::step, ::step].astype(np.float64)
        if ignored is not None:
            sample = sample[~ignored[::step, ::step]]
        sample = sample[np.isfinite(sample)]
        if not sample.size:
            return cls(0.0, 0.0)
        bottom, top = np.percentile(sample, percentiles)
        if top <= bottom:  # flat but for a few pixels
            bottom, top = sample.min(), sample.max()
        return cls(float(bottom), float(top))

    def raised_for(self, crop: NDArray[Any]) -> tuple[Contrast, int]:
        """A contrast in which a crop can be seen, and by what power of two it was raised; often 1.

        A dim target on a frame of large range would be hidden in its inset, too.
        """
        inside = crop[np.isfinite(crop)].astype(np.float64)
        whole = self.top - self.bottom
        if not inside.size or whole <= 0:
            return self, 1
        low, high = float(inside.min()), float(inside.max())
        seen = min(high, self.top) - max(low, self.bottom)
        if seen * 256 >= _DARK * whole or high <= low:
            return self, 1
        factor = max(1, 2 ** math.floor(math.log2(min(whole / (high - low), 2.0**20))))
        if factor == 1:
            return self, 1
        middle, half = (low + high) / 2, whole / factor / 2
        return Contrast(middle - half, middle + half), factor

    def apply(self, counts: NDArray[Any]) -> NDArray[np.uint8]:
        """(H, W) counts -> uint8; NaN and inf are black."""
        shown = counts.astype(np.float32)  # worked on in place: frames may be large
        shown[~np.isfinite(shown)] = self.bottom
        shown -= self.bottom
        shown *= 255 / max(self.top - self.bottom, 1e-30)
        return np.asarray(shown.clip(0, 255, out=shown).round(out=shown), dtype=np.uint8)


def choose_scale(long_side: int, smallest: int = _SMALLEST, largest: int = _LARGEST) -> float:
    """By what a frame is enlarged, a whole number, or reduced, a fraction."""
    if long_side > largest:
        return largest / long_side
    return math.ceil(smallest / long_side)


def show_frame(
    frame: NDArray[Any], contrast: Contrast, scale: float, ignored: BoolArray | None = None
) -> Image.Image:
    """An (H, W) frame in gray, enlarged without smoothing or reduced; hatched where ignored."""
    height, width = frame.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    shown = Image.fromarray(contrast.apply(frame)).resize(size, smooth)
    if ignored is None:
        return shown
    area = np.asarray(Image.fromarray(ignored).resize(size, Image.Resampling.NEAREST))
    gray = np.asarray(shown)
    rows, columns = np.ogrid[: size[1], : size[0]]
    # A third as bright, with a stripe in each eight pixels.
    dimmed = np.where((rows + columns) % 8 == 0, np.uint8(_STRIPE), gray // 3)
    return Image.fromarray(np.where(area, dimmed, gray))


def text_size(width: int) -> int:
    """Height of the text in a picture of a width, both in px."""
    return max(SMALLEST_TEXT, min(28, width // 64))


def load_font(size: int) -> Any:
    """The one font of all pictures, which comes with Pillow."""
    return ImageFont.load_default(size)


def show_score(score: float) -> str:
    """A score in percent with the digits that tell it from certainty: 97%, 99.6%, >99.99%.

    Two scores that differ in how sure they are must not both read 1.00.
    """
    if score >= 1:
        return "100%"
    if score > 0.9999:
        return ">99.99%"
    if score < 0.01:
        return "<1%"
    digits = 2 if score > 0.999 else 1 if score > 0.99 else 0
    # Down, so that 99.996 does not become 100; 0.95 in single precision is 95.
    floor = math.floor(score * 100 * 10**digits + 1e-3) / 10**digits
    return f"{floor:.{digits}f}%"


def draw_outline(
    canvas: Image.Image, mask: BoolArray, place: tuple[int, int], factor: int, color: Color
) -> None:
    """Draw the contour of a mask's pixels around them, not on them.

    Args:
        canvas: RGB, drawn on.
        mask: (H, W) bool.
        place: Left and top of the mask's first pixel on the canvas.
        factor: px a pixel of the mask, at least 1.
        color: Of the contour, which is a fifth of a pixel wide.
    """
    wide = max(1, factor // 5)
    large = np.pad(mask.repeat(factor, axis=0).repeat(factor, axis=1), wide)
    ring = ndimage.binary_dilation(large, np.ones((3, 3), bool), iterations=wide) & ~large
    canvas.paste(color, (place[0] - wide, place[1] - wide), Image.fromarray(ring))


def cut_inset(
    frame: NDArray[Any], contrast: Contrast, box: Box, block: int
) -> tuple[Image.Image, Box, int, int]:
    """Cut a target out with its surroundings, and enlarge it.

    Args:
        frame: (H, W) counts.
        contrast: The frame's.
        box: Around the target.
        block: px that a pixel of the frame becomes, if the target fits.

    Returns:
        RGB of ``CROP * block`` px a side; the part of the frame that it shows, which may reach
        beyond the frame; what a pixel has become; and by what the contrast was raised.
    """
    left, top, width, height = box
    longest = CROP * block
    needed = max(CROP, 2 * max(width, height) + 1)
    factor = max(1, longest // needed)
    side = longest // factor
    reduced = max(1, math.ceil(needed / longest))  # a target larger than the inset
    side *= reduced
    # At an edge the target is off the middle, so that the inset is full.
    x = max(0, min(left + width // 2 - side // 2, frame.shape[1] - side))
    y = max(0, min(top + height // 2 - side // 2, frame.shape[0] - side))
    rows = slice(max(0, y), max(0, min(frame.shape[0], y + side)))
    columns = slice(max(0, x), max(0, min(frame.shape[1], x + side)))
    part = frame[rows, columns]
    raised, times = contrast.raised_for(part)
    crop = Image.new("RGB", (side, side), GROUND)
    crop.paste(Image.fromarray(raised.apply(part)), (columns.start - x, rows.start - y))
    size = (side * factor // reduced,) * 2
    inset = Image.new("RGB", (longest, longest), GROUND)
    smooth = Image.Resampling.NEAREST if reduced == 1 else Image.Resampling.BOX
    inset.paste(crop.resize(size, smooth))
    return inset, (x, y, side, side), factor if reduced == 1 else 0, times


def cut_mask(mask: BoolArray, shown: Box, within: Box | None = None) -> BoolArray:
    """The part of a mask that an inset shows; where it reaches beyond the frame, False.

    Args:
        mask: (H, W) bool.
        shown: What `cut_inset` says that it shows.
        within: Only the pixels in this box; None: all.
    """
    left, top, width, height = shown
    x0, y0, x1, y1 = 0, 0, mask.shape[1], mask.shape[0]
    if within is not None:
        x0, y0, x1, y1 = (*within[:2], within[0] + within[2], within[1] + within[3])
    x0, x1 = (min(max(x, left, 0), left + width) for x in (x0, x1))
    y0, y1 = (min(max(y, top, 0), top + height) for y in (y0, y1))
    window = np.zeros((height, width), bool)
    part = mask[y0:y1, x0:x1]
    window[y0 - top : y0 - top + part.shape[0], x0 - left : x0 - left + part.shape[1]] = part
    return window


def box_clear_of(box: Box, scale: float, size: tuple[int, int]) -> tuple[float, ...]:
    """Left, top, right and bottom on a picture, px, of a box that stands clear of a target.

    Kept inside the frame, so that the box of a target at its edge still closes.

    Args:
        box: The target's, in pixels of the frame.
        scale: px of the picture a pixel.
        size: Width and height of the frame as shown, px.
    """
    left, top, width, height = box
    clear = 5 + scale / 2
    x0, y0 = max(0.0, left * scale - clear), max(0.0, top * scale - clear)
    x1 = min(size[0] - 1.0, (left + width) * scale + clear)
    y1 = min(size[1] - 1.0, (top + height) * scale + clear)
    return x0, y0, max(x0, x1), max(y0, y1)


class Labeler:
    """Writes labels beside marks, none over another label or mark.

    Where there is no room beside a mark, its shorter label is tried, then it goes without. Labels
    cover a tenth of the picture at most: more would hide it.

    Args:
        canvas: RGB, drawn on.
        size: Width and height of the part where labels may stand, px, at the upper left.
        marks: Left, top, right and bottom of all marks, px.
        font: Of the text.
    """

    def __init__(
        self,
        canvas: Image.Image,
        size: tuple[int, int],
        marks: Iterable[Sequence[float]],
        font: Any,
    ) -> None:
        self._draw = ImageDraw.Draw(canvas)
        self._font = font
        self._taken = np.zeros((size[1], size[0]), bool)
        self._room = _CROWD * size[0] * size[1]
        for x0, y0, x1, y1 in marks:
            self._taken[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = True

    def write(self, mark: Sequence[float], labels: Sequence[str], color: Color) -> bool:
        """Write the first label for which there is room, if there is; tell whether.

        Args:
            mark: Left, top, right and bottom of what is labeled, px.
            labels: From the longest to the shortest.
            color: Of the text.
        """
        for label in labels:
            left, top, right, bottom = self._font.getbbox(label)
            width, height = math.ceil(right - left) + 4, math.ceil(bottom - top) + 4
            if width * height > self._room:
                continue
            for x, y in _places(mark, width, height):
                if self._is_free(x, y, width, height):
                    self._taken[y : y + height, x : x + width] = True
                    self._room -= width * height
                    self._draw.text(
                        (x + 2 - left, y + 2 - top),
                        label,
                        fill=color,
                        font=self._font,
                        stroke_width=2,
                        stroke_fill=GROUND,
                    )
                    return True
        return False

    def _is_free(self, x: int, y: int, width: int, height: int) -> bool:
        rows, columns = self._taken.shape
        if x < 0 or y < 0 or x + width > columns or y + height > rows:
            return False
        return not self._taken[y : y + height, x : x + width].any()


def _places(mark: Sequence[float], width: int, height: int) -> list[tuple[int, int]]:
    """Left and top of a label of a size around a mark, the best first: above, below, beside."""
    x0, y0, x1, y1 = (round(value) for value in mark)
    above, below, before, behind = y0 - height - 1, y1 + 2, x0 - width - 1, x1 + 2
    middle = (y0 + y1 - height) // 2
    across = (x0, x1 - width + 1, (x0 + x1 - width) // 2)
    return [
        *((x, above) for x in across),
        *((x, below) for x in across),
        (behind, middle),
        (before, middle),
        (behind, above),
        (before, above),
        (behind, below),
        (before, below),
    ]
