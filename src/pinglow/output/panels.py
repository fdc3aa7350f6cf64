"""Panels: a frame, its truth and what each of several models made of it, side by side.

A hit, a miss and a false alarm are what the protocol ``strict`` calls so. Their colors can be told
apart by the color-blind (Okabe and Ito, https://jfly.uni-koeln.de/color/), and so can their shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pinglow.metrics.matching import Components, find_components, match_optimal
from pinglow.metrics.pixels import Pixels, pixels_above
from pinglow.output.drawing import (
    CROP,
    GROUND,
    TEXT,
    Box,
    Color,
    Contrast,
    box_clear_of,
    choose_scale,
    cut_inset,
    cut_mask,
    draw_outline,
    load_font,
    show_frame,
)
from pinglow.structures import BoolArray
from pinglow.terminal import escape_controls

HIT: Final[Color] = (86, 180, 233)
MISS: Final[Color] = (240, 228, 66)
FALSE_ALARM: Final[Color] = (230, 97, 0)
TRUTH: Final[Color] = (255, 255, 255)
_SMALLEST, _LARGEST = 384, 768  # the long side of a panel, px
_ACROSS: Final = 4  # panels in a row
_GAP: Final = 8


@dataclass(frozen=True)
class Judgement:
    """What is right and wrong in one predicted mask, each as the box of a component.

    Attributes:
        hits: Of predicted components that are matched to a target.
        misses: Of true targets without a match.
        false_alarms: Of predicted components without a match.
        found: For each true target, in raster order, whether it is matched.
        iou: Pixels in both masks / pixels in either; 1 where both are empty.
    """

    hits: tuple[Box, ...]
    misses: tuple[Box, ...]
    false_alarms: tuple[Box, ...]
    found: tuple[bool, ...]
    iou: float

    @property
    def wrong(self) -> int:
        """Misses and false alarms."""
        return len(self.misses) + len(self.false_alarms)

    def describe(self) -> str:
        """In words, such as ``2 of 3 found, 1 false, IoU 61%``."""
        targets = len(self.found)
        if not targets:
            return f"no target, {len(self.false_alarms)} false"
        hits, false = len(self.hits), len(self.false_alarms)
        return f"{hits} of {targets} found, {false} false, IoU {self.iou:.0%}"


def judge(truth: BoolArray, predicted: BoolArray) -> Judgement:
    """Match a predicted (H, W) bool mask to the true one, by the rules of the protocol strict."""
    true_pixels, pixels = pixels_above(truth, 0), pixels_above(predicted, 0)
    true, components = find_components(true_pixels), find_components(pixels)
    first, second = match_optimal(true, components)
    found = np.isin(np.arange(len(true)), first)
    hit = np.isin(np.arange(len(components)), second)
    true_boxes, boxes = _boxes(true, true_pixels), _boxes(components, pixels)
    union = int(np.count_nonzero(truth | predicted))
    return Judgement(
        hits=tuple(box for box, good in zip(boxes, hit, strict=True) if good),
        misses=tuple(box for box, good in zip(true_boxes, found, strict=True) if not good),
        false_alarms=tuple(box for box, good in zip(boxes, hit, strict=True) if not good),
        found=tuple(found.tolist()),
        iou=float(np.count_nonzero(truth & predicted) / union) if union else 1.0,
    )


def draw_panels(
    frame: NDArray[Any],
    truth: BoolArray,
    predicted: Mapping[str, BoolArray],
    *,
    title: str = "",
) -> Image.Image:
    """Draw image | truth | A | B ... with hits, misses and false alarms, four in a row.

    Below each panel the same places are enlarged in each, those that a model gets wrong first.

    Args:
        frame: (H, W) counts.
        truth: (H, W) bool.
        predicted: (H, W) bool of each model, by its title.
        title: What stands above all, such as the frame's name.
    """
    height, width = frame.shape
    scale = choose_scale(max(height, width), _SMALLEST, _LARGEST)
    contrast = Contrast.of(frame)
    gray = show_frame(frame, contrast, scale).convert("RGB")
    judged = {name: judge(truth, mask) for name, mask in predicted.items()}
    wide = max(gray.width, _SMALLEST)
    text, block = wide // 28, wide // 96
    line, inset = text + 6, block * CROP
    places = _choose_places(truth, judged, (wide + _GAP) // (inset + _GAP))

    panels = [_Panel("image", "", gray.copy())]
    true = find_boxes(truth)
    count = f"{len(true)} target" + "s" * (len(true) != 1)
    panels.append(_Panel("truth", count, gray.copy(), truth))
    _mark(panels[-1].picture, true, "target", TRUTH, scale)
    for name, each in judged.items():
        panel = _Panel(name, each.describe(), gray.copy(), predicted[name])
        _mark(panel.picture, each.hits, "hit", HIT, scale)
        _mark(panel.picture, each.misses, "miss", MISS, scale)
        _mark(panel.picture, each.false_alarms, "false alarm", FALSE_ALARM, scale)
        panels.append(panel)

    across = min(_ACROSS, len(panels))
    rows = math.ceil(len(panels) / across)
    tall = 2 * line + gray.height + (_GAP + inset if places else 0) + _GAP
    top = line * (2 if title else 1) + _GAP
    canvas = Image.new(
        "RGB", (across * (wide + _GAP) + _GAP, top + rows * (tall + _GAP) + _GAP), GROUND
    )
    font = load_font(text)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((_GAP, 3), _fit(font, title, canvas.width - 2 * _GAP), fill=TEXT, font=font)
    _draw_legend(draw, font, text, (_GAP, top - line - 3))
    for number, panel in enumerate(panels):
        x = _GAP + number % across * (wide + _GAP)
        y = top + number // across * (tall + _GAP)
        draw.text((x, y), _fit(font, panel.title, wide), fill=TEXT, font=font)
        draw.text((x, y + line - 3), _fit(font, panel.caption, wide), fill=(170,) * 3, font=font)
        canvas.paste(panel.picture, (x, y + 2 * line))
        for place, box in enumerate(places):
            cut = cut_inset(frame, contrast, box, block)[:3]
            _outline(*cut, truth, panel, judged.get(panel.title))
            left = x + place * (inset + _GAP)
            canvas.paste(cut[0], (left, y + 2 * line + gray.height + _GAP))
    return canvas


@dataclass(frozen=True, eq=False)
class _Panel:
    title: str
    caption: str
    picture: Image.Image
    mask: BoolArray | None = None


def find_boxes(mask: BoolArray) -> tuple[Box, ...]:
    """The box of each component of an (H, W) bool mask, in raster order."""
    pixels = pixels_above(mask, 0)
    return _boxes(find_components(pixels), pixels)


def _boxes(components: Components, pixels: Pixels) -> tuple[Box, ...]:
    """The box of each component of a pixel list."""
    if not len(components):
        return ()
    order = np.argsort(components.number, kind="stable")
    starts = np.concatenate([[0], np.cumsum(components.area)[:-1]])
    rows, columns = np.divmod(pixels.position[order], pixels.shape[1])
    left, top = (np.minimum.reduceat(lines, starts) for lines in (columns, rows))
    right, bottom = (np.maximum.reduceat(lines, starts) + 1 for lines in (columns, rows))
    stacked = np.stack([left, top, right - left, bottom - top], axis=1).tolist()
    return tuple((x, y, width, height) for x, y, width, height in stacked)


def _choose_places(truth: BoolArray, judged: Mapping[str, Judgement], room: int) -> list[Box]:
    """The boxes to enlarge, no two that show the same: errors first, then other targets."""
    wrong = [box for each in judged.values() for box in each.misses]
    false = [box for each in judged.values() for box in each.false_alarms]
    chosen: list[Box] = []
    centers: list[tuple[float, float]] = []
    for box in [*wrong, *false, *find_boxes(truth)]:
        center = box[0] + box[2] / 2, box[1] + box[3] / 2
        if all(max(abs(center[0] - x), abs(center[1] - y)) > 8 for x, y in centers):
            chosen.append(box)
            centers.append(center)
        if len(chosen) == room:
            break
    return chosen


def _outline(
    inset: Image.Image,
    shown: Box,
    factor: int,
    truth: BoolArray,
    panel: _Panel,
    judged: Judgement | None,
) -> None:
    """Draw a panel's outlines in an inset, and where its model misses a target, the true one."""
    if panel.mask is None or not factor:
        return
    if judged is None:
        draw_outline(inset, cut_mask(truth, shown), (0, 0), factor, TRUTH)
        return
    for boxes, mask, color in (
        (judged.misses, truth, MISS),
        (judged.false_alarms, panel.mask, FALSE_ALARM),
        (judged.hits, panel.mask, HIT),
    ):
        for each in boxes:
            window = cut_mask(mask, shown, each)
            if window.any():
                draw_outline(inset, window, (0, 0), factor, color)


def _mark(
    picture: Image.Image, boxes: tuple[Box, ...], kind: str, color: Color, scale: float
) -> None:
    """Mark targets by the shape of their kind, clear of them."""
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        _draw_shape(draw, kind, box_clear_of(box, scale, picture.size), color)


def _draw_shape(
    draw: ImageDraw.ImageDraw, kind: str, around: tuple[float, ...], color: Color
) -> None:
    """A box for a target or a hit, a circle for a miss, a triangle for a false alarm."""
    x0, y0, x1, y1 = around
    if kind in ("target", "hit"):
        draw.rectangle((x0, y0, x1, y1), outline=color, width=2)
    elif kind == "miss":
        draw.ellipse((x0 - 2, y0 - 2, x1 + 2, y1 + 2), outline=color, width=2)
    else:
        middle, tall = (x0 + x1) / 2, y1 - y0
        corners = [(middle, y0 - tall / 2), (x1 + tall / 3, y1), (x0 - tall / 3, y1)]
        draw.polygon(corners, outline=color, width=2)


def _draw_legend(draw: ImageDraw.ImageDraw, font: Any, text: int, place: tuple[int, int]) -> None:
    x, y = place
    for kind, color in (
        ("target", TRUTH),
        ("hit", HIT),
        ("miss", MISS),
        ("false alarm", FALSE_ALARM),
    ):
        middle, half = (x + text / 2, y + text * 0.7), text * (0.25 if "alarm" in kind else 0.4)
        around = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
        _draw_shape(draw, kind, around, color)
        draw.text((x + 1.6 * text, y + 1), kind, fill=color, font=font)
        x += 3 * text + math.ceil(draw.textlength(kind, font=font))


def _fit(font: Any, text: str, width: int) -> str:
    """A text that fits, its middle left out if need be: both ends of a path tell it apart."""
    text = escape_controls(text)
    kept = len(text)
    while font.getlength(text) > width and kept > 8:
        kept -= 1
        text = text[: kept // 2] + "..." + text[len(text) - kept // 2 :]
    return text
