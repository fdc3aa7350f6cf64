from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinglow.archive import units
from pinglow.archive.frames import UnitFrame, load, read_frames
from pinglow.archive.listing import list_sources
from pinglow.archive.units import Unit, key_of, make_units
from pinglow.io.places import PlaceError
from pinglow.io.video import read_video


def test_a_key_is_the_hash_of_all_that_results_depend_on() -> None:
    unit = Unit("s3://b/a.png", "etag", 0, None, 7)
    text = '["s3://b/a.png","etag",0,null,"model","{}"]'
    assert key_of(unit, "model", "{}") == hashlib.sha256(text.encode()).hexdigest()
    assert json.loads(text)[3] is None
    others = [
        dataclasses.replace(unit, **change)
        for change in ({"uri": "s3://b/b.png"}, {"mark": "other"}, {"first": 5}, {"last": 9})
    ]
    keys = {key_of(each, "model", "{}") for each in (unit, *others)}
    keys |= {key_of(unit, "other", "{}"), key_of(unit, "model", '{"min_score": 0.1}')}
    assert len(keys) == 7
    # What it weighs changes nothing that its mark does not tell.
    assert key_of(dataclasses.replace(unit, size=8), "model", "{}") in keys


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
@pytest.mark.parametrize("place", ["disk", "store"])
def test_slices_of_a_clip_have_each_of_its_frames_once(
    kind: str,
    place: str,
    tmp_path: Path,
    save_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    flaky: Any,
) -> None:
    clip = save_clip(tmp_path / f"clip.{kind}", count=23)
    whole = list(read_video(clip))
    assert len(whole) == 23
    source = str(clip)
    if place == "store":
        source = f"flaky://b/{clip.name}"
        flaky().pipe_file(source, clip.read_bytes())
    monkeypatch.setattr(units, "SLICE", 7)
    monkeypatch.setattr(units, "_LONG", 0)
    slices = list(make_units(list_sources([source], pytest.fail)))
    assert [(each.first, each.last) for each in slices] == [(0, 7), (7, 14), (14, None)]
    frames = [list(read_frames(each, load(each))) for each in slices]
    assert [len(each) for each in frames] == [7, 7, 9]
    for found, expected in zip([frame for some in frames for frame in some], whole, strict=True):
        assert (found.index, found.source) == (expected.index, source)
        assert found.time == pytest.approx(expected.time)
        np.testing.assert_array_equal(np.asarray(found.counts), expected.counts)


def test_a_short_clip_and_one_that_cannot_be_opened_are_one_unit(
    tmp_path: Path, save_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "_LONG", 0)
    (tmp_path / "broken.mp4").write_bytes(b"x" * 100)
    for clip in (save_clip(tmp_path / "clip.mkv"), tmp_path / "broken.mp4"):
        [unit] = make_units(list_sources([str(clip)], pytest.fail))
        assert (unit.first, unit.last) == (0, None)


def test_a_file_that_changes_while_it_is_read_is_not_taken(tmp_path: Path) -> None:
    still = tmp_path / "a.npy"
    np.save(still, np.zeros((4, 4), np.uint8))
    [unit] = make_units(list_sources([str(still)], pytest.fail))
    assert len(list(read_frames(unit, load(unit)))) == 1
    with pytest.raises(PlaceError, match=r"a\.npy has changed since it was listed"):
        list(read_frames(dataclasses.replace(unit, mark="older"), load(unit)))
    with pytest.raises(PlaceError, match="where the listing said"):
        load(dataclasses.replace(unit, size=3))


def test_a_tar_that_is_cut_short_gives_what_comes_before(footage: Path, tmp_path: Path) -> None:
    content = (footage / "shard.tar").read_bytes()
    cut = tmp_path / "cut.tar"

    def read(length: int) -> list[UnitFrame]:
        cut.write_bytes(content[:length])
        [unit] = make_units(list_sources([str(cut)], pytest.fail))
        return list(read_frames(unit, load(unit)))

    whole = read(len(content))
    assert [frame.source for frame in whole] == [f"{cut}/night/{n}.png" for n in (3, 4)]
    # In the second file, and after it: there the tar lacks its end.
    second = content.index(b"night/4.png")
    for length in (second + 600, second + 1024, second + 100):
        frames = read(length)
        assert frames[0].source == whole[0].source
        assert str(cut) in str(frames[-1].counts)
        assert "cut short" in str(frames[-1].counts)
