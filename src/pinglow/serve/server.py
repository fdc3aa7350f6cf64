"""Run the service: sockets, connections that cost too much, signals, the end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from pinglow.errors import OptionError
from pinglow.serve.app import make_app
from pinglow.serve.connections import Connection
from pinglow.serve.logs import log_to_stderr
from pinglow.serve.pool import Pool
from pinglow.serve.service import Service
from pinglow.serve.settings import ServeSettings

_DRAIN: Final = 30.0  # seconds
_CLOSE: Final = 2  # seconds for connections to end after that
_IDLE: Final = 75  # seconds that a connection may live between requests: load balancers have 60


def run(settings: ServeSettings, tell: Callable[[str], None]) -> None:
    """Serve until a signal says to stop, then answer what was accepted.

    Args:
        settings: Options.
        tell: Is told the address.

    Raises:
        OptionError: The address cannot be listened on.
        PinglowError: The model cannot be used, or workers die.
    """
    listener = _listen(settings)
    log_to_stderr()
    asyncio.run(_run(settings, listener, tell))


def _listen(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        raise OptionError(
            f"--host {settings.host} --port {settings.port} cannot be listened on "
            f"({error.strerror or error}): choose another port"
        ) from error


async def _run(
    settings: ServeSettings, listener: socket.socket, tell: Callable[[str], None]
) -> None:
    pool = Pool(settings)
    app = make_app(settings, pool)
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        http=Connection,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_CLOSE,
        ws_max_size=settings.max_bytes,
    )
    server = _Server(config)
    with _signals() as stop:
        serving = asyncio.create_task(server.serve([listener]))
        host, port = listener.getsockname()[:2]
        tell(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        ends = [asyncio.create_task(each.wait()) for each in (stop, pool.failed)]
        await asyncio.wait({serving, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if pool.reason is None:
            await service.drain(_DRAIN)
        server.should_exit = True
        await serving
        for each in ends:
            each.cancel()
    if pool.reason is not None:
        raise pool.reason


class _Server(uvicorn.Server):
    """Leaves signals to us: what ends by one drains, and its exit code is 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event that the first signal to stop sets; the second one ends the process as usual."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def hear(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(stop.set)
        for each, handler in before.items():
            signal.signal(each, handler)

    for each in before:
        signal.signal(each, hear)
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
