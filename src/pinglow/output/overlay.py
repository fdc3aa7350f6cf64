"""The sink of overlays: a frame with its targets, drawn for a person."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pinglow.output.sink import FrameRecord, PictureSink
from pinglow.output.video import VideoWriter
from pinglow.structures import BoolArray, Clip, Target

_SMALLEST, _LARGEST = 512, 2048  # the long side of the frame as shown, px
_INSETS, _INSET, _GAP = 4, 125, 4  # four insets and three gaps are as wide as the smallest frame
_CROP = 25  # px of the frame in an inset, each shown as a block of 5 x 5
_LABELS = 20  # more labels than this hide the picture
_LINE = 20
_STRIPE = 120
_MARK, _TEXT, _GROUND = (255, 176, 0), (235, 235, 235), (24, 24, 24)


class OverlaySink(PictureSink):
    """overlays/<name>_overlay.png, or of a video <clip>_overlay.mp4; see `draw_overlay`."""

    place = "overlays"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._clip: Clip | None = None
        self._video: VideoWriter | None = None

    def write(self, record: FrameRecord) -> None:
        """Draw and write the overlay of one frame."""
        targets = record.prediction.targets
        in_clip = record.clip is not None
        overlay = draw_overlay(
            record.frame, targets, record.tracks, of_clip=in_clip, ignored=record.ignored
        )
        if record.clip is None:
            self.save(overlay, f"{record.name}_overlay.png")
            return
        if self._video is None or record.clip != self._clip:
            self.close()
            path = self._folder / f"{record.clip.name}_overlay.mp4"
            self._clip, self._video = record.clip, VideoWriter(path, record.clip.rate)
        self._video.write(overlay, record.time)

    def end_source(self, source: str, whole: bool) -> None:
        """End the source's video, which is whole only then."""
        self.close()

    def close(self) -> None:
        """End the video that is being written."""
        if self._video is not None:
            self._video.close()
            self._video = None


def draw_overlay(
    frame: NDArray[Any],
    targets: Sequence[Target],
    tracks: Sequence[int | None] | None = None,
    *,
    of_clip: bool = False,
    ignored: BoolArray | None = None,
) -> Image.Image:
    """Draw a frame so that a person can judge its targets.

    The contrast is stretched between percentiles; a small frame is enlarged by a whole factor
    without smoothing, a very large one is reduced. A thin box stands clear of each target, with
    its rank and score, or the number of its track; below, the four best targets are enlarged with
    their own contrast.

    Args:
        frame: (H, W) counts; NaN and inf are shown black.
        targets: What was found in it, best first.
        tracks: The track of each target; None: ranks are shown.
        of_clip: Keep the place below free where there is no target: all frames of a video have
            one size.
        ignored: (H, W) bool, what is dimmed and hatched; it does not move the contrast.
    """
    height, width = frame.shape
    scale = _choose_scale(max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    shown = Image.fromarray(_stretch(frame, 0.5, 99.9, ignored)).resize(size, smooth)
    if ignored is not None:
        area = np.asarray(Image.fromarray(ignored).resize(size, Image.Resampling.NEAREST))
        shown = Image.fromarray(_hatch(np.asarray(shown), area))

    best = targets[:_INSETS]
    strip = _LINE + (_INSET + _LINE if best or of_clip else 0)
    canvas = Image.new("RGB", (max(size[0], _SMALLEST), size[1] + strip), _GROUND)
    canvas.paste(shown, (0, 0))  # Pillow turns gray into RGB here
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(13)
    names = [str(rank + 1) for rank in range(len(targets))]
    if tracks is not None:
        names = ["new" if track is None else f"#{track}" for track in tracks]
    for place in reversed(range(len(targets))):  # the best last, on top
        label = f"{names[place]}: {targets[place].score:.2f}" if place < _LABELS else ""
        _draw_mark(draw, font, targets[place], label, scale, size)

    count = "no target" if not targets else f"{len(targets)} target{'s' * (len(targets) > 1)}"
    summary = f"{count} in {width} x {height} pixels"
    draw.text((_GAP, size[1] + 2), summary, fill=_TEXT, font=font)
    for place, target in enumerate(best):
        left, top = place * (_INSET + _GAP), size[1] + _LINE
        canvas.paste(_draw_inset(frame, target), (left, top))
        caption = f"{names[place]}: {target.score:.2f}, {target.area} px"
        draw.text((left + _GAP, top + _INSET + 2), caption, fill=_TEXT, font=font)
    return canvas


def _choose_scale(long_side: int) -> float:
    if long_side > _LARGEST:
        return _LARGEST / long_side
    return math.ceil(_SMALLEST / long_side)


def _hatch(shown: NDArray[np.uint8], area: BoolArray) -> NDArray[np.uint8]:
    """(H, W) gray, in the area a third as bright and with a stripe in each eight pixels."""
    rows, columns = np.ogrid[: shown.shape[0], : shown.shape[1]]
    dimmed = np.where((rows + columns) % 8 == 0, np.uint8(_STRIPE), shown // 3)
    return np.where(area, dimmed, shown)


def _stretch(
    frame: NDArray[Any], low: float, high: float, ignored: BoolArray | None = None
) -> NDArray[np.uint8]:
    """(H, W) counts -> uint8, the two percentiles at 0 and 255."""
    step = max(1, math.isqrt(frame.size // 2**20))  # a million pixels are enough to tell
    sample = frame[::step, ::step].astype(np.float64)
    if ignored is not None:
        sample = sample[~ignored[::step, ::step]]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return np.zeros(frame.shape, np.uint8)
    bottom, top = np.percentile(sample, (low, high))
    if top <= bottom:  # flat but for a few pixels
        bottom, top = sample.min(), sample.max()
    shown = frame.astype(np.float32)  # worked on in place: frames may be large
    shown[~np.isfinite(shown)] = bottom
    shown -= bottom
    shown *= 255 / max(top - bottom, 1e-30)
    return np.asarray(shown.clip(0, 255, out=shown).round(out=shown), dtype=np.uint8)


def _draw_mark(
    draw: ImageDraw.ImageDraw,
    font: Any,
    target: Target,
    label: str,
    scale: float,
    size: tuple[int, int],
) -> None:
    """Draw a box clear of the target, the label above it or, at the upper edge, below."""
    left, top, width, height = target.bbox
    clear = 5 + scale / 2
    box = (
        left * scale - clear,
        top * scale - clear,
        (left + width) * scale + clear,
        (top + height) * scale + clear,
    )
    # Kept inside the frame, so that the box of a target at its edge still closes.
    x0, y0 = (max(0.0, value) for value in box[:2])
    x1, y1 = (min(limit - 1.0, value) for limit, value in zip(size, box[2:], strict=True))
    draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=_MARK)
    if label:
        x = max(0.0, min(x0, size[0] - draw.textlength(label, font=font)))
        y = y0 - 17 if y0 >= 17 else y1 + 2
        draw.text((x, y), label, fill=_MARK, font=font, stroke_width=2, stroke_fill=_GROUND)


def _draw_inset(frame: NDArray[Any], target: Target) -> Image.Image:
    """Cut the target out with its surroundings, stretch and enlarge it."""
    side = max(_CROP, 2 * max(target.bbox[2:]) + 1)
    left, top = (round(center) - side // 2 for center in (target.x, target.y))
    rows = slice(max(0, top), min(frame.shape[0], top + side))
    columns = slice(max(0, left), min(frame.shape[1], left + side))
    crop = Image.new("RGB", (side, side), _GROUND)
    stretched = Image.fromarray(_stretch(frame[rows, columns], 0, 100))
    crop.paste(stretched, (columns.start - left, rows.start - top))
    return crop.resize((_INSET, _INSET), Image.Resampling.NEAREST)
