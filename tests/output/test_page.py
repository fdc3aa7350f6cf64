"""The page of a job: what it holds, and in a real browser what it does."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pinglow.output.page import make_page, trace_outline
from pinglow.output.sink import FrameRecord
from pinglow.output.sinks import open_sinks
from pinglow.structures import Clip, Detections, Prediction

HOSTILE = '<img src=x onerror="document.title=1">&amp;</script><b>%41 \u2028'


def make_record(
    name: str, *spots: tuple[int, int, float], source: str = "", **rest: Any
) -> FrameRecord:
    """A record with a target of five pixels a spot (left, top, score)."""
    probability = np.zeros((40, 60), np.float32)
    for left, top, score in spots:
        probability[top : top + 3, left + 1] = probability[top + 1, left : left + 3] = score
    frame = np.random.default_rng(0).normal(8000, 20, (40, 60)).astype(np.uint16)
    return FrameRecord(source or f"{name}.png", 0, name, frame, Prediction(probability), **rest)


def write(folder: Path, *records: FrameRecord, done: set[str] | None = None) -> str:
    with open_sinks(["html"], folder, done) as (sink,):
        for record in records:
            sink.write(record)
            sink.end_source(record.source, True)
    return (folder / "html" / "index.html").read_text(encoding="utf-8")


def data_of(page: str) -> Any:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(data)


def test_the_page_holds_every_frame_and_its_pictures_lie_beside_it(tmp_path: Path) -> None:
    clip = Clip("clip", 25.0)
    spots = (5, 6, 0.96875), (30, 20, 0.5078125)
    record = make_record("c", *spots, clip=clip, time=0.04, tracks=(3, None))
    page = write(tmp_path, make_record("none"), record)
    none, frame = data_of(page)["frames"]
    assert none["targets"] == []
    assert frame["time"] == 0.04
    assert [target["label"] for target in frame["targets"]] == ["96%", "50%"]
    assert [target.get("track") for target in frame["targets"]] == [3, None]
    for name in ("none", "c"):
        for folder, size in (("frames", (60, 40)), ("thumbnails", (240, 180))):
            with Image.open(tmp_path / "html" / folder / f"{name}.webp") as picture:
                assert picture.size == size


def test_names_are_data_and_only_the_pages_own_script_may_run(tmp_path: Path) -> None:
    page = write(tmp_path, make_record(HOSTILE.replace("/", ":"), source=HOSTILE))
    assert data_of(page)["frames"][0]["source"] == HOSTILE
    assert "<img src" not in page
    assert page.count("</script>") == 2
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src 'none'; img-src 'self' file:; style-src")
    assert f"script-src 'sha256-{digest}'; " in policy
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_a_page_is_gone_on_with(tmp_path: Path) -> None:
    first = make_record("a", (5, 6, 0.9))
    write(tmp_path, first, make_record("torn"))
    page = write(tmp_path, make_record("b"), done={"a.png"})
    assert [frame["name"] for frame in data_of(page)["frames"]] == ["a", "b"]
    anew = write(tmp_path, make_record("b"))
    assert [frame["name"] for frame in data_of(anew)["frames"]] == ["b"]


def test_boxes_and_crowds_have_a_page(tmp_path: Path) -> None:
    found = Detections(np.array([[5.0, 6.0, 3.0, 4.0]] * 130), np.linspace(0.9, 0.2, 130))
    record = FrameRecord("a.png", 0, "a", np.zeros((40, 60), np.uint16), found)
    (frame,) = data_of(write(tmp_path, record))["frames"]
    assert len(frame["targets"]) == 100
    assert frame["more"] == 30
    assert "path" not in frame["targets"][0]


def test_an_outline_is_every_edge_between_a_pixel_and_none() -> None:
    mask = np.random.default_rng(0).random((7, 9)) < 0.4
    edges = set()
    for x, y, way, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", trace_outline(mask, 20, 10)):
        for step in range(int(length)):
            edges.add((way, int(x) + step * (way == "h"), int(y) + step * (way == "v")))
    padded = np.pad(mask, 1)
    expected = set()
    for y in range(8):
        for x in range(10):
            if x < 9 and padded[y, x + 1] != padded[y + 1, x + 1]:
                expected.add(("h", 20 + x, 10 + y))
            if y < 7 and padded[y + 1, x] != padded[y + 1, x + 1]:
                expected.add(("v", 20 + x, 10 + y))
    assert edges == expected


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if importlib.util.find_spec("playwright") is None or chromium is None:
        pytest.skip("needs a browser: pip install playwright, apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_frames_are_filtered_and_looked_through(browser: Any, tmp_path: Path, width: int) -> None:
    from playwright.sync_api import expect

    write(
        tmp_path,
        make_record("low", (5, 6, 0.55)),
        make_record("none"),
        make_record(HOSTILE.replace("/", ":"), (5, 6, 0.95), (30, 20, 0.7)),
        make_record("high", (56, 37, 0.9996)),
    )
    tab = browser.new_page(viewport={"width": width, "height": 800})
    faults: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((tmp_path / "html" / "index.html").as_uri())
    cards = tab.get_by_role("list", name="Frames").get_by_role("button")
    scores = [text.split()[0] for text in cards.all_inner_texts()]
    assert scores == ["99.96%", "95%", "55%"]
    assert tab.locator("#count").inner_text() == "3 of 4 frames, 4 targets"
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")

    cards.nth(0).click()
    viewer = tab.get_by_role("dialog")
    assert viewer.locator("#title").inner_text() == "high (1 of 3)"
    assert viewer.locator("#picture rect").count() == 1
    whole = viewer.locator("#whole")
    expect(whole).to_have_js_property("naturalWidth", 60)
    tab.keyboard.press("ArrowRight")
    assert viewer.locator("#targets button").count() == 2
    tab.keyboard.press("ArrowDown")
    assert viewer.get_by_role("button", pressed=True).inner_text().startswith("2 70%")
    expect(whole).to_have_js_property("naturalWidth", 60)  # of that name
    tab.keyboard.press("Escape")
    assert not viewer.is_visible()
    focused = tab.locator(":focus")
    expect(focused).to_have_attribute("aria-label", re.compile("best 95%$"))
    tab.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute("aria-label", re.compile("^low"))

    tab.get_by_label("frames without targets").check()
    assert cards.count() == 4
    lowest = tab.get_by_label("Lowest score")
    lowest.focus()
    shown = [4]
    while lowest.input_value() != lowest.get_attribute("max"):
        tab.keyboard.press("ArrowRight")
        shown.append(cards.count())
    assert shown == sorted(shown, reverse=True)
    assert shown[-1] == 1  # the one without a target
    assert tab.title() == "Targets found by pinglow"
    assert not faults
    assert all(url.startswith("file:") for url in asked)
    tab.close()


def test_targets_that_are_not_listed_count_until_the_lowest_score_is_above_a_listed_one(
    browser: Any, tmp_path: Path
) -> None:
    found = Detections(np.array([[5.0, 6.0, 3.0, 4.0]] * 130), np.linspace(0.9, 0.2, 130))
    write(tmp_path, FrameRecord("a.png", 0, "a", np.zeros((40, 60), np.uint16), found))
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    tab.goto((tmp_path / "html" / "index.html").as_uri())
    assert tab.locator("#count").inner_text() == "1 of 1 frame, 130 targets"
    bound = "[...steps.keys()].find((step) => steps[step][0] > 0.5)"
    tab.evaluate(f"$('lowest').value = {bound}; filter(); show(0)")
    lowest = tab.evaluate(f"steps[{bound}][0]")
    above = int((found.scores >= lowest).sum())
    assert tab.locator("#count").inner_text() == f"1 of 1 frame, {above} targets"
    assert tab.locator("#targets li").count() == above
    tab.close()


def test_five_thousand_frames_open_and_scroll(browser: Any, tmp_path: Path) -> None:
    write(tmp_path, make_record("a", (5, 6, 0.9)))
    (line,) = (tmp_path / "html" / "frames.jsonl").read_text().splitlines()
    (tmp_path / "html" / "index.html").write_text(make_page([line] * 5000))
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    tab.goto((tmp_path / "html" / "index.html").as_uri())
    count = "document.getElementById('frames').childElementCount"
    assert 0 < tab.evaluate(count) < 60
    tab.keyboard.press("Tab")
    tab.locator("#frames button").first.focus()
    tab.keyboard.press("End")
    assert tab.evaluate("document.activeElement.parentNode.ariaPosInSet") == "5000"
    assert 0 < tab.evaluate(count) < 60
    tab.close()
