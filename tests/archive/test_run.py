"""Runs of an archive, in one process and in several: nothing is lost, nothing is done twice."""

from __future__ import annotations

import csv
import errno
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from finders import DyingSettings, die_of_wide, find_bright, finder_settings, save_still
from pinglow.archive import local, work
from pinglow.archive.listing import list_sources
from pinglow.archive.local import answer, run_units
from pinglow.archive.merge import merge
from pinglow.archive.parts import Keys
from pinglow.archive.place import Place, open_place
from pinglow.archive.plans import Shard
from pinglow.archive.run import Progress, run_archive
from pinglow.archive.status import list_results, measure
from pinglow.archive.units import Unit, key_of, make_units
from pinglow.archive.work import work_on
from pinglow.errors import DataError, FrameError, OptionError
from pinglow.files import write_whole
from pinglow.inference import pipeline
from pinglow.inference.ignored import Ignored
from pinglow.inference.predictor import Predictor
from pinglow.io.places import PlaceError
from pinglow.io.source import open_source
from pinglow.models.card import ModelCard
from pinglow.output.sinks import open_sinks
from pinglow.structures import Prediction

SETTINGS = finder_settings()


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*/parts/*/[!.]*")}


def go(source: Path | str, out: Path | str, **options: Any) -> Progress:
    settings = options.pop("settings", SETTINGS)
    return run_archive([str(source)], settings, open_place(str(out)), **options)


def test_the_tables_are_those_of_predict(footage: Path, tmp_path: Path) -> None:
    done = go(footage, tmp_path / "out")
    assert (done.done, done.frames, done.targets, done.problems) == (5, 12, 9, [])
    merged = merge(open_place(str(tmp_path / "out")).below(SETTINGS.name), tmp_path / "tables")
    assert (merged.units, merged.frames, merged.targets, merged.missing) == (5, 12, 9, 0)

    files = [footage / name for name in ("cam1/a.png", "cam1/b.png", "clip.mkv", "stack.tif")]
    with open_sinks(["csv", "coco"], tmp_path / "reference") as sinks:
        pipeline.run([open_source(file) for file in files], find_bright, sinks)
    expected = (tmp_path / "reference/targets.csv").read_text().splitlines()
    table = (tmp_path / "tables/targets.csv").read_text().splitlines()
    assert [line for line in table if "shard.tar" not in line] == expected
    assert [line.split(",")[0] for line in table if "shard.tar" in line] == [
        f"{footage}/shard.tar/night/{number}.png" for number in (3, 4)
    ]

    coco = json.loads((tmp_path / "tables/coco.json").read_text())
    reference = json.loads((tmp_path / "reference/coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    reference_names = {image["id"]: image["file_name"] for image in reference["images"]}

    def of(content: dict[str, Any], names: dict[int, str]) -> list[Any]:
        rows = [{**each, "image": names[each["image_id"]]} for each in content["annotations"]]
        rows = [row for row in rows if "shard.tar" not in row["image"]]
        return [{k: v for k, v in row.items() if k not in ("id", "image_id")} for row in rows]

    assert of(coco, names) == of(reference, reference_names)
    assert {name for name in names.values() if "shard.tar" not in name} == {
        *reference_names.values()
    }
    frames = pq.read_table(tmp_path / "tables/frames.parquet").to_pylist()
    assert len(frames) == 12
    assert frames[1] | {"source": ""} == {
        **{"source": "", "frame": 0, "time": None, "frame_width": 30, "frame_height": 20},
        **{"targets": 0, "problem": None},
    }
    targets = pq.read_table(tmp_path / "tables/targets.parquet").to_pylist()
    rows = list(csv.DictReader(table))
    assert [(str(row["x"]), row["source"]) for row in targets] == [
        (row["x"], row["source"]) for row in rows
    ]


def test_a_second_run_does_only_what_is_new_or_was_changed(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(footage, out)
    before = parts(out)
    again = go(footage, out)
    assert (again.done, again.before, again.total) == (0, 5, 5)
    save_still(footage / "cam1" / "a.png", 9)
    save_still(footage / "cam2" / "c.png", 5)
    (footage / "stack.tif").unlink()
    delta = go(footage, out)
    assert (delta.done, delta.before) == (2, 3)
    after = parts(out)
    assert before.items() <= after.items()
    place = Place(f"{out}/{SETTINGS.name}")
    merged = merge(place, tmp_path / "tables")
    assert merged.frames == 10
    state = measure(Place(str(out)), SETTINGS.name)
    assert (state.planned, state.done, state.missing, state.parts) == (5, 5, 0, 7)
    rows = csv.DictReader((tmp_path / "tables/targets.csv").read_text().splitlines())
    assert [row["left"] for row in rows if row["source"].endswith("a.png")] == ["16"]


def test_a_broken_frame_is_a_row_and_is_tried_again_only_if_asked(tmp_path: Path) -> None:
    good, out = save_still(tmp_path / "in" / "a.png"), tmp_path / "out"
    (tmp_path / "in" / "broken.png").write_bytes(good.read_bytes()[:60])
    first = go(tmp_path / "in", out)
    assert (first.frames, first.broken, first.failed) == (1, 1, 0)
    assert "broken.png" in first.problems[0]
    assert measure(Place(str(out)), SETTINGS.name).broken == 1
    place = Place(f"{out}/{SETTINGS.name}")
    assert merge(place, tmp_path / "tables").broken == 1
    [row] = [
        row
        for row in pq.read_table(tmp_path / "tables/frames.parquet").to_pylist()
        if row["problem"]
    ]
    assert row["source"] == str(tmp_path / "in" / "broken.png")
    again = go(tmp_path / "in", out)
    assert (again.before, again.broken) == (2, 0)
    asked = go(tmp_path / "in", out, retry=True)
    assert (asked.before, asked.broken) == (1, 1)


def test_what_goes_well_when_it_is_tried_again_takes_the_place(tmp_path: Path) -> None:
    save_still(tmp_path / "a.png")

    def fail(frame: NDArray[Any]) -> Prediction:
        raise FrameError("no memory was left")

    assert go(tmp_path / "a.png", tmp_path / "out", settings=finder_settings(fail)).broken == 1
    assert go(tmp_path / "a.png", tmp_path / "out", retry=True).targets == 1
    [name] = parts(tmp_path / "out")
    assert "broken" not in name


def test_what_is_ignored_has_to_fit_the_first_frame(tmp_path: Path) -> None:
    save_still(tmp_path / "in" / "a.png", width=30)
    out = tmp_path / "out"
    settings = replace(SETTINGS, ignored=Ignored.parse([], "0,0,40,20"))
    for runner in (run_units, partial(run_units, workers=2)):
        with pytest.raises(OptionError, match=r"a\.png: the crop .* reaches out"):
            go(tmp_path / "in", out, settings=settings, runner=runner)
    assert list_results(Place(str(out))) == []
    (tmp_path / "in" / "0.png").write_bytes(b"no picture")
    with pytest.raises(OptionError, match=r"a\.png"):
        go(tmp_path / "in", out, settings=settings)
    settings = replace(SETTINGS, ignored=Ignored.parse([], "0,0,30,20"))
    assert go(tmp_path / "in", out, settings=settings).frames == 1


def test_a_source_without_frames_has_a_part(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    assert go(tmp_path / "empty.tar", tmp_path / "out").done == 1
    [content] = parts(tmp_path / "out").values()
    assert pq.read_table(pa.BufferReader(content)).num_rows == 0
    assert go(tmp_path / "empty.tar", tmp_path / "out").before == 1


def test_two_runs_at_once_do_no_harm(footage: Path, tmp_path: Path) -> None:
    go(footage, tmp_path / "one")
    runs = [threading.Thread(target=go, args=(footage, tmp_path / "two")) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert parts(tmp_path / "one") == parts(tmp_path / "two")


def test_a_store_gives_what_a_disk_gives(footage: Path, tmp_path: Path, flaky: Any) -> None:
    store = flaky()
    for path in footage.rglob("*"):
        if path.is_file():
            store.pipe_file(f"flaky://b/in/{path.relative_to(footage)}", path.read_bytes())
    assert go("flaky://b/in", "flaky://b/out").done == 5
    assert go("flaky://b/in", "flaky://b/out").before == 5
    go(footage, tmp_path / "out")
    tables = []
    for place, source in ((f"{tmp_path}/out", str(footage)), ("flaky://b/out", "flaky://b/in")):
        merge(open_place(place).below(SETTINGS.name), tmp_path / "tables")
        tables.append((tmp_path / "tables/targets.csv").read_text().replace(source, ""))
    assert tables[0] == tables[1]


@pytest.fixture
def stored(flaky: Any, tmp_path: Path) -> Any:
    """Return a store with three stills, in flaky://b/in."""
    for number in range(3):
        content = save_still(tmp_path / "s.png", number).read_bytes()
        flaky().pipe_file(f"flaky://b/in/{number}.png", content)
    return flaky


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("1.png"), "is not there"),
        (PermissionError("The provided token has expired"), "renew the credentials"),
        (PermissionError("Access Denied"), "may not be read"),
    ],
)
def test_what_cannot_be_read_now_is_told_and_done_by_a_later_run(
    stored: Any, tmp_path: Path, error: Exception, reason: str
) -> None:
    stored.faults = {"1.png": [error]}
    done = go("flaky://b/in", tmp_path / "out")
    assert (done.done, done.failed, done.broken) == (2, 1, 0)
    assert "flaky://b/in/1.png" in done.problems[0]
    assert reason in done.problems[0]
    place = Place(f"{tmp_path}/out/{SETTINGS.name}")
    assert merge(place, tmp_path / "tables").missing == 1
    done = go("flaky://b/in", tmp_path / "out")
    assert (done.done, done.before, done.failed) == (1, 2, 0)


def test_what_may_pass_is_tried_again_and_not_for_ever(stored: Any, tmp_path: Path) -> None:
    stored.faults = {"1.png": [OSError("slow down")] * 3}
    assert go("flaky://b/in", tmp_path / "out").failed == 0
    stored.faults = {"2.png": [ConnectionError("reset")] * 9}
    done = go("flaky://b/in", tmp_path / "other")
    assert done.failed == 1
    assert len(stored.faults["2.png"]) == 5
    assert "reset" in done.problems[0]


def test_an_object_that_is_cut_on_its_way_is_no_result(
    stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stored.cat_file
    monkeypatch.setattr(stored, "cat_file", lambda self, path, **_: whole(self, path)[:-9])
    done = go("flaky://b/in", tmp_path / "out")
    assert (done.done, done.failed) == (0, 3)
    assert "where the listing said" in done.problems[0]
    monkeypatch.undo()
    assert go("flaky://b/in", tmp_path / "out").done == 3


def test_a_store_that_is_away_ends_the_run(
    stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pinglow.archive.run._PATIENCE", 2)
    stored.faults = {".png": [OSError("unreachable")] * 99}
    with pytest.raises(PlaceError, match="2 sources in a row could not be read"):
        go("flaky://b/in", tmp_path / "out")
    stored.faults = {}
    assert go("flaky://b/in", tmp_path / "out").done == 3


def test_a_full_disk_ends_the_run_and_loses_nothing(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = write_whole, [1, 2]

    def fill_up(path: Path, content: bytes) -> None:
        if "parts" in path.parts:
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            room.pop()
        write(path, content)

    monkeypatch.setattr("pinglow.archive.place.write_whole", fill_up)
    with pytest.raises(OSError, match="No space left"):
        go(footage, tmp_path / "out")
    monkeypatch.undo()
    rest = go(footage, tmp_path / "out")
    assert (rest.before, rest.done) == (2, 3)


def test_on_a_card_frames_share_batches(tmp_path: Path, on_card: Callable[..., Any]) -> None:
    from torch import nn

    class Bright(nn.Module):
        def forward(self, image: Any) -> Any:
            return image * 10 - 20

    for number in range(10):
        save_still(tmp_path / "in" / f"{number}.png", number)
    backend = on_card(Bright())
    predictor = Predictor(backend, ModelCard(name="m", network={}, parameters=0))
    units = make_units(list_sources([str(tmp_path / "in")], pytest.fail))
    keyed = [(key_of(unit, "", ""), unit) for unit in units]
    place = Place(str(tmp_path / "out"))
    outcomes = list(work_on(keyed, predictor, place))
    assert sum(outcome.targets for outcome in outcomes) == 10
    assert {outcome.key for outcome in outcomes} == {key for key, _ in keyed}
    assert sum(batch[0] for batch in backend.batches) == 10


def test_frames_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are read ahead up to so many bytes; a larger one comes alone."""
    monkeypatch.setattr(work, "_LEAST", 1)
    monkeypatch.setattr(work, "_WAITING", 1500)
    for number in range(12):
        save_still(tmp_path / "in" / f"{number}.png", number)  # 600 bytes of counts
    save_still(tmp_path / "in" / "wide.png", 0, width=100)  # 2,000
    take = work._Room.take
    seen: list[int] = []

    def note(self: Any, frame: Any) -> None:
        take(self, frame)
        seen.append(self._used)

    monkeypatch.setattr(work._Room, "take", note)
    assert go(tmp_path / "in", tmp_path / "out").frames == 13
    assert {used for used in seen if used > 1500} == {2000}


def test_shards_come_to_what_one_machine_comes_to(footage: Path, tmp_path: Path) -> None:
    go(footage, tmp_path / "one")
    for number in (1, 2):
        go(footage, tmp_path / "two", shard=Shard(number, 2))
    assert parts(tmp_path / "one") == parts(tmp_path / "two")


def test_processes_that_never_get_their_model_end_the_run(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pinglow.archive.local._STARTS", 2)
    dying = DyingSettings(**vars(finder_settings()))
    with pytest.raises(DataError, match=r"while it loaded the model \(code 9\)"):
        go(footage, tmp_path / "out", settings=dying, runner=partial(run_units, workers=2))


def test_processes_come_to_what_one_comes_to(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is killed in the middle, and one file ends whatever process reads it."""
    monkeypatch.setattr("pinglow.archive.local._STRIKES", 2)
    for number in range(60):
        save_still(footage / "many" / f"{number:02}.png", number % 10)
    go(footage, tmp_path / "one")
    save_still(footage / "wide.png", width=60)
    settings = finder_settings(die_of_wide)
    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        if progress.done == 5 and not killed:
            [*_, child] = multiprocessing.active_children()
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    runner = partial(run_units, workers=2)
    done = go(footage, tmp_path / "two", settings=settings, runner=runner, on_progress=kill_one)
    assert killed
    assert (done.done, done.failed) == (65, 1)
    assert "wide.png was given up: 2 worker processes ended over it" in done.problems[0]
    assert parts(tmp_path / "one") == parts(tmp_path / "two")
    left = list((tmp_path / "two").glob("*/parts/*/.*"))
    for path in left:
        os.utime(path, (0, 0))
    assert go(footage / "stack.tif", tmp_path / "two").before == 1
    assert not any(path.exists() for path in left)


def test_a_pool_ends_where_its_last_suspects_are_answered_at_once(tmp_path: Path) -> None:
    pool = local._Pool(SETTINGS, Place(str(tmp_path)), 2, False)
    suspects = {key: Unit(key, "") for key in ("a", "b")}
    pool._suspects.extend(suspects.items())
    pool._strikes = dict.fromkeys(suspects, 1)
    answers = iter(suspects)
    ends = []

    def start() -> local._Worker:
        here, there = multiprocessing.Pipe()
        key = next(answers)
        there.send(work.Outcome(key, key))
        ends.append(there)
        return local._Worker(None, here, started=True)

    pool._start = start  # type: ignore[method-assign]
    found: list[str] = []
    runs = threading.Thread(
        target=lambda: found.extend(each.key for each in pool.run(iter([]))), daemon=True
    )
    runs.start()
    runs.join(5)
    assert not runs.is_alive()
    assert found == ["a", "b"]


def test_a_worker_tells_what_ends_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "parts").write_text("a file in the way of the folder")
    [unit] = make_units(list_sources([str(save_still(tmp_path / "a.png"))], pytest.fail))
    here, there = multiprocessing.Pipe()
    with here, there:
        here.send(("0" * 64, unit))
        answer(there, SETTINGS, Place(str(out)), False)
        assert here.recv() == "started"
        with pytest.raises(DataError, match="parts"):
            raise here.recv()


def test_parts_that_are_damaged_are_named(tmp_path: Path) -> None:
    go(save_still(tmp_path / "a.png"), tmp_path / "out")
    [part] = (tmp_path / "out").glob("*/parts/*/*")
    part.write_bytes(b"x")
    with pytest.raises(FrameError, match=part.name):
        merge(Place(f"{tmp_path}/out/{SETTINGS.name}"), tmp_path / "tables")
    assert not list((tmp_path / "tables").iterdir())


def test_keys_are_found_in_their_folders(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    keys = [f"{number:064x}" for number in range(0, 2**20, 99_991)]
    for key in keys[::2]:
        place.write(f"parts/{key[:2]}/{key}.parquet", b"x")
    place.write(f"parts/{keys[1][:2]}/{keys[1]}.broken.parquet", b"x")
    place.write(f"parts/{keys[3][:2]}/{keys[3]}.parquet", b"")  # of a power cut
    found = Keys(place)
    assert [found.state(key) for key in keys[:4]] == ["whole", "broken", "whole", None]
    assert found.count() == len(keys[::2]) + 1
