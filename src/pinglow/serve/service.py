"""What the endpoints share: the pool, the options, the metrics, and whether the service ends."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import cast

from starlette.requests import HTTPConnection

from pinglow.serve.job_store import JobStore
from pinglow.serve.metrics import Metrics
from pinglow.serve.pool import Pool
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import Loaded, UnreadyError


class Service:
    """The state of a running service.

    Attributes:
        settings: Its options.
        pool: Its workers.
        jobs: What is worked on in the background.
        metrics: What is counted.
        draining: Set when the service is to end: what is open for long ends itself then.
        active: Requests that are being answered.
        held: Bytes of bodies that are being read or answered, and of frames of streams.
        streams: Streams that are open.
    """

    def __init__(self, settings: ServeSettings, pool: Pool) -> None:
        self.settings = settings
        self.pool = pool
        self.jobs = JobStore(settings.jobs)
        self.metrics = Metrics(pool)
        self.draining = asyncio.Event()
        self.active = 0
        self.held = 0
        self.streams = 0
        self.metrics.show("streams_open", "Streams that are open", lambda: self.streams)
        for state, text in (("queued", "Jobs that wait"), ("running", "Jobs that run")):
            self.metrics.show(f"jobs_{state}", text, partial(self.jobs.count, state))

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self.pool.ready() and not self.draining.is_set()

    def check_ready(self) -> None:
        """See whether requests are taken.

        Raises:
            UnreadyError: They are not.
        """
        if not self.is_ready:
            raise UnreadyError("the model is being loaded, or the service is being stopped")

    @property
    def model(self) -> Loaded:
        """What the workers said of their model.

        Raises:
            UnreadyError: It is not loaded yet.
        """
        if self.pool.loaded is None:
            raise UnreadyError("the model is being loaded: try again in a few seconds")
        return self.pool.loaded

    async def drain(self, seconds: float) -> None:
        """Refuse new requests, and wait until those that were accepted are answered."""
        end = time.monotonic() + seconds
        self.draining.set()
        await self.jobs.drain(seconds)
        while self.active and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await self.pool.drain(max(0.0, end - time.monotonic()))


def service_of(connection: HTTPConnection) -> Service:
    """The service that a request or a WebSocket has come to."""
    return cast(Service, connection.app.state.service)
