"""Contact sheets: targets side by side with their outlines, to look through labels quickly."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pinglow.data.folder import find_mask, read_image, read_mask
from pinglow.files import write_whole
from pinglow.structures import BoolArray
from pinglow.terminal import escape_controls

Cell = tuple[str, Path, tuple[int, int, int, int]]
"""A frame's name, its image, and (left, top, width, height) of a target."""

_COLUMNS, _ROWS = 6, 8  # targets a page
_PAGES: Final = 20  # more nobody looks through
_CROP: Final = 25  # px of the frame, at least
_SIDE: Final = 125  # px as shown
_LINE: Final = 18
_GAP: Final = 6
_LONGEST: Final = 38  # letters of a caption
_OUTLINE, _TEXT, _GROUND = (255, 176, 0), (235, 235, 235), (24, 24, 24)


def write_contact_sheet(
    folder: Path, cells: Sequence[Cell], derived: Mapping[str, str]
) -> list[Path]:
    """Write contact/page-1.png and so on: of each target a crop, as it is and outlined.

    Derived masks come first. Of many targets an even choice is shown, on at most 20 pages.

    Args:
        folder: A data folder with masks.
        cells: Targets.
        derived: What a derived mask was derived from, by its frame's name.

    Returns:
        The pages.
    """
    ordered = sorted(cells, key=lambda cell: cell[0] not in derived)
    most = _COLUMNS * _ROWS * _PAGES
    if len(ordered) > most:
        ordered = [ordered[index * len(ordered) // most] for index in range(most)]
    read = functools.lru_cache(maxsize=2)(functools.partial(_read, folder))
    pages: list[Path] = []
    for start in range(0, len(ordered), _COLUMNS * _ROWS):
        some = ordered[start : start + _COLUMNS * _ROWS]
        rows = -(-len(some) // _COLUMNS)
        width, height = 2 * _SIDE + _GAP, _SIDE + _LINE + _GAP
        sheet = Image.new("RGB", (_COLUMNS * (width + _GAP), rows * height), _GROUND)
        for place, (name, image, box) in enumerate(some):
            drawn = _draw_cell(*read(name, image), box, name, derived.get(name))
            sheet.paste(drawn, (place % _COLUMNS * (width + _GAP), place // _COLUMNS * height))
        content = io.BytesIO()
        sheet.save(content, "PNG")
        pages.append(folder / "contact" / f"page-{len(pages) + 1}.png")
        write_whole(pages[-1], content.getvalue())
    return pages


def _read(folder: Path, name: str, image: Path) -> tuple[NDArray[Any], BoolArray]:
    path = find_mask(folder, name)
    assert path is not None
    return read_image(image), read_mask(path).targets


def _draw_cell(
    frame: NDArray[Any],
    mask: BoolArray,
    box: tuple[int, int, int, int],
    name: str,
    source: str | None,
) -> Image.Image:
    """A target's crop twice, the second with the outline of its pixels, and a caption."""
    side = max(_CROP, 2 * max(box[2:]) + 1)
    left, top = box[0] + box[2] // 2 - side // 2, box[1] + box[3] // 2 - side // 2
    rows = np.clip(np.arange(top, top + side), -1, frame.shape[0])
    columns = np.clip(np.arange(left, left + side), -1, frame.shape[1])
    inside = np.outer(
        (rows >= 0) & (rows < frame.shape[0]), (columns >= 0) & (columns < frame.shape[1])
    )
    rows, columns = rows.clip(0, frame.shape[0] - 1), columns.clip(0, frame.shape[1] - 1)
    values = np.where(inside, frame[rows][:, columns].astype(np.float64), np.nan)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    gray = np.nan_to_num((values - low) / max(high - low, 1e-30) * 255, nan=0, posinf=255, neginf=0)
    crop = Image.fromarray(gray.clip(0, 255).astype(np.uint8)).convert("RGB")
    crop = crop.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    cell = Image.new("RGB", (2 * _SIDE + _GAP, _SIDE + _LINE), _GROUND)
    cell.paste(crop, (0, 0))
    cell.paste(crop, (_SIDE + _GAP // 2, 0))
    draw = ImageDraw.Draw(cell)
    _outline(draw, mask[rows][:, columns] & inside, _SIDE + _GAP // 2, _SIDE / side)
    note = f"{source}: {name}" if source else name
    note = escape_controls(note if len(note) <= _LONGEST else f"{note[: _LONGEST - 2]}..")
    draw.text((2, _SIDE + 1), note, fill=_TEXT, font=ImageFont.load_default(12))
    return cell


def _outline(draw: ImageDraw.ImageDraw, mask: BoolArray, left: float, scale: float) -> None:
    """Lines along the edges between pixels in the mask and out of it."""
    padded = np.pad(mask, 1)
    for y, x in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]).tolist():
        draw.line((left + x * scale, y * scale, left + (x + 1) * scale, y * scale), _OUTLINE)
    for y, x in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]).tolist():
        draw.line((left + x * scale, y * scale, left + x * scale, (y + 1) * scale), _OUTLINE)
