"""Jobs over HTTP, and the store behind them."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from pinglow.files import claim
from pinglow.inference.predictor import Predictor
from pinglow.serve import job_store
from pinglow.serve.app import make_app
from pinglow.serve.job_process import FRAMES, ORDER, RESULTS, UPLOAD, room_for_counts
from pinglow.serve.job_store import Job, JobsFullError, JobStore, Order, find_result
from pinglow.serve.settings import ServeSettings

_MEGABYTE = 2**20


class NoPool:
    """Has no worker: jobs need none."""

    loaded = None
    alive = restarts = queued = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def _make_app() -> Any:
    return make_app(ServeSettings(max_job_mb=1, max_pixels=2**18), NoPool())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """Return a client of a service that takes jobs of a megabyte."""
    with TestClient(_make_app(), base_url="http://127.0.0.1") as client:
        yield client


def _frame(seed: int = 0) -> Any:
    frame = np.random.default_rng(seed).normal(1000, 5, (48, 64))
    frame[20:22, 30 + seed : 32 + seed] += 400
    return frame.astype(np.uint16)


def _png(seed: int = 0) -> bytes:
    content = io.BytesIO()
    Image.fromarray(_frame(seed)).save(content, "PNG")
    return content.getvalue()


def _wide() -> bytes:
    """A frame of more pixels than the service takes."""
    content = io.BytesIO()
    Image.new("L", (2**18 + 1, 1)).save(content, "PNG")
    return content.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, each in members.items():
            archive.writestr(name, each)
    return content.getvalue()


def _follow(client: TestClient, job_id: str) -> list[dict[str, Any]]:
    """Every state that a job's events tell, to its end."""
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_an_archive_of_frames(client: TestClient) -> None:
    content = _zip(
        {
            **{f"night/{number}.png": _png(number) for number in (10, 9, 2)},
            **{"../../up.png": b"no png", "wide.png": _wide()},
            **{"README.txt": b"", "nested.zip": _zip({"x.png": _png()})},
        }
    )
    options = {"name": "../n.zip", "save": "jsonl,csv,coco,overlay,mask,counts", "min_score": "0.3"}
    sent = client.post("/v1/jobs", params=options, content=content)
    assert sent.status_code == 202
    job = sent.json()
    assert sent.headers["location"] == f"/v1/jobs/{job['id']}"
    last = _follow(client, job["id"])[-1]
    assert (last["state"], last["done"], last["total"], last["broken_frames"]) == ("done", 5, 5, 2)

    shown = client.get(sent.headers["location"]).json()
    assert shown["name"] == "n.zip"
    broken = {each["source"]: each["detail"] for each in shown["broken"]}
    assert broken.keys() == {"up.png", "wide.png"}
    assert broken["up.png"].startswith("up.png is not a frame")
    assert "the limit of 262144" in broken["wide.png"]
    assert tempfile.gettempdir() not in json.dumps(shown)
    assert set(shown["results"]) == {
        *("targets.jsonl", "targets.csv", "coco.json", "overlays.zip", "masks.zip"),
        "counts.zip",
    }
    [listed] = [each for each in client.get("/v1/jobs").json()["jobs"] if each["id"] == job["id"]]
    assert listed == {**shown, "broken": []}

    results = f"/v1/jobs/{job['id']}/results"
    answer = client.get(f"{results}/targets.jsonl")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["source"] for line in lines] == [f"night/{each}.png" for each in (2, 9, 10)]
    predictor = Predictor.load("pinglow-fast", min_score=0.3)
    for line, seed in zip(lines, (2, 9, 10), strict=True):
        expected = predictor(_frame(seed)).to_dict()["targets"]
        assert [target["bbox"] for target in line["targets"]] == [
            target["bbox"] for target in expected
        ]
        assert expected
    assert shown["targets"] == sum(len(line["targets"]) for line in lines)
    assert client.get(f"{results}/coco").json()["images"][0]["file_name"] == "night/2.png"
    assert client.get(f"{results}/targets.csv").text.count("\n") == 1 + shown["targets"]
    with zipfile.ZipFile(io.BytesIO(client.get(f"{results}/masks.zip").content)) as masks:
        assert masks.testzip() is None
        assert masks.namelist() == [f"{each}_mask.png" for each in (10, 2, 9)]
        one = client.get(f"{results}/masks/2_mask.png")
        assert one.headers["content-type"] == "image/png"
        assert one.content == masks.read("2_mask.png")
    counts = client.get(f"{results}/counts/10.npy")
    assert counts.headers["content-type"] == "application/octet-stream"
    np.testing.assert_array_equal(np.load(io.BytesIO(counts.content)), _frame(10))
    assert client.get(f"{results}/overlay").headers["content-type"] == "application/zip"
    assert client.get(f"{results}/parquet").status_code == 404

    assert client.delete(f"/v1/jobs/{job['id']}").json()["state"] == "done"
    assert client.get(f"/v1/jobs/{job['id']}").status_code == 404


def test_a_clip_with_tracks(
    client: TestClient, tmp_path: Path, save_clip: Callable[..., Path]
) -> None:
    pytest.importorskip("trackers", reason="needs trackers: pip install '.[video]'")
    content = save_clip(tmp_path / "clip.mkv").read_bytes()
    options = {"name": "a.mkv", "save": "jsonl,overlay", "track": "true", "every": 2}
    job = client.post("/v1/jobs", params=options, content=content).json()
    last = _follow(client, job["id"])[-1]
    assert (last["state"], last["done"], last["tracks"]) == ("done", 10, 1)
    results = f"/v1/jobs/{job['id']}/results"
    lines = client.get(f"{results}/targets.jsonl").text.splitlines()
    assert json.loads(lines[-1])["time"] == pytest.approx(1.8)
    assert {target["track"] for target in json.loads(lines[-1])["targets"]} == {1}
    video = client.get(f"{results}/overlay.mp4")
    assert video.headers["content-type"] == "video/mp4"
    assert video.content == client.get(f"{results}/overlays/a_overlay.mp4").content
    assert video.content[4:8] == b"ftyp"


def test_what_is_no_frame_fails_with_one_sentence(client: TestClient) -> None:
    job = client.post("/v1/jobs", content=b"#EXTM3U\n/etc/passwd\n", params={"name": "a.mp4"})
    last = _follow(client, job.json()["id"])[-1]
    assert last["state"] == "failed"
    assert last["detail"] == "no frame could be read: see what is broken"
    assert client.get(f"/v1/jobs/{last['id']}/results/targets.jsonl").status_code == 404


def test_what_readers_say_of_a_damaged_file_is_no_line_of_the_log(
    client: TestClient, capfd: pytest.CaptureFixture[str]
) -> None:
    # Its first directory says that the next one is itself.
    content = b"II*\0\x08\0\0\0" + bytes(2) + b"\x08\0\0\0"
    job = client.post("/v1/jobs", content=content, params={"name": "a.tif"}).json()
    assert _follow(client, job["id"])[-1]["state"] == "failed"
    assert all(json.loads(line) for line in capfd.readouterr().err.splitlines())


def test_a_killed_process_fails_its_job_only(client: TestClient) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("finds the job's process in /proc")
    job = client.post("/v1/jobs", content=_png()).json()
    end = time.monotonic() + 20
    while not (pids := _job_processes()) and time.monotonic() < end:
        pass
    os.kill(pids[0], signal.SIGKILL)
    last = _follow(client, job["id"])[-1]
    assert last["state"] == "failed"
    assert last["detail"] == "the job's process was killed (signal 9): send the job again"
    assert client.get("/healthz").status_code == 200


def _job_processes() -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if parent == os.getpid() and b"job_process" in command:
            found.append(int(status.parent.name))
    return found


@pytest.mark.parametrize(
    ("options", "content", "status", "words"),
    [
        ({}, b"", 422, "upload is empty"),
        ({}, bytes(_MEGABYTE + 1), 413, "larger than 1 MB"),
        ({"save": "jsonl,foo"}, b"x", 422, "'foo' is unknown"),
        ({"every": 0}, b"x", 422, "every"),
        ({"start": 2, "end": 1}, b"x", 422, "end is 1.0"),
        ({"min_score": 1}, b"x", 422, "min_score"),
        ({"ignore": "/etc/passwd"}, b"x", 422, "/etc/passwd"),
        ({"crop": "1,2"}, b"x", 422, "crop"),
    ],
)
def test_refusals(
    client: TestClient, options: dict[str, Any], content: bytes, status: int, words: str
) -> None:
    before = client.get("/v1/jobs").json()
    answer = client.post("/v1/jobs", params=options, content=content)
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert client.get("/v1/jobs").json() == before


def test_unknown_jobs(client: TestClient) -> None:
    for method, address in [
        *(("GET", ""), ("DELETE", ""), ("GET", "/events")),
        *(("GET", "/results/targets.jsonl"), ("GET", "/results/..%2f..%2flock")),
    ]:
        assert client.request(method, f"/v1/jobs/none{address}").status_code == 404


def test_results_stay_in_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    (folder / "masks").mkdir(parents=True)
    for name in ("../secret", "targets.csv", ".hidden", "masks/1_mask.png"):
        (folder / name).touch()
    (folder / "link").symlink_to(tmp_path / "secret")
    assert find_result(folder, "targets.csv") == folder / "targets.csv"
    assert find_result(folder, "mask") == find_result(folder, "masks.zip") == folder / "masks"
    assert find_result(folder, "masks/1_mask.png") is not None
    for name in ("../secret", "/etc/passwd", ".hidden", "", ".", "link", "a\0b", "x" * 5000):
        assert find_result(folder, name) is None


def test_a_full_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def write(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(job_store, "_write", write)
    answer = client.post("/v1/jobs", content=b"x")
    assert answer.status_code == 507
    assert answer.json()["detail"] == "the service's disk is full: try again later"


def _lay_out(folder: Path, upload: bytes, **more: Any) -> None:
    for name in (FRAMES, RESULTS):
        (folder / name).mkdir()
    order = {"name": "a.png", "save": ["overlay"], "model": {"name_or_path": "pinglow-fast"}}
    (folder / ORDER).write_text(json.dumps(order | more))
    (folder / UPLOAD).write_bytes(upload)


def test_no_room_for_results(tmp_path: Path) -> None:
    _lay_out(tmp_path, _png())
    command = f"ulimit -f 4; exec {sys.executable} -P -m pinglow.serve.job_process"
    with subprocess.Popen(
        ["bash", "-c", command], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        last = json.loads(process.stdout.readlines()[-1])
    assert process.returncode == 0
    assert last == {
        "state": "failed",
        "detail": "the service has no room for the results: try again later",
    }


def test_counts_of_all_jobs_have_a_bound(tmp_path: Path) -> None:
    one = len(_frame().tobytes()) + 128  # of the file's head
    folder, other = tmp_path / "job", tmp_path / "other" / RESULTS / "counts"
    folder.mkdir()
    other.mkdir(parents=True)
    (tmp_path / "lock").touch()
    (other / "0.npy").write_bytes(bytes(3 * one))
    _lay_out(
        folder,
        _zip({f"{number}.png": _png(number) for number in range(3)}),
        **{"name": "n.zip", "save": ["jsonl", "counts"], "counts_bytes": 7 * one + 1},
    )
    command = [sys.executable, "-P", "-m", "pinglow.serve.job_process"]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        last = json.loads(process.stdout.readlines()[-1])
    assert (last["state"], last["done"]) == ("done", 3)
    assert len((folder / RESULTS / "targets.jsonl").read_text().splitlines()) == 3
    kept = sorted((folder / RESULTS / "counts").iterdir())
    assert [path.name for path in kept] == ["0.npy", "1.npy"]  # half of what the other has left
    for number, path in enumerate(kept):
        np.testing.assert_array_equal(np.load(path), _frame(number))


def test_counts_leave_most_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "job" / RESULTS
    results.mkdir(parents=True)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert room_for_counts(results, 2**31) == 250
    assert room_for_counts(results, 100) == 50


def test_a_job_s_process_ends_with_the_service(tmp_path: Path) -> None:
    _lay_out(tmp_path, b"")
    (tmp_path / ORDER).unlink()
    os.mkfifo(tmp_path / ORDER)  # on which it waits for ever
    command = [sys.executable, "-P", "-m", "pinglow.serve.job_process"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 1


# --- the store, with a process that is none ---------------------------------------------------


async def _content() -> AsyncIterator[bytes]:
    yield b"x"


class Store:
    """A store whose jobs run until they are released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.release = asyncio.Event()
        self.jobs = JobStore(**options)
        monkeypatch.setattr(job_store, "_run", self._run)
        self.jobs.open()

    async def _run(self, job: Job) -> dict[str, Any]:
        await self.release.wait()
        return {"state": "done"}

    async def add(self) -> Job:
        return await self.jobs.add(Order("a", ["jsonl"], {}), _content())

    def states(self) -> list[str]:
        return [job.state.state for job in self.jobs]


async def _settle(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Callable[[Store], Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Return what runs a test of a store in a loop, and sees that no file is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(test: Callable[[Store], Coroutine[Any, Any, None]], **options: Any) -> None:
        async def inside() -> None:
            made = Store(monkeypatch, **options)
            await test(made)
            await made.jobs.close()

        asyncio.run(inside())
        assert not list(tmp_path.iterdir())

    return run


def test_one_runs_some_wait_more_are_refused(store: Any) -> None:
    async def test(store: Store) -> None:
        first = await store.add()
        await _settle(lambda: store.states() == ["running"])
        second, third = await store.add(), await store.add()
        with pytest.raises(JobsFullError, match="2 jobs wait already"):
            await store.add()
        await store.jobs.cancel(second)
        assert store.states() == ["running", "canceled", "queued"]
        assert not second.folder.exists()
        store.release.set()
        await _settle(lambda: store.states() == ["done", "canceled", "done"])
        assert first.folder.exists()
        await store.jobs.cancel(third)
        assert store.states() == ["done", "canceled"]
        assert not third.folder.exists()

    store(test, running=1, waiting=2)


def test_uploads_that_come_slowly_count_as_waiting(store: Any) -> None:
    async def test(store: Store) -> None:
        async def stall() -> AsyncIterator[bytes]:
            await store.release.wait()
            yield b"x"

        order = Order("a", ["jsonl"], {})
        upload = asyncio.create_task(store.jobs.add(order, stall()))
        await asyncio.sleep(0)
        with pytest.raises(JobsFullError):
            await store.add()
        upload.cancel()
        await asyncio.wait([upload])
        assert await store.add()

    store(test, waiting=1)


def test_the_end_of_the_service(store: Any) -> None:
    async def test(store: Store) -> None:
        runs = await store.add()
        await _settle(lambda: store.states() == ["running"])
        waits = await store.add()
        followed = asyncio.create_task(_last_of(waits))
        draining = asyncio.create_task(store.jobs.drain(5))
        assert (await followed).state == "failed"
        assert waits.state.detail == "the service was stopped: send the job again"
        store.release.set()
        await draining
        assert runs.state.state == "done"

    store(test)


def test_a_job_that_does_not_end_in_time(store: Any) -> None:
    async def test(store: Store) -> None:
        job = await store.add()
        await _settle(lambda: store.states() == ["running"])
        await store.jobs.drain(0.01)
        assert job.state.state == "failed"
        assert job.state.detail == "the service was stopped: send the job again"

    store(test)


def test_who_follows_slowly_hears_of_the_end(store: Any) -> None:
    async def test(store: Store) -> None:
        job = await store.add()
        await _settle(lambda: store.states() == ["running"])
        follow = job.follow()
        await anext(follow)
        store.release.set()
        await _settle(lambda: job.state.ended)
        assert [state.state async for state in follow] == ["done"]

    store(test)


async def _last_of(job: Job) -> Any:
    async for state in job.follow():
        last = state
    return last


def test_a_job_that_has_not_begun_can_be_ended(store: Any) -> None:
    async def test(store: Store) -> None:
        job = await store.add()
        await store.jobs.cancel(job)
        assert job.state.state == "canceled"

    store(test)


def test_those_that_have_ended_are_forgotten(store: Any) -> None:
    async def by_number(store: Store) -> None:
        store.release.set()
        jobs = [await store.add() for _ in range(3)]
        await _settle(lambda: len(store.states()) == 2)
        await _settle(lambda: not jobs[0].folder.exists())
        assert store.jobs.get(jobs[0].state.id) is None
        assert store.jobs.get(jobs[2].state.id) is jobs[2]

    async def by_age(store: Store) -> None:
        store.release.set()
        job = await store.add()
        await _settle(lambda: not store.states() and not job.folder.exists())

    store(by_number, kept=2)
    store(by_age, age=0.01)


def test_a_service_without_a_place_for_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with TestClient(_make_app(), base_url="http://127.0.0.1") as client:
        assert client.get("/healthz").status_code == 200
        answer = client.post("/v1/jobs", content=b"x")
        assert answer.status_code == 507
        assert str(tmp_path) not in answer.text


def test_the_folder_of_a_killed_service_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("dead", "alive"):
        (tmp_path / f"pinglow-serve-{name}" / "job").mkdir(parents=True)
    (tmp_path / "pinglow-serve-link").symlink_to(tmp_path / "other")
    (tmp_path / "other").mkdir()
    with claim(tmp_path / "pinglow-serve-alive" / "lock"):
        store = JobStore()
        store.open()
        [ours] = set(tmp_path.glob("pinglow-serve-*")) - {
            tmp_path / f"pinglow-serve-{name}" for name in ("alive", "link")
        }
        assert ours.stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "pinglow-serve-alive" / "job").exists()
        asyncio.run(store.close())
    assert not ours.exists()
    assert (tmp_path / "other").exists()
