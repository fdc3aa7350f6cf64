"""What calibration on footage without targets leaves to look at: tables, a curve, pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from pinglow.errors import FrameError
from pinglow.evaluation.clear_footage import Alarm, Sighting
from pinglow.evaluation.operating_point import LevelRate, Wish
from pinglow.extras import is_installed
from pinglow.io.source import Selection, Source
from pinglow.output.overlay import draw_overlay
from pinglow.output.sink import PictureSink
from pinglow.training.curves import save_figure, write_rows

PICTURES: Final = 20
"""Alarms that a picture is made of, the surest ones."""

_COLUMNS: Final = (
    *("rank", "score", "clip", "source", "frame", "time", "x", "y", "width", "height"),
    *("seconds", "detections"),
)


class AlarmPictures(PictureSink):
    """alarms/<rank>_<stem>.png: the frame in which an alarm is surest, with it marked."""

    place = "alarms"


def write_levels(folder: Path, rates: Sequence[LevelRate], wish: Wish) -> None:
    """Write levels.csv, and levels.png if matplotlib is installed.

    Args:
        folder: For them.
        rates: From strict to loose.
        wish: What they are compared with.
    """
    rows = [asdict(rate) for rate in rates]
    write_rows(folder / "levels.csv", list(rows[0]), rows)
    if is_installed("matplotlib"):
        _draw(folder / "levels.png", rates, wish)


def _draw(path: Path, rates: Sequence[LevelRate], wish: Wish) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    scores = [rate.level for rate in rates]
    axes.step(scores, [rate.rate for rate in rates], label="seen", where="post")
    axes.step(scores, [rate.bound for rate in rates], label="upper bound", where="post")
    axes.axhline(wish.alarms, color="gray", linestyle=":", label="wished")
    certified = [rate.level for rate in rates if rate.certified]
    if certified:
        axes.axvline(certified[-1], color="green", linestyle="--", label="chosen score")
    axes.set_xscale("logit", one_half="0.5")
    axes.set(xlabel="smallest score", ylabel=f"alarms a{'n' * (wish.unit == 'hour')} {wish.unit}")
    axes.set_ylim(0, None)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path, 110)


def write_alarms(folder: Path, alarms: Sequence[Alarm], sources: Sequence[Source]) -> None:
    """Write alarms.csv, a row an alarm, and a picture of each of the surest in alarms/."""
    rows = [_row(rank, alarm) for rank, alarm in enumerate(alarms, start=1)]
    write_rows(folder / "alarms.csv", _COLUMNS, rows)
    shutil.rmtree(folder / AlarmPictures.place, ignore_errors=True)  # of an earlier calibration
    if not alarms:
        return
    pictures = AlarmPictures(folder)
    known = {source.name: source for source in sources}
    for rank, alarm in enumerate(alarms[:PICTURES], start=1):
        best = alarm.best
        source = known[best.source]
        frame = _read(source, best)
        if frame is not None:
            stem = source.stem.encode("utf-8", "backslashreplace")[:200].decode(errors="ignore")
            pictures.save(draw_overlay(frame, [best.target]), f"{rank:02}_{stem}.png")


def _row(rank: int, alarm: Alarm) -> Mapping[str, Any]:
    best = alarm.best
    place = (best.source, best.page, "" if best.time is None else best.time)
    box = (best.target.x, best.target.y, *best.target.bbox[2:])
    values = (rank, alarm.score, alarm.clip, *place, *box, round(alarm.seconds, 3))
    return dict(zip(_COLUMNS, (*values, len(alarm.sightings)), strict=True))


def _read(source: Source, sighting: Sighting) -> NDArray[Any] | None:
    """The frame of a sighting; None: it is gone, and so is its picture."""
    try:
        if source.rate is None or not sighting.time:
            return source.read(sighting.page)
        # From just before it, so that what comes earlier need not be decoded.
        near = Selection(start=max(0.0, sighting.time - 0.5 / source.rate))
        found = next(source.select(near), None)
    except (FrameError, OSError):
        return None
    return None if found is None or isinstance(found.counts, FrameError) else found.counts
