from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinglow.errors import DataError
from pinglow.evaluation.clear_footage import (
    CandidateSink,
    ClearClip,
    ClearFootage,
    Sighting,
    read_clips,
)
from pinglow.inference.tracking import Tracker
from pinglow.io.source import Source
from pinglow.output.sink import FrameRecord
from pinglow.structures import Clip, Detections, Target

pytest.importorskip("trackers", reason="needs trackers: pip install '.[video]'")


def sighting(place: int, x: float, score: float) -> Sighting:
    target = Target(x, 10.0, (round(x) - 1, 9, 3, 3), 9, score)
    return Sighting("a.mp4", place, place / 10, place, target)


def clip_of(*sightings: Sighting, rate: float | None = 10.0, frames: int = 200) -> ClearClip:
    clip = ClearClip("a.mp4", rate, frames, frames / 36000 if rate else frames)
    for each in sightings:
        clip.found.setdefault(each.place, []).append(each)
    return clip


def test_alarms_are_what_a_tracker_of_every_frame_says() -> None:
    random = np.random.default_rng(0)
    seen = [
        sighting(place, float(random.uniform(0, 300)), float(random.uniform()))
        for place in range(0, 150)
        if random.uniform() < 0.7
    ]
    seen += [sighting(place, 100 + place, 0.6) for place in [*range(20, 60), *range(120, 150)]]
    clip = clip_of(*seen)
    for level in (0.8, 0.5, 0.1):
        tracker = Tracker(10.0)
        numbers: set[int] = set()
        for place in range(200):  # without passing over any
            here = [each.target for each in clip.found.get(place, []) if each.target.score > level]
            boxes = np.array([each.bbox for each in here], dtype=np.float64).reshape(-1, 4)
            found = Detections(boxes, np.array([each.score for each in here]))
            numbers |= {number for number in tracker.update(found) if number is not None}
        assert len(clip.alarms(level, Tracker)) == len(numbers)
    assert len(numbers) >= 2


def test_the_score_of_an_alarm_is_the_level_at_which_it_is_still_one() -> None:
    scores = [0.2, 0.9, 0.9, 0.7, 0.7, 0.3]
    clip = clip_of(*(sighting(place, 50 + place, score) for place, score in enumerate(scores)))
    footage = ClearFootage([clip], Tracker)
    counts = [int(footage.count(level).sum()) for level in (0.95, 0.8, 0.69, 0.5, 0.1)]
    assert counts == [0, 0, 1, 1, 1]
    [alarm] = footage.alarms
    assert alarm.score == 0.69
    assert alarm.best.target.score == 0.7  # the first that confirm it are not known as a track's
    assert not alarm.like_a_target


def test_alarms_that_a_lower_score_joins_are_one() -> None:
    scores = [0.75] * 10 + [0.6] * 40 + [0.9] * 10  # the later part is the surer one
    clip = clip_of(*(sighting(place, 50, score) for place, score in enumerate(scores)))
    footage = ClearFootage([clip], Tracker)
    assert [int(footage.count(level).sum()) for level in (0.8, 0.7, 0.55)] == [1, 2, 1]
    [alarm] = footage.alarms
    assert alarm.score == 0.8
    assert alarm.seconds == pytest.approx(5.8, abs=0.2)


def test_a_sure_and_long_track_looks_like_a_target() -> None:
    footage = ClearFootage([clip_of(*(sighting(p, 50 + p, 0.9) for p in range(30)))], Tracker)
    footage.count(0.8)
    [alarm] = footage.alarms
    assert alarm.like_a_target
    assert alarm.seconds == pytest.approx(2.8, abs=0.2)


def test_what_stands_still_is_one_alarm_though_the_camera_turns() -> None:
    clip = clip_of(*(sighting(place, 60.0 * place, 0.9) for place in range(10)))
    assert clip.alarms(0.5, Tracker) == []  # too far from each other
    clip.moved = {place: (60.0 * place, 0.0) for place in clip.found}
    [alarm] = clip.alarms(0.5, Tracker)
    assert len(alarm) >= 7


def test_the_table_says_how_the_camera_moved(tmp_path: Path) -> None:
    scene = np.random.default_rng(0).normal(size=(96, 200)).cumsum(0).cumsum(1)
    sink = CandidateSink(tmp_path, [Source("a.mkv", 9, 10.0), Source("b.mkv", 9, 10.0)])
    nothing = Detections(np.empty((0, 4)), np.empty(0))
    for source, page, left in (
        ("a.mkv", 0, 0),
        ("a.mkv", 1, 6),
        ("a.mkv", 2, 12),
        ("b.mkv", 0, 40),
    ):
        frame = scene[:, left : left + 96]
        sink.write(FrameRecord(source, page, "n", frame, nothing, 0.0, Clip("a", 10.0)))
    sink.close()
    lines = map(json.loads, (tmp_path / "targets.jsonl").read_text().splitlines())
    moved = [line["moved"] for line in lines]
    np.testing.assert_allclose(moved, [(0, 0), (-6, 0), (-6, 0), (0, 0)], atol=0.6)


def test_without_times_each_detection_is_an_alarm() -> None:
    clip = clip_of(*(sighting(0, 20.0 * n, 0.1 * n) for n in range(1, 6)), rate=None, frames=1)
    footage = ClearFootage([clip, clip_of(rate=None, frames=1)], Tracker)
    assert footage.count(0.25).tolist() == [3, 0]
    assert len(footage.alarms) == 3
    assert footage.exposure.tolist() == [1, 1]
    assert footage.frames == 2


def line(source: str, frame: int, *targets: Target) -> str:
    entry: dict[str, Any] = {"source": source, "frame": frame, "name": "n"}
    entry["targets"] = [
        {"x": t.x, "y": t.y, "bbox": list(t.bbox), "area": t.area, "score": t.score}
        for t in targets
    ]
    return json.dumps(entry) + "\n"


def still(name: str) -> Source:
    source = Source(Path(name), 1)
    source.sequence = "in"
    return source


def test_frames_keep_their_places_where_one_could_not_be_read(tmp_path: Path) -> None:
    table, target = tmp_path / "targets.jsonl", sighting(0, 9, 0.5).target
    lines = [line(f"in/{n}.png", 0, target) for n in (0, 4, 6)] + [line("gone.png", 0, target)]
    lines += [line("v.mkv", page, target) for page in (0, 6)]
    table.write_text("".join(lines))
    sources = [*(still(f"in/{n}.png") for n in range(8)), Source(Path("v.mkv"), 9, rate=20.0)]
    folder, video = read_clips(table, sources, 2, 5.0, in_time=True)
    assert sorted(folder.found) == [0, 2, 3]  # the third of every second one is missing
    assert sorted(video.found) == [0, 3]
    assert folder.exposure == pytest.approx(3 * 2 / 5 / 3600)
    assert video.exposure == pytest.approx(2 * 2 / 20 / 3600)
    assert (folder.rate, video.rate) == (12.5, 10.0)
    alone = read_clips(table, sources, 2, None, in_time=False)
    assert [clip.name for clip in alone] == ["in/0.png", "in/4.png", "in/6.png", "v.mkv"]
    assert [clip.exposure for clip in alone] == [1, 1, 1, 2]


def test_another_table_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "targets.jsonl").write_text('{"frames": 3}\n')
    with pytest.raises(DataError, match="not a table of candidates"):
        read_clips(tmp_path / "targets.jsonl", [still("in/0.png")], 1, None, in_time=False)
