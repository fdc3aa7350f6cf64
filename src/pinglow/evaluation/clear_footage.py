"""Alarms in footage that has no targets, from the table of candidates that `predict` writes of it.

An alarm is what a user is told of: where frames have times a track, else a single detection.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import DataError
from pinglow.inference.camera_motion import CameraMotion
from pinglow.inference.inputs import STILLS
from pinglow.inference.pipeline import Tracker
from pinglow.io.source import Source
from pinglow.output.sink import FrameRecord
from pinglow.output.tables import JsonlSink
from pinglow.structures import Detections, Target

MakeTracker = Callable[[float], Tracker]

_OVER: Final = 2.0  # seconds without a target after which no track is alive
_LIKELY: Final = 0.5  # scores from which on an alarm is looked at as a target
_LONG: Final = 1.0  # seconds that such a track lasts


@dataclass(frozen=True)
class Sighting:
    """One detection of an alarm.

    Attributes:
        source: File that the frame is of.
        page: The frame's number in it.
        time: Seconds from the start of the video; None: not of a video.
        place: The frame's place among those of its clip that were taken.
        target: What was found.
    """

    source: str
    page: int
    time: float | None
    place: int
    target: Target


@dataclass(frozen=True)
class Alarm:
    """What a user would have been told of.

    Attributes:
        clip: The clip or still that it is in.
        score: The strictest level tried above which it is an alarm.
        seconds: How long it is seen; 0 where there are no times.
        sightings: Its detections; those that come before a track is confirmed are left out.
    """

    clip: str
    score: float
    seconds: float
    sightings: tuple[Sighting, ...]

    @property
    def best(self) -> Sighting:
        """The detection that is surest."""
        return max(self.sightings, key=lambda sighting: sighting.target.score)

    @property
    def like_a_target(self) -> bool:
        """Whether it is so sure and lasts so long that it may be a target."""
        return self.score >= _LIKELY and self.seconds >= _LONG


@dataclass(eq=False)
class ClearClip:
    """Frames that depend on each other: of a video or a folder in time, or one still.

    Attributes:
        name: The video, the folder or the still.
        rate: Frames a second as a tracker is told; None: there are no times.
        frames: How many were predicted.
        exposure: Hours in which there may be an alarm; frames, where there are no times.
        found: Candidates of the frames that have some, by the frame's place in the clip.
        moved: How far the picture has moved before each of these, x and y in pixels.
    """

    name: str
    rate: float | None = None
    frames: int = 0
    exposure: float = 0.0
    found: dict[int, list[Sighting]] = field(default_factory=dict)
    moved: dict[int, tuple[float, float]] = field(default_factory=dict)

    def above(self, level: float) -> dict[int, list[Sighting]]:
        """The candidates whose score is above a level."""
        kept = {
            place: [each for each in self.found[place] if each.target.score > level]
            for place in sorted(self.found)
        }
        return {place: sightings for place, sightings in kept.items() if sightings}

    def alarms(self, level: float, make_tracker: MakeTracker) -> list[list[Sighting]]:
        """The alarms above a level, each as its detections: what predict says at this score.

        Args:
            level: A candidate is a detection if its score is above it.
            make_tracker: As for `pinglow.inference.pipeline.run`.
        """
        detections = self.above(level)
        if self.rate is None:
            return [[each] for sightings in detections.values() for each in sightings]
        tracker = make_tracker(self.rate)
        tracks: dict[int, list[Sighting]] = {}
        over = round(_OVER * self.rate) + 1
        before = -1
        for place, sightings in detections.items():
            for _ in range(min(place - before - 1, over)):
                tracker.update(_boxes_of([]))
            numbers = tracker.update(_boxes_of(sightings, self.moved.get(place, (0.0, 0.0))))
            for each, number in zip(sightings, numbers, strict=True):
                if number is not None:
                    tracks.setdefault(number, []).append(each)
            before = place
        return list(tracks.values())


def _boxes_of(sightings: Sequence[Sighting], moved: tuple[float, float] = (0.0, 0.0)) -> Detections:
    """A frame's detections as a tracker takes them: boxes, in their order, where nothing moves."""
    boxes = np.array([each.target.bbox for each in sightings], dtype=np.float64).reshape(-1, 4)
    boxes[:, :2] -= moved
    return Detections(boxes, np.array([each.target.score for each in sightings]))


class CandidateSink(JsonlSink):
    """targets.jsonl, with "moved": how far the camera moved the picture since the frame before.

    With it, tracks can be made anew at each level without the frames.

    Args:
        folder: Where the table is.
        sources: Of the job.
    """

    def __init__(self, folder: Path, sources: Sequence[Source]) -> None:
        super().__init__(folder)
        self._sequences = {source.name: source.sequence for source in sources}
        self._sequence: str | None = None

    def line(self, record: FrameRecord) -> dict[str, Any]:
        """See `LinesSink`."""
        sequence = self._sequences[record.source]
        if sequence != self._sequence:
            self._sequence, self._camera = sequence, CameraMotion()
        moved = self._camera.update(record.frame, record.prediction.targets)
        return {**super().line(record), "moved": moved}


class ClearFootage:
    """All clips, and the alarms in them at falling levels.

    Args:
        clips: Of frames without targets.
        make_tracker: As for `pinglow.inference.pipeline.run`.
    """

    def __init__(self, clips: Sequence[ClearClip], make_tracker: MakeTracker) -> None:
        self.clips = clips
        self._make = make_tracker
        self._alarms: dict[int, Alarm] = {}
        self._numbers = itertools.count()
        self._places: dict[Sighting, int] = {}
        self._last = [(0, 0)] * len(clips)

    @property
    def exposure(self) -> NDArray[np.float64]:
        """Hours, or frames, of each clip, (clips,)."""
        return np.array([clip.exposure for clip in self.clips])

    @property
    def frames(self) -> int:
        """How many were predicted."""
        return sum(clip.frames for clip in self.clips)

    @property
    def alarms(self) -> list[Alarm]:
        """Those of all levels that were counted, surest first."""
        return sorted(self._alarms.values(), key=lambda alarm: (-alarm.score, -alarm.seconds))

    def count(self, level: float) -> NDArray[np.int64]:
        """Alarms of each clip above a level, (clips,); it is called with falling levels."""
        for number, clip in enumerate(self.clips):
            detections = sum(map(len, clip.above(level).values()))
            if detections != self._last[number][0]:  # else all is as at the level before
                alarms = clip.alarms(level, self._make)
                self._last[number] = detections, len(alarms)
                self._note(clip, level, alarms)
        return np.array([alarms for _, alarms in self._last], dtype=np.int64)

    def _note(self, clip: ClearClip, level: float, alarms: list[list[Sighting]]) -> None:
        """Keep each alarm once, with the strictest level that it was found at."""
        for sightings in alarms:
            known = {self._places[each] for each in sightings if each in self._places}
            first, *others = sorted(known & self._alarms.keys()) or [next(self._numbers)]
            if level >= _LIKELY or first not in self._alarms:
                places = [each.place for each in sightings]
                lasts = 0.0 if clip.rate is None else (max(places) - min(places) + 1) / clip.rate
                score = self._alarms[first].score if first in self._alarms else level
                self._alarms[first] = Alarm(clip.name, score, lasts, tuple(sightings))
                for number in others:  # parts of this one at stricter levels
                    del self._alarms[number]
            self._places |= dict.fromkeys(sightings, first)


def read_clips(
    table: Path, sources: Sequence[Source], every: int, rate: float | None, *, in_time: bool
) -> list[ClearClip]:
    """The clips of sources, with the candidates that a job has written of them.

    Args:
        table: targets.jsonl; what it says of other sources is passed over.
        sources: Of the job.
        every: Each ``every``-th frame was taken.
        rate: Frames a second of sources that do not say theirs, before each ``every``-th is taken.
        in_time: The frames of a video, of a file or of a folder follow each other, and exposure is
            in hours; otherwise each image is a clip of its own, a video or a file of many pages is
            one, and exposure is in frames.

    Raises:
        DataError: Something in the table is not of such a job.
    """
    clips: dict[str, ClearClip] = {}
    shifts: dict[str, NDArray[np.float64]] = {}
    known = dict(_places(sources, every, in_time))
    try:
        with table.open(encoding="utf-8") as lines:
            for line in map(json.loads, lines):
                if line["source"] in known:
                    source, name, first = known[line["source"]]
                    # A tracker is told of stills what predict tells it.
                    told = (source.rate or STILLS) / every if in_time else None
                    clip = clips.setdefault(name, ClearClip(name, told))
                    clip.frames += 1
                    seconds = every / (source.rate or rate or STILLS)
                    clip.exposure += seconds / 3600 if in_time else 1
                    x, y = line.get("moved", (0, 0))
                    shift = shifts.setdefault(name, np.zeros(2))
                    shift += x, y
                    place = first + line["frame"] // every
                    found = _sightings(line, place)
                    if found:
                        clip.found[place] = found
                        clip.moved[place] = (float(shift[0]), float(shift[1]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{table} is not a table of candidates: start anew, without it") from error
    return list(clips.values())


def _places(
    sources: Sequence[Source], every: int, in_time: bool
) -> Iterator[tuple[str, tuple[Source, str, int]]]:
    """Of each source the name of its clip, and the place there of its first frame."""
    order: Counter[str] = Counter()
    for source in sources:
        yield (
            source.name,
            (
                source,
                source.sequence if in_time else source.name,
                order[source.sequence] // every if in_time else 0,
            ),
        )
        order[source.sequence] += source.sequence != source.name  # a single image


def _sightings(line: dict[str, Any], place: int) -> list[Sighting]:
    return [
        Sighting(
            source=line["source"],
            page=line["frame"],
            time=line.get("time"),
            place=place,
            target=Target(
                x=each["x"],
                y=each["y"],
                bbox=tuple(each["bbox"]),
                area=each["area"],
                score=each["score"],
            ),
        )
        for each in line["targets"]
    ]
