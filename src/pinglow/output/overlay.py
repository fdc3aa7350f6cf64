"""The sink of overlays: a frame with its targets, drawn for a person."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pinglow.output.drawing import (
    CROP,
    GROUND,
    MARK,
    SMALLEST_TEXT,
    TEXT,
    Color,
    Contrast,
    Labeler,
    box_clear_of,
    choose_scale,
    cut_inset,
    cut_mask,
    draw_outline,
    load_font,
    show_frame,
    show_score,
    text_size,
)
from pinglow.output.sink import FrameRecord, PictureSink
from pinglow.output.trails import Trail, Trails
from pinglow.output.video import VideoWriter
from pinglow.structures import BoolArray, Clip, Prediction, Target

_SMALLEST: Final = 512  # px, the width of the smallest picture
_GAP: Final = 3  # five insets and four gaps are 640 px
_BLOCK: Final = 5  # px of a pixel in an inset of the smallest picture
_ENLARGED: Final = 3  # from here on a target's outline can be seen in the frame itself
_TRAIL: Final[Color] = (0, 190, 255)


class OverlaySink(PictureSink):
    """overlays/<name>_overlay.png, or of a video <clip>_overlay.mp4; see `draw_overlay`."""

    place = "overlays"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._clip: Clip | None = None
        self._video: VideoWriter | None = None
        self._trails = Trails()

    def write(self, record: FrameRecord) -> None:
        """Draw and write the overlay of one frame."""
        found = record.prediction
        overlay = draw_overlay(
            record.frame,
            found.targets,
            record.tracks,
            mask=found.mask if isinstance(found, Prediction) else None,
            of_clip=record.clip is not None,
            ignored=record.ignored,
            time=record.time,
            trails=self._trails.update(record),
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
    mask: BoolArray | None = None,
    of_clip: bool = False,
    ignored: BoolArray | None = None,
    time: float | None = None,
    trails: Mapping[int, Trail] | None = None,
) -> Image.Image:
    """Draw a frame so that a person can judge its targets.

    The contrast is stretched between percentiles; a small frame is enlarged by a whole factor
    without smoothing, a very large one is reduced. A thin box stands clear of each target, with
    its rank and score, or the number of its track, where there is room for a label. Below, as many
    of the best targets as fit are enlarged, in the frame's contrast; where that would hide one,
    its caption says by how much it was raised.

    Args:
        frame: (H, W) counts; NaN and inf are shown black.
        targets: What was found in it, best first.
        tracks: The track of each target; None: ranks are shown.
        mask: (H, W) bool, the pixels of the targets, whose outline is drawn where it is large
            enough to be seen; None: there are boxes only.
        of_clip: Keep the place below free where there is no target: all frames of a video have
            one size.
        ignored: (H, W) bool, what is dimmed and hatched; it does not move the contrast.
        time: Seconds from the start of a video; None: not shown.
        trails: Where tracks were lately, by their numbers.
    """
    height, width = frame.shape
    scale = choose_scale(max(height, width))
    contrast = Contrast.of(frame, ignored)
    shown = show_frame(frame, contrast, scale, ignored)
    size = shown.size

    wide = max(size[0], _SMALLEST)
    text = text_size(max(size))
    text = text if size[0] >= _SMALLEST else SMALLEST_TEXT
    line, block = text + 7, round(_BLOCK * text / SMALLEST_TEXT)
    inset = block * CROP
    best = targets[: (wide + _GAP) // (inset + _GAP)]
    strip = line + (inset + 2 * line if best or of_clip else 0)
    canvas = Image.new("RGB", (wide, size[1] + strip), GROUND)
    canvas.paste(shown, (0, 0))  # Pillow turns gray into RGB here
    font = load_font(text)
    draw = ImageDraw.Draw(canvas)
    for trail in (trails or {}).values():
        _draw_trail(draw, trail, scale, text)
    for target in targets if trails else ():  # on which no trail may lie
        x0, y0, x1, y1 = map(int, box_clear_of(target.bbox, scale, size))
        canvas.paste(shown.crop((x0, y0, x1, y1)), (x0, y0))
    names = _name_targets(targets, tracks)
    _draw_marks(canvas, targets, names, mask, scale, size, font, trails)

    summary = _sum_up(frame, targets, len(best), time)
    draw.text((_GAP, size[1] + 2), summary, fill=TEXT, font=font)
    for place, target in enumerate(best):
        left, top = place * (inset + _GAP), size[1] + line
        picture, part, factor, raised = cut_inset(frame, contrast, target.bbox, block)
        if mask is not None and factor:
            draw_outline(picture, cut_mask(mask, part), (0, 0), factor, MARK)
        canvas.paste(picture, (left, top))
        captions = f"{names[place]}  {show_score(target.score)}", f"{target.area} px"
        if raised > 1:
            captions = captions[0], f"{captions[1]}, contrast x{raised}"
        for number, caption in enumerate(captions):
            draw.text(
                (left + _GAP, top + inset + 1 + number * (line - 4)), caption, fill=TEXT, font=font
            )
    return canvas


def _name_targets(targets: Sequence[Target], tracks: Sequence[int | None] | None) -> list[str]:
    if tracks is None:
        return [str(rank + 1) for rank in range(len(targets))]
    return ["new" if track is None else f"#{track}" for track in tracks]


def _sum_up(
    frame: NDArray[Any], targets: Sequence[Target], enlarged: int, time: float | None
) -> str:
    count = "no target" if not targets else f"{len(targets)} target{'s' * (len(targets) > 1)}"
    parts = [f"{count} in {frame.shape[1]} x {frame.shape[0]} pixels"]
    if time is not None:
        parts.append(f"{time:.2f} s")
    if len(targets) > enlarged:
        parts.append(f"the best {enlarged} below, and {len(targets) - enlarged} more")
    return "; ".join(parts)


def _draw_marks(
    canvas: Image.Image,
    targets: Sequence[Target],
    names: Sequence[str],
    mask: BoolArray | None,
    scale: float,
    size: tuple[int, int],
    font: Any,
    trails: Mapping[int, Trail] | None,
) -> None:
    """Box, outline and label each target; the best last, on top, but labeled first."""
    draw = ImageDraw.Draw(canvas)
    marks = [box_clear_of(target.bbox, scale, size) for target in targets]
    for target, mark in zip(reversed(targets), reversed(marks), strict=True):
        if mask is not None and scale >= _ENLARGED:
            left, top = target.bbox[:2]
            around = cut_mask(mask, target.bbox)
            place = left * int(scale), top * int(scale)
            draw_outline(canvas, around, place, int(scale), MARK)
        x0, y0, x1, y1 = mark
        draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=GROUND)  # seen on white, too
        draw.rectangle(mark, outline=MARK)
    labeler = Labeler(canvas, (canvas.width, size[1]), marks, font)
    for target, name, mark in zip(targets, names, marks, strict=True):
        labels = [f"{name}  {show_score(target.score)}", name]
        trail = (trails or {}).get(int(name[1:])) if name.startswith("#") else None
        if trail is not None and trail.speed:
            labels.insert(0, f"{labels[0]}  {trail.speed}")
        labeler.write(mark, labels, MARK)


def _draw_trail(draw: ImageDraw.ImageDraw, trail: Trail, scale: float, text: int) -> None:
    """The way of a track, the older the dimmer."""
    points = [((x + 0.5) * scale, (y + 0.5) * scale) for x, y in trail.points]
    for number, ends in enumerate(itertools.pairwise(points), start=1):
        light = 0.4 + 0.6 * number / len(points)
        color = tuple(np.rint(np.array(_TRAIL) * light).astype(int).tolist())
        draw.line(ends, fill=color, width=2 * (text // SMALLEST_TEXT))
