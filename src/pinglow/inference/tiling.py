"""When a frame is computed in tiles, and tiles whose results join without seams. Pure functions.

Each tile is computed with a margin around the core that it answers for, and starts where the
network's own grid of pooled pixels does, so that it computes what the whole frame would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pinglow.errors import OptionError

TILE: Final = 1024
"""Side of a tile at the network's input, pixels."""

MARGIN: Final = 64
"""Pixels at the network's input that a tile sees around its core."""

SMALLEST_SIDE: Final = 32
"""Pixels that a network takes at least; smaller frames are continued by reflection."""

_SMALLEST_TILE: Final = 256
_UNTILED: Final = 4  # tiles' areas
_GRID: Final = 32  # pixels; a multiple of what networks pool


@dataclass(frozen=True)
class Tile:
    """A part of a frame.

    Attributes:
        rows: Rows of the frame that are computed.
        columns: Columns of the frame that are computed.
        core_rows: Those of them, in the frame, that the tile answers for.
        core_columns: The same for columns; the cores cover the frame once.
    """

    rows: slice
    columns: slice
    core_rows: slice
    core_columns: slice

    @property
    def core(self) -> tuple[slice, slice]:
        """The core in the tile's own coordinates."""
        return (
            slice(self.core_rows.start - self.rows.start, self.core_rows.stop - self.rows.start),
            slice(
                self.core_columns.start - self.columns.start,
                self.core_columns.stop - self.columns.start,
            ),
        )


def check_tile(tile: int | None) -> None:
    """See whether tiles can have this side.

    Raises:
        OptionError: They would be too small.
    """
    if tile is not None and tile < _SMALLEST_TILE:
        raise OptionError(f"tile is {tile}; use at least {_SMALLEST_TILE} pixels")


def untiled_pixels(tile: int) -> int:
    """Pixels at the network's input up to which a frame is computed at once: four tiles' area."""
    return _UNTILED * tile**2


def is_untiled(height: int, width: int, tile: int | None) -> bool:
    """Whether a network input is computed at once; without tiles each is."""
    return tile is None or height * width <= untiled_pixels(tile)


def cut_into_tiles(height: int, width: int, side: int, margin: int) -> list[Tile]:
    """Cover a frame with tiles, row by row.

    Args:
        height: Of the frame, pixels.
        width: Of the frame, pixels.
        side: Largest side of a tile, at least 2 * margin + 32.
        margin: Pixels around a core, where the frame goes on.
    """
    return [
        Tile(rows, columns, core_rows, core_columns)
        for rows, core_rows in _cover(height, side, margin)
        for columns, core_columns in _cover(width, side, margin)
    ]


def choose_windows(height: int, width: int, side: int) -> list[tuple[slice, slice]]:
    """Windows that stand for a whole frame: the frame itself up to four windows' area.

    Else at most two by two, spread evenly.
    """
    if is_untiled(height, width, side):
        return [(slice(0, height), slice(0, width))]
    return [(rows, columns) for rows in _spread(height, side) for columns in _spread(width, side)]


def _cover(length: int, side: int, margin: int) -> list[tuple[slice, slice]]:
    """(computed, core) ranges along one axis."""
    step = (side - 2 * margin) // _GRID * _GRID
    ranges = []
    start = core = 0
    while start + side < length:
        end = start + margin + step
        ranges.append((slice(start, start + side), slice(core, end)))
        start, core = start + step, end
    return [*ranges, (slice(start, length), slice(core, length))]


def _spread(length: int, side: int) -> list[slice]:
    if length <= side:
        return [slice(0, length)]
    if length < 2 * side:
        start = (length - side) // 2
        return [slice(start, start + side)]
    quarters = (length // 4, 3 * length // 4)
    return [slice(middle - side // 2, middle - side // 2 + side) for middle in quarters]
