"""Archives and packs in a real S3 server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pinglow.archive.frames import load, read_frames
from pinglow.archive.listing import list_sources
from pinglow.archive.merge import merge
from pinglow.archive.parts import part_name
from pinglow.archive.place import open_place
from pinglow.archive.run import Progress, run_archive
from pinglow.archive.settings import Settings, make_settings
from pinglow.archive.units import make_units
from pinglow.data.pack.cache import open_data
from pinglow.data.pack.writer import write_pack
from pinglow.errors import DataError
from pinglow.io import places
from pinglow.io.places import PlaceError
from s3 import Answer, Store, serve_s3


def refusal(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code} of a test</Message></Error>".encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with serve_s3() as store:
        yield store


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(places, "_PAUSE", 0)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    yield server
    server.spoil = None
    server.requests.clear()


@pytest.fixture
def bucket(store: Store, request: pytest.FixtureRequest) -> Any:
    """An empty bucket of this test's name; ``put(name, content)`` fills it."""
    name = f"b{hash(request.node.name) & 0xFFFFFFFF:x}"
    system, _ = places.file_system("s3://x")
    system.mkdir(name)
    store.requests.clear()
    return name, lambda key, content: system.pipe_file(f"{name}/{key}", content)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return make_settings("pinglow-fast", backend="onnxruntime")


@pytest.fixture(scope="module")
def predictor(settings: Settings) -> Any:
    return settings.load_predictor()


@pytest.fixture(autouse=True)
def _load_once(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "load_predictor", lambda _: predictor)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    counts = np.random.default_rng(seed).normal(3000, 20, (32, 32))
    counts[8:10, 8 + seed : 10 + seed] += 600
    Image.fromarray(counts.astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


def run(name: str, settings: Settings) -> Progress:
    return run_archive([f"s3://{name}/in"], settings, open_place(f"s3://{name}/out"))


def results_of(name: str, settings: Settings, out: Path) -> bytes:
    merge(open_place(f"s3://{name}/out").below(settings.name), out)
    return (out / "frames.parquet").read_bytes() + (out / "targets.csv").read_bytes()


def test_a_folder_is_listed_page_by_page(
    bucket: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")
    name, put = bucket
    for number in range(12):
        put(f"in/{number % 7}/{number:04d}.png", b"x")
    troubles: list[str] = []
    found = list_sources([f"s3://{name}/in"], troubles.append)
    assert next(found).uri == f"s3://{name}/in/0/0000.png"
    pages = [each for each in store.requests if "list-type=2" in each]
    assert len({each.uri for each in found}) == 11
    assert not troubles
    # The first name has not waited for the last page.
    assert len(pages) < len([each for each in store.requests if "list-type=2" in each])


def test_an_archive_in_a_store_is_that_on_a_disk(
    bucket: Any, store: Store, settings: Settings, tmp_path: Path
) -> None:
    name, put = bucket
    (tmp_path / "in").mkdir()
    for number in range(3):
        put(f"in/{number}.png", png(number))
        (tmp_path / "in" / f"{number}.png").write_bytes(png(number))
    assert run(name, settings).done == 3
    results_of(name, settings, tmp_path / "far")
    local = open_place(str(tmp_path / "out"))
    run_archive([str(tmp_path / "in")], settings, local)
    merge(local.below(settings.name), tmp_path / "near")
    far, near = ((tmp_path / each / "targets.csv").read_text() for each in ("far", "near"))
    assert far.count("\n") > 3
    assert far.replace(f"s3://{name}", str(tmp_path)) == near

    # A second run does nothing, a third one what has changed.
    store.requests.clear()
    again = run(name, settings)
    assert (again.before, again.done) == (3, 0)
    assert not [each for each in store.requests if each.startswith("GET") and "/in/" in each]
    put("in/1.png", png(7))
    changed = run(name, settings)
    assert (changed.before, changed.done) == (2, 1)


def test_of_two_runs_at_once_the_first_part_stays(
    bucket: Any, store: Store, settings: Settings
) -> None:
    name, _ = bucket
    place = open_place(f"s3://{name}/out")
    place.write(part_name("0" * 64), b"the first", replace=False)
    place.write(part_name("0" * 64), b"the second", replace=False)
    assert place.read(part_name("0" * 64)) == b"the first"


def test_a_store_without_conditions_takes_parts(
    bucket: Any, store: Store, settings: Settings
) -> None:
    name, put = bucket
    put("in/0.png", png(0))
    put("out/x", b"x")
    place, tried = open_place(f"s3://{name}/out"), []

    def spoil(method: str, path: str) -> Answer | None:
        if method != "PUT" or len(tried):
            return None
        tried.append(path)
        return "501 Not Implemented", refusal("NotImplemented")

    store.spoil = spoil
    place.write(part_name("1" * 64), b"a part", replace=False)
    assert tried
    assert place.read(part_name("1" * 64)) == b"a part"


def test_what_fails_is_done_by_the_next_run(
    bucket: Any, store: Store, settings: Settings, tmp_path: Path
) -> None:
    name, put = bucket
    for number in range(4):
        put(f"in/{number}.png", png(number))

    def spoil(method: str, path: str) -> Answer | None:
        if method != "GET" or "/in/" not in path:
            return None
        return {
            "0": ("404 Not Found", refusal("NoSuchKey")),  # since it was listed
            "1": ("403 Forbidden", refusal("AccessDenied")),
            "2": ("503 Slow Down", refusal("SlowDown")),
        }.get(Path(path).stem)

    store.spoil = spoil
    progress = run(name, settings)
    assert (progress.done, progress.failed) == (1, 3)
    told = "\n".join(progress.problems)
    assert f"s3://{name}/in/0.png is not there" in told
    assert f"s3://{name}/in/1.png may not be read" in told
    assert "check its permissions, or renew the credentials" in told
    assert f"s3://{name}/in/2.png cannot be read" in told
    store.spoil = None
    later = run(name, settings)
    assert (later.before, later.done, later.failed) == (1, 3, 0)


@pytest.mark.parametrize("name", ["0.png", "0.tar", "0.mkv"])
def test_what_has_changed_since_it_was_listed_is_refused(name: str, bucket: Any) -> None:
    """Of the same size too: its results would stand under the key of what it was."""
    place, put = bucket
    put(f"in/{name}", png(0))
    [unit] = make_units(list_sources([f"s3://{place}/in"], print))
    assert load(unit) in (png(0), None)
    if name == "0.tar":
        places.file_system("s3://x")[0].rm_file(f"{place}/in/{name}")
        put(f"in/{name}/inside.png", png(0))
    else:
        put(f"in/{name}", png(0)[::-1])
    with pytest.raises(PlaceError, match=f"in/{name} has changed since it was listed: run again$"):
        list(read_frames(unit, load(unit)))


def test_a_truncated_object_is_a_row(bucket: Any, settings: Settings, tmp_path: Path) -> None:
    name, put = bucket
    put("in/0.png", png(0))
    put("in/1.png", png(1)[:-200])
    progress = run(name, settings)
    assert (progress.frames, progress.broken, progress.failed) == (1, 1, 0)
    assert f"s3://{name}/in/1.png" in progress.problems[0]


def test_an_answer_that_is_cut_is_asked_for_again(
    bucket: Any, store: Store, settings: Settings
) -> None:
    name, put = bucket
    put("in/0.png", png(0))
    cuts = iter([("200 OK", png(0)[:100])])
    store.spoil = lambda method, path: next(cuts, None) if path.endswith("0.png") else None
    progress = run(name, settings)
    assert (progress.frames, progress.broken, progress.failed) == (1, 0, 0)
    assert next(cuts, None) is None


@pytest.mark.parametrize("refused", ["everything", "parts"])
def test_expired_credentials_are_one_sentence_and_nothing_is_lost(
    refused: str, bucket: Any, store: Store, settings: Settings
) -> None:
    name, put = bucket
    for number in range(2):
        put(f"in/{number}.png", png(number))

    def spoil(method: str, path: str) -> Answer | None:
        if refused == "everything" or (method == "PUT" and "/parts/" in path):
            return "400 Bad Request", refusal("ExpiredToken")
        return None

    store.spoil = spoil
    with pytest.raises(
        PlaceError, match=rf"^s3://{name}/out/.* may not be (listed|written) .*credentials"
    ):
        run(name, settings)
    store.spoil = None
    assert run(name, settings).done == 2


def test_a_pack_is_fetched_from_a_store(
    bucket: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    name, put = bucket
    (tmp_path / "scenes" / "images").mkdir(parents=True)
    (tmp_path / "scenes" / "images" / "0.png").write_bytes(png(0))
    write_pack([tmp_path / "scenes"], tmp_path / "frames.pack")
    put("frames.pack", (tmp_path / "frames.pack").read_bytes())
    folder = open_data(f"s3://{name}/frames.pack/scenes")
    assert (folder / "images" / "0.png").is_file()
    store.spoil = lambda method, path: ("403 Forbidden", refusal("ExpiredToken"))
    with pytest.raises(DataError, match="may not be read"):
        open_data(f"s3://{name}/frames.pack")
