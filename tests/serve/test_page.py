"""The page of the service, in a real browser, with a real model behind it."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import importlib.util
import io
import itertools
import json
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
import uvicorn
from fastapi import FastAPI
from PIL import Image

from pinglow import Predictor, __version__
from pinglow.output.sink import FrameRecord
from pinglow.output.sinks import open_sinks
from pinglow.serve.app import make_app
from pinglow.serve.pool import Pool
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import Answer, Task
from pinglow.serve.worker import answer_all, describe

TOKEN = "open-sesame"
PREDICT = "**/v1/predict?*"


def make_counts(*spots: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(96, 128) counts of 14 bits with a small bright target at each (x, y)."""
    rows, columns = np.mgrid[:96, :128]
    counts = 8000 + 3 * columns + np.random.default_rng(seed).normal(0, 6, rows.shape)
    for x, y in spots:
        counts += 400 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2)
    return counts.astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames") / "flight"
    folder.mkdir()
    tifffile.imwrite(folder / "a2.tif", make_counts((40, 30), (100, 70)))
    Image.fromarray((make_counts(seed=1) >> 6).astype(np.uint8)).save(folder / "a10.png")
    (folder / "broken, <b>.tif").write_bytes(b"II*\0no image")
    (folder / "notes.txt").write_text("no frame")
    return folder


class InlinePool(Pool):
    """A pool whose worker is this process: it answers as a worker does."""

    def __init__(self, settings: ServeSettings, predictor: Predictor) -> None:
        super().__init__(settings)
        self._predictor = predictor
        self.loaded = describe(predictor)
        self._lock = threading.Lock()
        self.asked: list[Task] = []
        self.at_once = self.most_at_once = 0

    def ready(self) -> bool:
        return True

    async def start(self) -> None:
        pass

    async def close(self) -> None: ...

    async def submit_all(self, tasks: Sequence[Task]) -> list[Answer]:
        self.asked += tasks
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await asyncio.to_thread(self._answer, tasks)
        finally:
            self.at_once -= 1

    def _answer(self, tasks: Sequence[Task]) -> list[Answer]:
        with self._lock:
            return answer_all(self._predictor, tasks, 2**24)


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("pinglow-fast")


@pytest.fixture(scope="module")
def pool(predictor: Predictor) -> InlinePool:
    return InlinePool(ServeSettings(), predictor)


@pytest.fixture(scope="module")
def address(pool: InlinePool) -> Iterator[str]:
    with serving(make_app(ServeSettings(), pool)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if importlib.util.find_spec("playwright") is None or chromium is None:
        pytest.skip("needs a browser: pip install playwright, apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=15_000)
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", *camera]
        )
        yield browser
        browser.close()


class Tab:
    """A tab with the page, and what went wrong or elsewhere in it."""

    def __init__(self, browser: Any, address: str, width: int = 1280) -> None:
        self.tab = browser.new_page(viewport={"width": width, "height": 800})
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.tab.set_default_timeout(10_000)
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("console", self._hear)
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(address)

    def _hear(self, message: Any) -> None:
        if "Failed to load resource" not in message.text:  # which an error status is
            self.faults.append(message.text)

    def open(self, *paths: Path, seconds: float = 15) -> None:
        from playwright.sync_api import expect

        self.tab.locator("#files").set_input_files(list(paths))
        expect(self.tab.locator("#stage")).to_be_visible()
        expect(self.tab.locator("#stop")).to_be_hidden(timeout=1000 * seconds)

    def wait(self, where: str, text: str | re.Pattern[str]) -> None:
        from playwright.sync_api import expect

        expect(self.tab.locator(where)).to_have_text(text)

    def text(self, where: str) -> str:
        """What is shown there once the page has drawn itself anew."""
        self.tab.evaluate("() => new Promise(requestAnimationFrame)")
        return str(self.tab.locator(where).inner_text())

    def download(self, name: str) -> str:
        with self.tab.expect_download() as waiting:
            self.tab.get_by_role("button", name=name, exact=True).click()
        return Path(waiting.value.path()).read_text(encoding="utf-8")

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Where the middle of a pixel of a frame of 128 x 96 is, if the whole frame is shown."""
        box = self.tab.locator("#canvas").bounding_box()
        scale = min(box["width"] / 128, box["height"] / 96)
        left = box["x"] + (box["width"] - 128 * scale) / 2
        top = box["y"] + (box["height"] - 96 * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def gray(self, x: float, y: float) -> int:
        """The gray level that is shown there."""
        from playwright.sync_api import expect

        expect(self.tab.locator("#canvas")).to_be_visible()
        left, top = self.point(x, y)
        box = self.tab.locator("#canvas").bounding_box()
        shot = Image.open(
            io.BytesIO(self.tab.screenshot(clip={"x": left, "y": top, "width": 1, "height": 1}))
        )
        assert box["width"] > 0
        return int(shot.convert("L").getpixel((0, 0)))


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    tabs: list[Tab] = []

    def open_one(address: str, width: int = 1280) -> Tab:
        tabs.append(Tab(browser, address, width))
        return tabs[-1]

    yield open_one
    for each in tabs:
        each.tab.close()
        assert not each.faults
        assert {url.split("/")[2] for url in each.asked if url.startswith(("http", "ws"))} == {
            each.asked[0].split("/")[2]
        }


def test_files_of_the_page_ask_for_nothing_else_and_are_kept_by_their_hash(address: str) -> None:
    with httpx.Client(base_url=address) as client:
        check_files(client)


def check_files(client: httpx.Client) -> None:
    index = client.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert f'<meta name="version" content="{__version__}">' in index.text
    policy = dict(
        rule.split(" ", 1) for rule in index.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert not re.findall(r"<style|style=|<script(?![^>]* src=)|\son\w+=", index.text)
    names = {file.name for file in files("pinglow.serve").joinpath("page").iterdir()}
    for name in names - {"index.html"}:
        answer = client.get(f"/page/{name}")
        assert answer.headers["content-security-policy"] == index.headers["content-security-policy"]
        assert not re.findall(r"(https?:)?//[a-z](?!ww\.w3\.org/2000/svg)\w*\.", answer.text), name
        for module in re.findall(r'from "\./(.*?)"', answer.text):
            assert module in names
    assert all(name in names for name in re.findall(r'"page/(.*?)"', index.text))
    tag = index.headers["etag"]
    again = client.get("/", headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/page/style.css", headers={"If-None-Match": tag}).status_code == 200
    assert client.head("/").headers["content-length"] == str(len(index.content))
    for missing in ("index.html", "other.js", "..%2fpage.py", "%2e%2e/page.py"):
        assert client.get(f"/page/{missing}").status_code == 404


@pytest.mark.parametrize("width", [1280, 390])
def test_frames_are_looked_through(
    open_tab: Callable[..., Tab], address: str, folder: Path, width: int
) -> None:
    page = open_tab(address, width)
    page.open(*folder.iterdir())
    page.wait("#status", "4 frames, 2 cannot be used")
    frames = page.tab.get_by_role("list", name="Frames").get_by_role("button")
    names = [text.split("\n")[-1].strip("\u200e") for text in frames.all_inner_texts()]
    assert names[:2] == ["a2.tif", "a10.png"]
    page.wait("#title", "a2.tif")
    page.wait("#caption", "2 targets")
    table = page.tab.get_by_role("table", name="2 targets")
    cells = table.get_by_role("cell").all_inner_texts()
    assert [round(float(cells[at])) for at in (1, 2)] in ([40, 30], [100, 70])
    assert page.tab.locator("#canvas").get_attribute("aria-label") == "a2.tif, 2 targets"
    page.tab.mouse.move(*page.point(100, 70))
    counts = make_counts((40, 30), (100, 70))
    page.wait("#readout", f"x 100, y 70: {counts[70, 100]}")

    page.tab.keyboard.press("ArrowRight")
    page.wait("#caption", "0 targets")
    page.tab.keyboard.press("ArrowRight")
    page.wait("#caption", "cannot be used")
    page.wait("#detail", re.compile("broken, <b>.tif"))
    page.tab.keyboard.press("ArrowLeft")
    page.tab.keyboard.press("ArrowLeft")
    page.wait("#title", "a2.tif")
    page.tab.locator("#canvas").focus()
    page.tab.keyboard.press("ArrowDown")
    page.tab.locator("#targets tr[aria-current=true]").wait_for()
    near = page.text("#zoom")
    page.tab.keyboard.press("-")
    assert page.text("#zoom") != near
    page.tab.keyboard.press("?")
    assert page.tab.get_by_role("dialog").is_visible()
    page.tab.keyboard.press("Escape")

    lowest = page.tab.get_by_label("Minimum score")
    shown = []
    lowest.focus()
    page.tab.keyboard.press("Home")
    for _ in range(int(lowest.get_attribute("max")) + 1):
        shown.append(int(page.text("#caption").split()[0]))
        page.tab.keyboard.press("ArrowRight")
    assert shown == sorted(shown, reverse=True)
    assert shown[0] >= 2
    assert shown[-1] == 0
    assert page.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def round_scores(table: str) -> list[list[str]]:
    """The rows of a table; threads add up in another order each time."""
    rows = list(csv.reader(table.splitlines()))
    for row in rows[1:]:
        row[9] = f"{float(row[9]):.6f}"
    return rows


def test_downloads_are_what_the_command_writes(
    open_tab: Callable[..., Tab], address: str, predictor: Predictor, tmp_path: Path
) -> None:
    names = "a.tif", 'b, "two".tif', "c.tif"
    spots = [(40, 30), (100, 70)], [(64, 48)], []
    with open_sinks(["csv", "jsonl", "coco"], tmp_path / "out") as sinks:
        for name, places in zip(names, spots, strict=True):
            counts = make_counts(*places)
            tifffile.imwrite(tmp_path / name, counts)
            record = FrameRecord(name, 0, name.removesuffix(".tif"), counts, predictor(counts))
            for sink in sinks:
                sink.write(record)
        for sink in sinks:
            for name in names:
                sink.end_source(name, True)
    page = open_tab(address)
    page.open(*(tmp_path / name for name in names))
    expected = tmp_path / "out"
    theirs = (expected / "targets.csv").read_text()
    assert round_scores(page.download("CSV")) == round_scores(theirs)
    lines = [json.loads(line) for line in page.download("JSON lines").splitlines()]
    theirs = [json.loads(line) for line in (expected / "targets.jsonl").read_text().splitlines()]
    assert sum(len(line["targets"]) for line in lines) >= 3
    for line in (*lines, *theirs):
        line.pop("name")  # which a job makes unique and free of odd letters
        for target in line["targets"]:
            target["score"] = round(target["score"], 6)
    assert lines == theirs
    coco, their = (
        json.loads(page.download("COCO")),
        json.loads((expected / "coco.json").read_text()),
    )
    for image in (*coco["images"], *their["images"]):
        image.pop("name")
    for annotation in (*coco["annotations"], *their["annotations"]):
        annotation["score"] = round(annotation["score"], 6)
    assert coco == their


def test_a_window_on_the_counts_of_16_bits(
    open_tab: Callable[..., Tab], address: str, tmp_path: Path
) -> None:
    counts = np.full((96, 128), 8000, np.uint16)
    counts[:, 64:] += 20  # of 65,535
    counts[:8], counts[-8:] = 100, 60000
    tifffile.imwrite(tmp_path / "steps.tif", counts)
    page = open_tab(address)
    page.open(tmp_path / "steps.tif")
    page.wait("#title", "steps.tif")
    assert abs(page.gray(30, 48) - page.gray(90, 48)) <= 1
    page.tab.get_by_label("Level in counts").fill("8010")
    page.tab.get_by_label("Width in counts").fill("40")
    assert [page.gray(x, 48) for x in (30, 90)] == [64, 191]
    page.tab.get_by_label("hot is black").check()
    assert [page.gray(x, 48) for x in (30, 90)] == [191, 64]
    page.tab.locator("#canvas").focus()
    page.tab.keyboard.press("]")
    assert page.tab.get_by_label("Level in counts").input_value() == "8012.00"
    page.tab.keyboard.press("a")
    assert abs(page.gray(30, 48) - page.gray(90, 48)) <= 1


def test_regions_are_drawn_asked_for_and_told_as_options(
    open_tab: Callable[..., Tab], address: str, folder: Path, pool: InlinePool
) -> None:
    page = open_tab(address)
    page.open(folder / "a2.tif")
    page.wait("#caption", "2 targets")
    page.tab.keyboard.press("r")
    page.tab.mouse.move(*page.point(29.6, 19.6))
    page.tab.mouse.down()
    page.tab.mouse.move(*page.point(49.4, 39.4))
    page.tab.mouse.up()
    page.wait("#caption", "1 target")
    page.wait("#regions code", "30,20,20,20")
    page.tab.keyboard.press("p")
    for x, y in ((89.5, 59.5), (109.5, 59.5), (109.5, 79.5), (89.5, 79.5)):
        page.tab.mouse.click(*page.point(x, y))
    page.tab.keyboard.press("Enter")
    page.wait("#caption", "0 targets")
    polygon = "90,60;110,60;110,80;90,80"
    assert pool.asked[-1].ignore == ("30,20,20,20", polygon)
    options = page.tab.get_by_label("As options of the command").input_value()
    assert options == f'--ignore "30,20,20,20" --ignore "{polygon}"'
    page.tab.get_by_role("button", name="Remove region 30,20,20,20").click()
    page.wait("#caption", "1 target")
    region = page.tab.get_by_label("or give x,y,w,h")
    region.fill("1,2,3")
    region.press("Enter")
    assert "Give whole pixels" in page.text("#region-fault")
    region.fill("0, 0, 200, 20")
    region.press("Enter")
    page.wait("#caption", "cannot be used")  # it reaches out of the frame
    assert "200,20" in page.text("#detail")


def test_a_folder_is_dropped(open_tab: Callable[..., Tab], address: str, folder: Path) -> None:
    page = open_tab(address)
    browser = page.tab.context.new_cdp_session(page.tab)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 400, "data": data})
    page.wait("#status", "3 frames, 1 cannot be used")  # notes.txt is no frame
    page.wait("#title", "flight/a2.tif")


def test_a_busy_service_is_asked_again_and_one_that_fails_when_the_user_says_so(
    open_tab: Callable[..., Tab], address: str, folder: Path
) -> None:
    page = open_tab(address)
    answers = [(429, {"Retry-After": "0.1"}), (503, {"Retry-After": "0.1"}), (500, {})]

    def answer(route: Any) -> None:
        if answers:
            status, headers = answers.pop(0)
            route.fulfill(status=status, headers=headers, body="<p>a proxy says no</p>")
        else:
            route.continue_()

    page.tab.route(PREDICT, answer)
    page.open(folder / "a2.tif")
    page.wait("#status", "1 frame, 1 cannot be used")
    page.wait("#detail", "The service failed with status 500: see its log.")
    page.tab.get_by_role("button", name="Try again").click()
    page.wait("#caption", "2 targets")


def test_the_token_is_asked_for_once(
    open_tab: Callable[..., Tab], pool: InlinePool, folder: Path
) -> None:
    settings = ServeSettings(token=TOKEN)
    with serving(make_app(settings, pool)) as address:
        page = open_tab(address)
        dialog = page.tab.get_by_role("dialog")
        dialog.get_by_label("Token").fill("wrong")
        dialog.get_by_label("Token").press("Enter")
        dialog.get_by_text("That token is not the service's").wait_for()
        dialog.get_by_label("Token").fill(TOKEN)
        dialog.get_by_role("button", name="Use it").click()
        page.wait("#model", "pinglow-fast")
        page.tab.reload()
        page.wait("#model", "pinglow-fast")
        page.open(folder / "a2.tif")
        page.wait("#caption", "2 targets")
        assert not dialog.is_visible()


def test_many_frames_two_at_a_time(
    open_tab: Callable[..., Tab],
    address: str,
    pool: InlinePool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(60)]
    for path in paths:
        path.write_bytes(b"no picture")
    for path in paths[::12]:
        Image.fromarray(np.full((40, 40), 100, np.uint8)).save(path)
    page = open_tab(address)
    # The first waits for the second, however fast the service is.
    both, asked, answer = threading.Barrier(2), itertools.count(), pool._answer

    def meet(tasks: Sequence[Task]) -> list[Answer]:
        if next(asked) < 2:
            both.wait(10)
        return answer(tasks)

    monkeypatch.setattr(pool, "_answer", meet)
    pool.most_at_once = 0
    page.open(*paths)
    page.wait("#status", "60 frames, 55 cannot be used")
    assert pool.most_at_once == 2
    assert page.tab.locator("#frames li").count() < 20
    page.tab.locator("#scroll").evaluate("(scroll) => { scroll.scrollTop = 1e6; }")
    page.tab.get_by_role("button", name="59.png").click()
    page.wait("#title", "59.png")


def make_flight(pages: int) -> list[np.ndarray]:
    return [make_counts((20 + 2 * n, 30), (100 - 2 * n, 70), seed=n) for n in range(pages)]


def check_counts(page: Tab, flight: list[np.ndarray]) -> None:
    """That counts of a job's frames are shown, and gray levels where there are none."""
    frames = page.tab.get_by_role("list", name="Frames").get_by_role("button")
    level, width = (page.tab.get_by_label(f"{name} in counts") for name in ("Level", "Width"))
    page.tab.mouse.move(*page.point(30, 30))
    frames.nth(2).focus()
    page.tab.keyboard.press("Enter")
    page.wait("#readout", f"x 30, y 30: {flight[2][30, 30]}")
    count = int(flight[2][48, 64])
    width.fill("20")
    for chosen, gray in ((count - 20, 255), (count + 20, 0), (count, 128)):
        level.fill(str(chosen))
        assert page.gray(64, 48) == gray
    page.tab.locator("#canvas").focus()
    page.tab.keyboard.press("ArrowRight")
    page.wait("#readout", f"x 30, y 30: {flight[3][30, 30]}")
    assert float(level.input_value()) == count  # as was chosen for the clip
    page.tab.route("**/results/counts/*", lambda route: route.fulfill(status=404, body="{}"))
    page.tab.keyboard.press("ArrowRight")
    page.wait("#readout", re.compile(r"^x 30, y 30: \d+ of 255$"))
    assert page.text("#title") == "flight_p4"
    assert 0 < float(level.input_value()) < 255
    assert page.gray(28, 30) > page.gray(64, 48)  # a target


def test_a_file_of_many_pages_is_a_job_with_tracks(
    open_tab: Callable[..., Tab], address: str, tmp_path: Path
) -> None:
    path = tmp_path / "flight.tif"
    flight = make_flight(6)
    tifffile.imwrite(path, np.stack(flight), photometric="minisblack")
    page = open_tab(address)
    page.open(path, seconds=60)
    page.wait("#status", "6 frames")
    from playwright.sync_api import expect

    expect(page.tab.locator("#chart .track")).to_have_count(2)
    rows = page.tab.get_by_role("table", name="Tracks").get_by_role("row").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["Track", "#1", "#2"]
    job = httpx.get(f"{address}v1/jobs").json()["jobs"][-1]
    theirs = httpx.get(f"{address}v1/jobs/{job['id']}/results/targets.jsonl").text
    mine = page.download("JSON lines")
    assert [json.loads(line) for line in mine.splitlines()] == [
        json.loads(line) for line in theirs.splitlines()
    ]
    coco = json.loads(page.download("COCO"))
    assert [image["file_name"] for image in coco["images"]][1] == "flight.tif#1"
    assert {annotation.get("track_id") for annotation in coco["annotations"]} == {None, 1, 2}
    assert all(annotation["segmentation"] for annotation in coco["annotations"])
    check_counts(page, flight)
    assert page.tab.locator("#floor").is_hidden()
    page.tab.get_by_label("Minimum score").focus()
    page.tab.keyboard.press("Home")
    page.wait("#floor-text", re.compile("This was searched above"))
    page.tab.get_by_role("button", name="Search again").click()
    page.wait("#detail", re.compile("queued|started|of 6"))
    page.tab.get_by_role("button", name="Stop").click()
    page.wait("#status", "1 frame, 1 stopped")
    for _ in range(100):
        states = [each["state"] for each in httpx.get(f"{address}v1/jobs").json()["jobs"]]
        if states == ["canceled"]:
            break
        page.tab.wait_for_timeout(50)
    assert states == ["canceled"]


@pytest.mark.parametrize("tracks", [True, False])
def test_files_of_a_sequence_get_tracks_where_the_service_has_them(
    open_tab: Callable[..., Tab], address: str, tmp_path: Path, tracks: bool
) -> None:
    for number, counts in enumerate(make_flight(5)):
        tifffile.imwrite(tmp_path / f"{number}.tif", counts)
    page = open_tab(address)
    if not tracks:
        model = {"name": "a model", "min_score": 0.5, "tracks": False}
        page.tab.route("**/v1/models", lambda route: route.fulfill(json={"models": [model]}))
        page.tab.reload()
        page.wait("#model", "a model")
    page.tab.get_by_label("files are a sequence").check()
    page.open(*tmp_path.iterdir())
    page.wait("#status", "5 frames")
    rows = [line.split(",") for line in page.download("CSV").splitlines()[1:]]
    assert {row[0] for row in rows} == {f"{number}.tif" for number in range(5)}
    assert {row[-1] for row in rows} == ({"", "1", "2"} if tracks else {""})
    assert all(row[-2] == "" for row in rows)  # stills have no times
    assert page.tab.locator("#chart .track").count() == (2 if tracks else 0)


def test_a_camera_is_watched(open_tab: Callable[..., Tab], address: str) -> None:
    page = open_tab(address)
    camera = page.tab.get_by_role("button", name="Camera")
    camera.click()
    page.wait("#done", re.compile(r"[2-9]\d* frames, [\d.]+ a second"))
    page.wait("#status", "The camera is watched")
    camera.click()
    assert camera.get_attribute("aria-pressed") == "false"
    lines = [json.loads(line) for line in page.download("JSON lines").splitlines()]
    assert [line["frame"] for line in lines] == list(range(len(lines)))
    assert {(line["source"], line["width"], line["height"]) for line in lines} == {
        ("camera", 640, 480)
    }
