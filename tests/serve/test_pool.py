"""The queue before the workers, and what happens when one of them dies."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fake_worker import die, refuse, work, work_together
from pinglow.serve.pool import Pool
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import BusyError, LostError, Task, UnreadyError


@asynccontextmanager
async def running(settings: ServeSettings | None = None, work: Any = work) -> AsyncIterator[Pool]:
    """A pool whose workers are ready."""
    pool = Pool(settings or ServeSettings(), work)
    await pool.start()
    try:
        await until(pool.ready)
        yield pool
    finally:
        await pool.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_full_queue_refuses_and_takes_again(tmp_path: Path) -> None:
    async def test() -> None:
        gate = tmp_path / "gate"
        async with running(ServeSettings(queue=2)) as pool:
            held = asyncio.create_task(pool.submit(Task(f"wait {gate}".encode())))
            await until(lambda: pool.holding == 1)
            waiting = [asyncio.create_task(pool.submit(Task(b"x" * n))) for n in (1, 2)]
            await until(lambda: pool.queued == 2)
            with pytest.raises(BusyError, match="2 frames wait already"):
                await pool.submit(Task(b""))
            gate.touch()
            answers = await asyncio.gather(held, *waiting)
            assert [b'"length": 1' in each.body for each in answers] == [False, True, False]
            assert answers[1].queued > 0
            assert (await pool.submit(Task(b""))).status == 200

    run(test())


def test_who_goes_away_leaves_the_queue(tmp_path: Path) -> None:
    async def test() -> None:
        gate = tmp_path / "gate"
        async with running() as pool:
            held = asyncio.create_task(pool.submit(Task(f"wait {gate}".encode())))
            await until(lambda: pool.holding == 1)
            gone = asyncio.create_task(pool.submit_all([Task(b"1"), Task(b"2")]))
            await until(lambda: pool.queued == 2)
            gone.cancel()
            await until(lambda: pool.queued == 0)
            gate.touch()
            assert (await held).status == 200

    run(test())


def test_a_form_larger_than_the_queue_is_taken_where_nothing_waits() -> None:
    async def test() -> None:
        async with running(ServeSettings(queue=2)) as pool:
            answers = await pool.submit_all([Task(b"x" * n) for n in range(5)])
            assert [int(each.body.split()[-1].strip(b"}")) for each in answers] == [0, 1, 2, 3, 4]

    run(test())


def test_frames_that_wait_are_given_together(tmp_path: Path) -> None:
    async def test() -> None:
        gate = tmp_path / "gate"
        async with running(ServeSettings(wait_ms=0), work_together) as pool:
            held = asyncio.create_task(pool.submit(Task(f"wait {gate}".encode())))
            await until(lambda: pool.holding == 1)
            more = [asyncio.create_task(pool.submit(Task(b"x" * n))) for n in range(6)]
            await until(lambda: pool.queued == 6)
            gate.touch()
            batches = [each.batch for each in await asyncio.gather(held, *more)]
            assert batches == [1, 4, 4, 4, 4, 2, 2]

    run(test())


def test_a_frame_waits_for_others_no_longer_than_it_may() -> None:
    async def test() -> None:
        async with running(ServeSettings(wait_ms=20), work_together) as pool:
            alone = await pool.submit(Task(b""))
            assert alone.batch == 1
            assert 0.01 < alone.queued < 10
            full = await pool.submit_all([Task(b"")] * 4)
            assert [each.batch for each in full] == [4] * 4

    run(test())


def test_a_dead_worker_loses_what_it_holds_and_is_started_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with running() as pool:
            lost = asyncio.create_task(pool.submit(Task(b"die")))
            others = [asyncio.create_task(pool.submit(Task(b""))) for _ in range(3)]
            with pytest.raises(LostError, match="send it again"):
                await lost
            assert [each.status for each in await asyncio.gather(*others)] == [200] * 3
            assert pool.restarts == 1

    run(test())


def test_a_worker_killed_while_idle_loses_nothing() -> None:
    async def test() -> None:
        async with running() as pool:
            [process] = multiprocessing.active_children()
            process.kill()
            await until(lambda: pool.restarts == 1)
            assert (await pool.submit(Task(b""))).status == 200

    run(test())


def test_a_worker_that_does_not_come_back_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pinglow.serve.pool._LONGEST", 0.2)

    async def test() -> None:
        async with running() as pool:
            with pytest.raises(LostError):
                await pool.submit(Task(f"wait {tmp_path / 'never'}".encode()))
            await until(pool.ready)
            assert (await pool.submit(Task(b""))).status == 200

    run(test())


@pytest.mark.parametrize(
    ("work", "said"),
    [(die, r"died 3 times while it loaded pinglow-fast \(exit code 3\)"), (refuse, "damaged")],
)
def test_a_model_that_cannot_be_loaded_ends_it(work: Any, said: str) -> None:
    async def test() -> None:
        pool = Pool(ServeSettings(), work)
        with pytest.raises(UnreadyError, match="being loaded"):
            await pool.submit(Task(b""))
        await pool.start()
        async with asyncio.timeout(30):
            await pool.failed.wait()
        assert not pool.ready()
        assert pool.reason is not None
        with pytest.raises(type(pool.reason), match=said):
            raise pool.reason
        await pool.close()

    run(test())


def test_draining_answers_what_was_accepted(tmp_path: Path) -> None:
    async def test() -> None:
        gate = tmp_path / "gate"
        async with running() as pool:
            held = [asyncio.create_task(pool.submit(Task(f"wait {gate}".encode())))]
            await until(lambda: pool.holding == 1)
            held.append(asyncio.create_task(pool.submit(Task(b""))))
            await until(lambda: pool.queued == 1)
            drain = asyncio.create_task(pool.drain(30))
            await until(lambda: not pool.ready())
            with pytest.raises(UnreadyError, match="being stopped"):
                await pool.submit(Task(b""))
            assert not drain.done()
            gate.touch()
            await drain
            assert [each.status for each in await asyncio.gather(*held)] == [200, 200]

    run(test())


def test_closing_loses_what_waits(tmp_path: Path) -> None:
    async def test() -> None:
        async with running() as pool:
            held = [
                asyncio.create_task(pool.submit(Task(f"wait {tmp_path / 'never'}".encode())))
                for _ in range(2)
            ]
            await until(lambda: pool.holding == 1)
            await pool.drain(0.01)
            await pool.close()
            for each in held:
                with pytest.raises(LostError):
                    await each

    run(test())
