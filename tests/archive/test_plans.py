from __future__ import annotations

from pathlib import Path

import pytest

from finders import save_still
from pinglow.archive import plans
from pinglow.archive.place import Place
from pinglow.archive.plans import Planner, Shard, read_units
from pinglow.archive.units import key_of
from pinglow.errors import DataError, OptionError


def plan(place: Place, *words: Path, shard: str = "1/1") -> list[str]:
    """Write a plan; the names that it gives out."""
    planner = Planner(
        place, [str(word) for word in words], Shard.parse(shard), lambda unit: key_of(unit, "", "")
    )
    try:
        found = [Path(unit.uri).name for _, unit in planner.units()]
    finally:
        planner.stop()
    assert planner.done
    assert planner.listed == len(found)
    return found


def test_a_manifest_is_read_sorted_and_each_unit_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "_CHUNK", 4)
    for number in range(10):
        save_still(tmp_path / "in" / f"{number}.png", number)
    place = Place(str(tmp_path / "out"))
    assert sorted(plan(place, tmp_path / "in")) == [f"{number}.png" for number in range(10)]
    assert len(list((tmp_path / "out/plans").glob("*/*.parquet"))) == 3
    plan(place, tmp_path / "in" / "7.png", tmp_path / "in" / "2.png")  # of another run
    found = list(read_units(place))
    assert [Path(unit.uri).name for _, unit in found] == [f"{number}.png" for number in range(10)]
    assert [key_of(unit, "", "") for _, unit in found] == [key for key, _ in found]


def test_a_new_plan_of_the_same_sources_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "out"))
    still = save_still(tmp_path / "in" / "a.png")
    save_still(tmp_path / "in" / "b.png")
    plan(place, tmp_path / "in")
    still.unlink()
    plan(place, tmp_path / "in")
    assert [Path(unit.uri).name for _, unit in read_units(place)] == ["b.png"]
    assert len(list((tmp_path / "out/plans").glob("*/*.parquet"))) == 1


def test_the_last_plan_of_a_file_counts(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "out"))
    still = save_still(tmp_path / "in" / "a.png")
    save_still(tmp_path / "in" / "b.png")
    plan(place, tmp_path / "in")
    still.write_bytes(b"changed")
    plan(place, still)
    found = [unit for _, unit in read_units(place)]
    assert [Path(unit.uri).name for unit in found] == ["a.png", "b.png"]
    assert found[0].size == len(b"changed")
    save_still(still, 1)
    plan(place, tmp_path / "in", shard="1/1")
    found = [unit for _, unit in read_units(place)]
    assert [unit.size for unit in found] == [each.stat().st_size for each in (still, still)]


def test_of_two_runs_at_once_both_plans_can_be_read(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "out"))
    save_still(tmp_path / "in" / "a.png")
    plan(place, tmp_path / "in")

    class Slow(Place):
        """Another run begins and ends before this one writes its plan."""

        def write(self, name: str, content: bytes, *, replace: bool = True) -> None:
            if name.endswith(".json"):
                save_still(tmp_path / "in" / "b.png")
                plan(place, tmp_path / "in")
            super().write(name, content, replace=replace)

    plan(Slow(place.root), tmp_path / "in")
    assert [Path(unit.uri).name for _, unit in read_units(place)] == ["a.png"]


def test_a_listing_that_fails_changes_no_plan(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "out"))
    save_still(tmp_path / "in" / "a.png")
    plan(place, tmp_path / "in")
    (tmp_path / "in" / "a.png").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="holds no frames"):
        plan(place, tmp_path / "in")
    assert len(list(read_units(place))) == 1


def test_shards_share_the_files_out(tmp_path: Path) -> None:
    for number in range(20):
        save_still(tmp_path / "in" / f"{number:02}.png")
    place = Place(str(tmp_path / "out"))
    shares = [plan(place, tmp_path / "in", shard=f"{number}/3") for number in (1, 2, 3)]
    assert all(shares)
    assert sorted(name for share in shares for name in share) == [f"{n:02}.png" for n in range(20)]
    assert len(list(read_units(place))) == 20


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/2", "1/0", f"1/{'9' * 5000}"])
def test_a_shard_is_one_of_several(text: str) -> None:
    with pytest.raises(OptionError, match="--shard"):
        Shard.parse(text)


def test_a_run_goes_on_where_another_replaces_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "_CHUNK", 4)
    for number in range(10):
        save_still(tmp_path / "in" / f"{number}.png", number)
    place = Place(str(tmp_path / "out"))
    planner = Planner(place, [str(tmp_path / "in")], Shard(), lambda unit: key_of(unit, "", ""))
    units = planner.units()
    first = next(units)
    planner._thread.join()
    for chunk in (tmp_path / "out/plans").glob("*/*"):
        chunk.unlink()
    assert len({first, *units}) == 10
    planner.stop()
    with pytest.raises(DataError, match="start this command again"):
        list(read_units(place))


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "out"))
    plan(place, save_still(tmp_path / "a.png"))
    [chunk] = (tmp_path / "out/plans").glob("*/*.parquet")
    chunk.write_bytes(b"x")
    with pytest.raises(DataError, match=chunk.name):
        list(read_units(place))
