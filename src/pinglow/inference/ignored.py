"""Pixels of every frame that are no part of the picture: symbols, clocks, what is not of interest.

A crop is the same from the other side: what is outside of it is ignored, and not computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pinglow.errors import DataError, FrameError, OptionError
from pinglow.io.frames import read_only_frame
from pinglow.polygons import Ring, check_ring, fill_rings, read_polygons
from pinglow.structures import BoolArray, Detections, FloatArray

Rectangle = tuple[int, int, int, int]
"""left, top, width, height in whole pixels."""

_RECTANGLE: Final = re.compile(r"\s*-?\d{1,9}\s*(,\s*-?\d{1,9}\s*)*")
_POLYGON: Final = re.compile(r"[-+.\deE,\s]+(;[-+.\deE,\s]*)+")
_JSON: Final = (".json", ".geojson")


class Ignored:
    """What is ignored of frames of one camera: it is no pixel, so nothing is found in it.

    Neither does it move a frame's normalization. A frame that it does not fit is refused. What is
    found has its place in the whole frame, also where only a crop is searched.

    Args:
        rectangles: (left, top, width, height) each, in whole pixels of the frame.
        mask: (H, W), the size of the frames; what is not 0 is ignored. None: none.
        polygons: Areas of rings (n, 2), each an outline and its holes; see `pinglow.polygons`.
        crop: (left, top, width, height): only this is searched. None: the whole frame.

    Raises:
        OptionError: A rectangle has no pixels or begins outside of a frame, a polygon has less than
            three points, or the mask is not of two dimensions or ignores nothing.
    """

    def __init__(
        self,
        rectangles: Sequence[Rectangle] = (),
        mask: ArrayLike | None = None,
        *,
        polygons: Sequence[Sequence[ArrayLike]] = (),
        crop: Rectangle | None = None,
    ) -> None:
        for rectangle in rectangles:
            _check("ignored rectangle", rectangle)
        if crop is not None:
            _check("crop", crop)
        self._rectangles = tuple(rectangles)
        self._crop = crop
        try:
            self._polygons = [
                [check_ring(ring, "an ignored polygon") for ring in area] for area in polygons
            ]
        except DataError as error:
            raise OptionError(str(error)) from error
        self._mask = None if mask is None else np.asarray(mask) != 0
        if self._mask is not None and self._mask.ndim != 2:
            raise OptionError(f"the ignored mask has shape {self._mask.shape}: give (H, W)")
        if self._mask is not None and not self._mask.any():
            raise OptionError("the ignored mask has no pixel above 0, so it ignores nothing")
        self._area: BoolArray | None = None  # of frames of the shape that came last

    @classmethod
    def parse(
        cls, words: Sequence[str], crop: str | None = None, *, files: bool = True
    ) -> Ignored | None:
        """What ``--ignore`` and ``--crop`` say.

        Args:
            words: Each x,y,w,h, or a polygon x,y;x,y;x,y, or the path of a mask image or of
                polygons in JSON.
            crop: x,y,w,h.
            files: Whether a word may be a path: not where it comes from another machine.

        Returns:
            None where they say nothing.

        Raises:
            OptionError: A word is none of these, or masks are not of one size.
            FrameError: A mask cannot be read.
            DataError: Polygons cannot be read.
        """
        rectangles: list[Rectangle] = []
        polygons: list[list[Ring]] = []
        mask: BoolArray | None = None
        for word in words:
            if files and Path(word).is_file():
                if Path(word).suffix.lower() in _JSON:
                    polygons += read_polygons(Path(word))
                else:
                    mask = _add_mask(word, mask)
            elif _POLYGON.fullmatch(word):
                polygons.append([_parse_polygon(word)])
            elif _RECTANGLE.fullmatch(word):
                rectangles.append(_parse_rectangle("--ignore", word))
            else:
                known = "whole pixels, as in 0,0,64,20, or a polygon, as in 0,0;64,0;0,20"
                if files:
                    known += ", or the path of a mask image or of polygons (labelme, GeoJSON)"
                no_file = "neither a file nor" if files else "not"
                raise OptionError(f"--ignore {word!r} is {no_file} x,y,w,h: give {known}")
        cropped = None
        if crop is not None:
            if not _RECTANGLE.fullmatch(crop):
                raise OptionError(f"--crop {crop!r} is not x,y,w,h: give whole pixels")
            cropped = _parse_rectangle("--crop", crop)
        if not words and crop is None:
            return None
        return cls(rectangles, mask, polygons=polygons, crop=cropped)

    def area(self, shape: tuple[int, ...]) -> BoolArray:
        """(H, W) bool of frames of this shape: what is ignored; not to be written to.

        Raises:
            FrameError: It does not fit them, or leaves nothing.
        """
        if self._area is None or self._area.shape != shape:
            area = self._draw(shape)
            area.flags.writeable = False
            self._area = area
        return self._area

    def _draw(self, shape: tuple[int, ...]) -> BoolArray:
        height, width = shape
        if self._mask is not None and self._mask.shape != shape:
            raise FrameError(
                f"the ignored mask is of {_size(self._mask)} pixels, the frame of {width} x "
                f"{height}: give a mask of the frame's size"
            )
        area = np.zeros(shape, dtype=np.bool_) if self._mask is None else self._mask.copy()
        for rectangle in self._rectangles:
            area[_inside("ignored rectangle", rectangle, shape)] = True
        for rings in self._polygons:
            xs, ys = np.concatenate(rings).T
            if xs.min() < 0 or ys.min() < 0 or xs.max() > width or ys.max() > height:
                raise FrameError(
                    f"an ignored polygon, x {xs.min():g} to {xs.max():g}, y {ys.min():g} to "
                    f"{ys.max():g}, reaches out of a frame of {width} x {height} pixels: give one "
                    "that lies in it"
                )
            area |= fill_rings(rings, (height, width))
        if self._crop is not None:
            inside = _inside("crop", self._crop, shape)
            outside = np.ones(shape, dtype=np.bool_)
            outside[inside] = area[inside]
            area = outside
        if area.all():
            raise FrameError("the whole frame is ignored: ignore less")
        return area

    def crop(self, frame: NDArray[Any]) -> NDArray[Any]:
        """(h, w) counts of what is searched, as they are."""
        return frame[self._seen]

    def hide(self, frame: NDArray[Any]) -> NDArray[Any]:
        """(h, w) counts of the crop, NaN where they are ignored.

        Raises:
            FrameError: See `area`.
        """
        area = self.area(frame.shape)
        return np.where(area[self._seen], np.float32(np.nan), frame[self._seen])

    def restore(self, probability: FloatArray, frame: NDArray[Any]) -> FloatArray:
        """(H, W) probabilities of a frame from those of its crop, 0 where it is ignored."""
        whole = np.zeros(frame.shape, dtype=np.float32)
        ignored = self.area(frame.shape)[self._seen]
        whole[self._seen] = np.where(ignored, np.float32(0), probability)
        return whole

    def clear(self, boxes: Detections, shape: tuple[int, ...]) -> Detections:
        """Boxes in the crop of a frame of this shape, but for those centered in what is ignored.

        Their places are those in the whole frame.
        """
        height, width = shape
        left, top = self._crop[:2] if self._crop is not None else (0, 0)
        moved = boxes.boxes + np.array((left, top, 0, 0))
        centers = (moved[:, :2] + moved[:, 2:] / 2).astype(int)  # (n, 2) x, y
        x, y = centers.clip(0, (width - 1, height - 1)).T
        kept = ~self.area(shape)[y, x]
        return Detections(moved[kept], boxes.scores[kept])

    @property
    def _seen(self) -> tuple[slice, slice]:
        """Rows and columns that are searched."""
        if self._crop is None:
            return slice(None), slice(None)
        left, top, width, height = self._crop
        return slice(top, top + height), slice(left, left + width)


def _check(what: str, rectangle: Rectangle) -> None:
    left, top, width, height = rectangle
    if min(left, top) < 0 or min(width, height) < 1:
        raise OptionError(
            f"the {what} {left},{top},{width},{height} is impossible: give x, y of 0 or more, and "
            "width, height of 1 or more"
        )


def _inside(what: str, rectangle: Rectangle, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a rectangle in frames of this shape."""
    left, top, wide, high = rectangle
    height, width = shape
    if left + wide > width or top + high > height:
        raise FrameError(
            f"the {what} {left},{top},{wide},{high} reaches out of a frame of {width} x {height} "
            "pixels: give one that lies in it"
        )
    return slice(top, top + high), slice(left, left + wide)


def _parse_rectangle(option: str, word: str) -> Rectangle:
    sides = [int(number) for number in word.split(",")]
    if len(sides) != 4:
        raise OptionError(f"{option} {word!r} has {len(sides)} numbers: give x,y,w,h")
    return sides[0], sides[1], sides[2], sides[3]


def _parse_polygon(word: str) -> Ring:
    try:
        points = [[float(part) for part in pair.split(",")] for pair in word.split(";") if pair]
        if any(len(point) != 2 for point in points):
            raise ValueError
    except ValueError:
        raise OptionError(f"--ignore {word!r} is no polygon: give x,y;x,y;x,y") from None
    try:
        return check_ring(points, f"--ignore {word!r}")
    except DataError as error:
        raise OptionError(str(error)) from error


def _add_mask(word: str, mask: BoolArray | None) -> BoolArray:
    """What an image ignores, and the images before it."""
    more = np.asarray(read_only_frame(word) != 0, dtype=np.bool_)
    if not more.any():
        raise OptionError(f"--ignore {word} has no pixel above 0: it ignores nothing")
    if mask is not None and mask.shape != more.shape:
        raise OptionError(
            f"--ignore {word} is of {_size(more)} pixels, another mask of {_size(mask)}: give "
            "masks of the frames' size"
        )
    return more if mask is None else mask | more


def _size(mask: NDArray[Any]) -> str:
    return f"{mask.shape[1]} x {mask.shape[0]}"
