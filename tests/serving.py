"""The service within the process of the tests: over HTTP, but without processes to start."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from pinglow.inference.predictor import Predictor
from pinglow.serve.app import make_app
from pinglow.serve.pool import Pool
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import Answer, BusyError, Task
from pinglow.serve.worker import answer_all, describe


class LocalPool(Pool):
    """A pool whose worker is this process; `predictor` None: it is not ready."""

    predictor: Predictor | None = None
    busy = False

    async def start(self) -> None:
        if self.predictor is not None:
            self.loaded = describe(self.predictor)
            self.alive = 1

    async def submit_all(self, tasks: Sequence[Task]) -> list[Answer]:
        if self.busy:
            raise BusyError("64 frames wait already: try again in a second")
        assert self.predictor is not None
        return answer_all(self.predictor, tasks, 2**20)


@contextmanager
def serve(pool: LocalPool, **settings: Any) -> Iterator[str]:
    """Run the service on a port of this machine; give its address."""
    app = make_app(ServeSettings(**settings), pool)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    yield f"{host}:{port}"
    server.should_exit = True
    thread.join()
