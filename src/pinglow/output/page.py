"""The sink of a page: all frames of a job, to be looked at in a browser without a server."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Set
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from pinglow.files import write_whole
from pinglow.output.drawing import MARK, Contrast, box_clear_of, cut_inset, show_frame, show_score
from pinglow.output.sink import FrameRecord, PictureSink
from pinglow.output.tables import JsonlSink
from pinglow.structures import BoolArray, Prediction, Target

_THUMBNAIL: Final = (240, 180)  # px
_BLOCK: Final = 3  # px that a pixel of the frame becomes in a thumbnail's inset
_LARGEST: Final = 2048  # the long side of a frame's picture, px
_OUTLINED: Final = 100  # targets of a frame; more would make the page heavy
_STEPS: Final = 60


class PageSink(PictureSink):
    """html/index.html: thumbnails by score, each frame with its targets outlined.

    Beside it are html/thumbnails and html/frames, a WebP a frame, and html/frames.jsonl, from
    which the page is made: at the end, and before that each time the frames have doubled.
    """

    place = "html"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in ("thumbnails", "frames"):
            (self._folder / name).mkdir(exist_ok=True)
        self._lines = _FrameLines(folder)
        self._frames = 0
        self._shown = 0

    def go_on(self, done: Set[str]) -> None:
        """See `Sink`."""
        self._lines.go_on(done)
        self._frames = len(self._read())

    def write(self, record: FrameRecord) -> None:
        """Write the pictures of a frame, and note it."""
        contrast = Contrast.of(record.frame, record.ignored)
        longest = max(record.frame.shape)
        scale = min(1.0, _LARGEST / longest)
        shown = show_frame(record.frame, contrast, scale, record.ignored)
        self._save(shown, f"frames/{record.name}.webp", 90)
        self._save(_draw_thumbnail(record, contrast, shown), f"thumbnails/{record.name}.webp", 80)
        self._lines.write(record)
        self._frames += 1

    def end_source(self, source: str, whole: bool) -> None:
        """Make the page, if it has half of the frames at most."""
        if self._frames and self._frames >= 2 * self._shown:
            self._make_page()

    def close(self) -> None:
        """Make the page."""
        self._lines.close()
        if self._frames > self._shown:
            self._make_page()

    def _make_page(self) -> None:
        lines = self._read()
        content = make_page(lines)
        write_whole(self._folder / "index.html", content.encode(), durable=False)
        self._shown = len(lines)

    def _read(self) -> list[str]:
        path = self._folder.parent / _FrameLines.place
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def _save(self, image: Image.Image, name: str, quality: int) -> None:
        content = io.BytesIO()
        image.save(content, "WEBP", quality=quality, method=0)
        write_whole(self._folder / name, content.getvalue(), durable=False)


class _FrameLines(JsonlSink):
    """html/frames.jsonl: what the page shows of each frame."""

    place = "html/frames.jsonl"

    def write(self, record: FrameRecord) -> None:
        found = record.prediction
        mask = found.mask if isinstance(found, Prediction) else None
        tracks = record.tracks or (None,) * len(found.targets)
        pairs = list(zip(found.targets, tracks, strict=True))[:_OUTLINED]
        line: dict[str, Any] = {
            "source": record.source,
            "frame": record.page,
            "name": record.name,
            "width": record.frame.shape[1],
            "height": record.frame.shape[0],
            "targets": [_describe(target, track, mask) for target, track in pairs],
            "more": max(0, len(found.targets) - _OUTLINED),
        }
        if record.time is not None:
            line["time"] = round(record.time, 4)
        self._append(json.dumps(line, allow_nan=False) + "\n")


def make_page(lines: list[str]) -> str:
    """The page of frames, each a line of JSON; it holds all but the pictures, and asks for nothing.

    Names are data in it, never markup, and only the page's own script may run.
    """
    page = files("pinglow.output").joinpath("page.html").read_text(encoding="utf-8")
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # A slider of equal steps of the score would put most frames into its last one.
    logits = np.linspace(-4, 9.2, _STEPS)
    scores = [0.0, *(1 / (1 + np.exp(-logits))).tolist()]
    steps = json.dumps([[score, show_score(score) if score else "any"] for score in scores])
    data = f'{{"steps": {steps}, "frames": [{", ".join(lines)}]}}'.replace("<", "\\u003c")
    head, _, rest = page.partition("PAGE_DATA")
    return head.replace("SCRIPT_HASH", digest) + data + rest


def _describe(target: Target, track: int | None, mask: BoolArray | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "x": round(target.x, 1),
        "y": round(target.y, 1),
        "bbox": list(target.bbox),
        "area": target.area,
        "score": target.score,
        "label": show_score(target.score),
    }
    if track is not None:
        described["track"] = track
    if mask is not None:
        left, top, width, height = target.bbox
        described["path"] = trace_outline(mask[top : top + height, left : left + width], left, top)
    return described


def trace_outline(mask: BoolArray, left: int, top: int) -> str:
    """The edges of an (H, W) mask's pixels as an SVG path, pixel i from i to i + 1."""
    padded = np.pad(mask, 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # (H + 1, W) edges above each pixel
    down = (padded[1:-1, 1:] != padded[1:-1, :-1]).T  # (W + 1, H) edges before each pixel
    parts = [f"M{left + x} {top + y}h{length}" for y, x, length in _runs(across)]
    parts += [f"M{left + x} {top + y}v{length}" for x, y, length in _runs(down)]
    return "".join(parts)


def _runs(edges: BoolArray) -> list[tuple[int, int, int]]:
    """Row, start and length of each run of True in the rows of an array."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return list(zip(rows.tolist(), starts.tolist(), (ends - starts).tolist(), strict=True))


def _draw_thumbnail(record: FrameRecord, contrast: Contrast, shown: Image.Image) -> Image.Image:
    """The frame with its targets marked, and its best one enlarged in the corner away from it."""
    height, width = record.frame.shape
    scale = min(_THUMBNAIL[0] / width, _THUMBNAIL[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.new("RGB", _THUMBNAIL)
    corner = (_THUMBNAIL[0] - size[0]) // 2, (_THUMBNAIL[1] - size[1]) // 2
    smooth = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    picture = shown.resize(size, smooth).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for target in record.prediction.targets[:_OUTLINED]:
        draw.rectangle(box_clear_of(target.bbox, scale, size), outline=MARK)
    small.paste(picture, corner)
    if record.prediction.targets and scale < 2 * _BLOCK:
        best = record.prediction.targets[0]
        inset = cut_inset(record.frame, contrast, best.bbox, _BLOCK)[0]
        right, bottom = best.x < width / 2, best.y < height / 2
        place = (
            (_THUMBNAIL[0] - inset.width) * right,
            (_THUMBNAIL[1] - inset.height) * bottom,
        )
        ImageDraw.Draw(inset).rectangle((0, 0, inset.width - 1, inset.height - 1), outline=MARK)
        small.paste(inset, place)
    return small
