"""A live source drops the oldest, comes back, and says how late it is; no clock but the test's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest

from pinglow.errors import FrameError, MissingExtraError
from pinglow.io.live import Feed, LiveSource
from pinglow.io.source import Selection, SourceFrame


def frame(number: int) -> Any:
    return np.full((2, 3), number, np.uint16)


def opens(*feeds: Callable[[], Feed]) -> Callable[[], AbstractContextManager[Feed]]:
    """Open one after the other; a function may raise instead."""
    left = iter(feeds)

    @contextmanager
    def open_feed() -> Iterator[Feed]:
        yield next(left)()

    return open_feed


def feed(count: int, error: str = "", **options: Any) -> Callable[[], Feed]:
    def frames() -> Iterator[Any]:
        yield from map(frame, range(count))
        if error:
            raise FrameError(error)

    return lambda: Feed(frames(), **options)


def fail(reason: str) -> Callable[[], Feed]:
    def raise_it() -> Feed:
        raise FrameError(reason)

    return raise_it


def indices(frames: Iterator[SourceFrame]) -> list[int]:
    return [each.index for each in frames]


def test_the_oldest_are_dropped_and_counted() -> None:
    go, came = threading.Event(), threading.Event()

    def frames() -> Iterator[Any]:
        yield frame(0)
        go.wait(5)
        yield from map(frame, range(1, 10))
        came.set()

    source = LiveSource("cam", opens(lambda: Feed(frames(), 50.0, lasting=False)), "cam")
    assert source.frames is None
    taken = source.select()
    first = next(taken)
    assert (first.index, first.label, source.rate) == (0, "_f000000", 50.0)
    go.set()
    assert came.wait(5)
    rest = list(taken)
    assert [each.index for each in rest] == [6, 7, 8, 9]
    np.testing.assert_array_equal(rest[0].counts, frame(6))
    assert (source.state.received, source.state.dropped) == (10, 5)


def test_what_waits_for_us_loses_nothing() -> None:
    source = LiveSource("http", opens(feed(50, patient=True, lasting=False)), "http")
    assert indices(source.select(Selection(every=3))) == list(range(0, 50, 3))
    assert source.state.dropped == 0


def test_start_and_end_are_seconds_after_the_first_frame() -> None:
    now = [100.0]

    def frames() -> Iterator[Any]:
        for number in range(20):
            yield frame(number)
            now[0] += 0.5

    opened = opens(lambda: Feed(frames(), patient=True, lasting=False))
    source = LiveSource("cam", opened, "cam", clock=lambda: now[0])
    found = list(source.select(Selection(start=1.0, end=3.0)))
    assert [(each.index, each.time) for each in found] == [(2, 1), (3, 1.5), (4, 2), (5, 2.5)]


def test_the_end_comes_though_the_camera_is_silent() -> None:
    silent, now = threading.Event(), [0.0]

    def frames() -> Iterator[Any]:
        yield frame(0)
        silent.wait(5)

    source = LiveSource("cam", opens(lambda: Feed(frames())), "cam", clock=lambda: now[0])
    taken = source.select(Selection(end=3.0))
    next(taken)
    now[0] = 3.0
    assert list(taken) == []
    silent.set()


def test_a_camera_that_goes_away_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    waited: list[float] = []
    source = LiveSource(
        "cam",
        opens(
            feed(2, "cable out", patient=True),
            *[fail("nobody there")] * 2,
            feed(1, patient=True),
            *[fail("nobody there")] * 3,
        ),
        "cam",
        waits=(1, 2, 4),
        wait=waited.append,
    )
    *frames, last = source.select()
    assert indices(iter(frames)) == [0, 1, 2]
    assert isinstance(last.counts, FrameError)
    assert str(last.counts) == (
        "cam went away after 3 frames (nobody there) and did not come back within 3 attempts in "
        "7 s: start again when it is there"
    )
    assert waited == [1, 2, 4, 1, 2, 4]
    assert source.state.reconnects == 1
    assert [record.message for record in caplog.records] == [
        "cam went away after 2 frames (cable out): it is opened again, 3 times at most in 7 s",
        "cam is back",
        "cam went away after 3 frames (it ended): it is opened again, 3 times at most in 7 s",
    ]


@pytest.mark.parametrize(
    ("opened", "message"), [(fail("no cam"), "^no cam$"), (feed(0), "cam gave no frame")]
)
def test_a_camera_that_does_not_open_is_refused(opened: Any, message: str) -> None:
    waited: list[float] = []
    with pytest.raises(FrameError, match=message):
        list(LiveSource("cam", opens(opened), "cam", wait=waited.append).select())
    assert waited == []


def test_a_pipe_that_breaks_off_keeps_what_came() -> None:
    opened = opens(feed(2, "ends in the middle of frame 2", patient=True, lasting=False))
    *frames, last = LiveSource("pipe", opened, "pipe").select()
    assert len(frames) == 2
    assert str(last.counts) == "ends in the middle of frame 2"


def test_other_errors_reach_who_takes_the_frames() -> None:
    def lacking() -> Feed:
        raise MissingExtraError("no av")

    with pytest.raises(MissingExtraError):
        list(LiveSource("cam", opens(lacking), "cam").select())


def test_latency_is_from_arrival_to_results() -> None:
    now = [0.0]
    options = {"patient": True, "lasting": False}
    source = LiveSource("cam", opens(feed(100, **options)), "cam", clock=lambda: now[0])
    assert source.state.latency is None
    for each in source.select():
        now[0] += each.index / 1000
        source.answered(each.index)
        source.answered(each.index)  # once is enough
    # Frames that wait in the queue meanwhile age with the clock: at least their own step.
    assert source.state.latency is not None
    median, late = source.state.latency
    assert 0.0495 <= median <= late
    assert late >= 0.094


def test_closing_ends_the_wait_for_a_silent_camera() -> None:
    silent, waits = threading.Event(), threading.Event()

    def frames() -> Iterator[Any]:
        yield frame(0)
        waits.set()
        silent.wait(5)

    source = LiveSource("cam", opens(lambda: Feed(frames())), "cam")
    taken = source.select()
    next(taken)
    assert waits.wait(5)
    threading.Thread(target=source.close).start()
    assert list(taken) == []
    silent.set()
