"""An archive run: list, see what is done, do the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pinglow.archive.frames import load, read_frames
from pinglow.archive.local import run_units
from pinglow.archive.parts import PARTS, Keys, schema
from pinglow.archive.place import Place
from pinglow.archive.plans import Keyed, Planner, Shard
from pinglow.archive.settings import SETTINGS, Settings
from pinglow.archive.units import Unit, key_of
from pinglow.archive.work import Outcome
from pinglow.errors import FrameError, MissingExtraError, OptionError
from pinglow.inference.ignored import Ignored
from pinglow.io.places import PlaceError

Runner = Callable[..., Iterator[Outcome]]
"""Takes units, settings, the folder of results and ``retry``; see `run_units`."""

_PATIENCE = 50  # units in a row that fail by the network or the store, after which a run ends


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        listed: Units listed so far.
        total: Units in all; None: listing has not ended.
        before: Units that were done before.
        done: Units that this run has done.
        frames: Frames predicted.
        targets: Targets found.
        broken: Frames that could not be read or predicted.
        problems: What is to be told at the end: the first of the broken and the failed.
        failed: Units that failed and have no part, and folders that could not be listed.
    """

    listed: int = 0
    total: int | None = None
    before: int = 0
    done: int = 0
    frames: int = 0
    targets: int = 0
    broken: int = 0
    problems: list[str] = field(default_factory=list)
    failed: int = 0


def run_archive(
    words: Sequence[str],
    settings: Settings,
    out: Place,
    *,
    shard: Shard | None = None,
    retry: bool = False,
    runner: Runner = run_units,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Predict all frames of sources that have no results yet.

    Args:
        words: Sources, see `list_sources`.
        settings: The model and its options.
        out: The destination; each settings have a folder of their own there.
        shard: The share of this machine; None: all.
        retry: Do units again some of whose frames could not be read.
        runner: What does the units.
        on_progress: Called after each unit.

    Raises:
        MissingExtraError: The library for Parquet is not installed.
        OptionError: What is ignored does not fit the first frame.
        DataError: A source cannot be listed, the destination does not take what is written, or
            store or network fail again and again.
        OSError: The disk of the destination does not take what is written.
    """
    schema()  # says now if its library is not installed
    place = out.below(settings.name)
    place.below(PARTS).tidy()
    keys = Keys(place)
    progress = Progress()

    def key(unit: Unit) -> str:
        return key_of(unit, settings.digest, settings.options)

    planner = Planner(place, words, shard or Shard(), key)

    # Of the first frame ever: where frames are of several sizes, others are rows.
    unfit = settings.ignored is not None and not any(place.names(PARTS))
    begun = False

    def left() -> Iterator[Keyed]:
        nonlocal unfit, begun
        for each in planner.units():
            if unfit:
                unfit = not _fits(each[1], settings.ignored)
            if not begun:  # not before: what never began is no archive
                place.write(SETTINGS, json.dumps(settings.describe(), indent=1).encode())
                begun = True
            state = keys.state(each[0])
            if state == "whole" or (state == "broken" and not retry):
                progress.before += 1
            else:
                yield each

    failing = 0
    try:
        for outcome in runner(left(), settings, place, retry=retry):
            _count(progress, outcome)
            failing = failing + 1 if outcome.unreachable else 0
            progress.listed = planner.listed
            progress.total = planner.listed if planner.done else None
            on_progress(progress)
            if failing >= _PATIENCE:
                raise PlaceError(
                    f"{failing} sources in a row could not be read, the last one because "
                    f"{outcome.failure}: when that is mended, the same command goes on"
                )
    finally:
        planner.stop()
    progress.total = progress.listed = planner.listed
    progress.failed += len(planner.troubles)
    progress.problems += planner.troubles
    return progress


def _fits(unit: Unit, ignored: Ignored | None) -> bool:
    """Whether what is ignored fits the first frame of a unit; not, where none can be read.

    Raises:
        OptionError: It does not.
    """
    if ignored is None:
        return True
    try:
        frames = read_frames(unit, load(unit))
        frame = next((each for each in frames if not isinstance(each.counts, FrameError)), None)
    except (FrameError, MissingExtraError, PlaceError):  # whoever does it says why
        return False
    if frame is None or isinstance(frame.counts, FrameError):
        return False
    try:
        ignored.area(frame.counts.shape)
    except FrameError as error:
        raise OptionError(f"{frame.source}: {error}") from error
    return True


_MOST_PROBLEMS = 1000  # that are kept


def _count(progress: Progress, outcome: Outcome) -> None:
    if outcome.failure is not None:
        progress.failed += 1
        told = [outcome.failure]
    else:
        progress.done += 1
        progress.frames += outcome.frames
        progress.targets += outcome.targets
        progress.broken += outcome.broken
        told = list(outcome.reasons)
    progress.problems += told[: max(0, _MOST_PROBLEMS - len(progress.problems))]
