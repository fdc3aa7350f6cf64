"""A real S3 server for tests, moto's, over HTTP on loopback; what it answers can be spoiled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

Answer = tuple[str, bytes]
"""A status and a body."""


class Store:
    """A server.

    Attributes:
        requests: What it was asked: methods and paths.
        spoil: Maps a request's method and path to what is answered; None: moto answers.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log(self, *_: object) -> None: ...

        self.requests: list[str] = []
        self.spoil: Callable[[str, str], Answer | None] | None = None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Silent)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append(f"{method} {path}?{environ['QUERY_STRING']}")
        answer = self.spoil(method, path) if self.spoil else None
        if answer is None:
            return self._moto(environ, start_response)
        status, body = answer
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Type", "application/xml")])
        return [b"" if method == "HEAD" else body]  # a body would be the next answer's start

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serve_s3() -> Iterator[Store]:
    """Start a server, to which s3:// leads in this process and those that it starts."""
    pytest.importorskip("s3fs", reason="needs s3fs: pip install '.[dev]'")
    pytest.importorskip("moto", reason="needs moto's server: pip install '.[dev]'")
    from pinglow.io import places

    store = Store()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", store.address)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        places._open_system.cache_clear()
        try:
            yield store
        finally:
            places._open_system.cache_clear()
            store.stop()
