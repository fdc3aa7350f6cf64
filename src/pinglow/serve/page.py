"""The page at /: static files, which ask this service and nobody else."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from pinglow._version import __version__

router = APIRouter(include_in_schema=False)

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_INDEX: Final = "index.html"
_VERSION: Final = b"PINGLOW_VERSION"

# Nothing inline, nothing from elsewhere; no text becomes markup; a camera for this page only.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Kept, and asked for by its hash each time: a new version shows at once.
    "Cache-Control": "no-cache",
}


@cache
def _load() -> dict[str, tuple[bytes, dict[str, str]]]:
    """Each file of the page with its headers."""
    loaded = {}
    for file in files("pinglow.serve").joinpath("page").iterdir():
        content = file.read_bytes().replace(_VERSION, __version__.encode())
        headers = {
            **_HEADERS,
            "Content-Type": _TYPES[file.name.rpartition(".")[2]],
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        }
        loaded[file.name] = content, headers
    return loaded


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page itself."""
    return _send(request, _INDEX)


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def part(request: Request, name: str) -> Response:
    """A file that the page asks for."""
    if name == _INDEX or name not in _load():
        raise HTTPException(404, "the page has no such file: open / for the page")
    return _send(request, name)


def _send(request: Request, name: str) -> Response:
    content, headers = _load()[name]
    kept = {
        tag.strip().removeprefix("W/")
        for tag in request.headers.get("if-none-match", "").split(",")
    }
    if headers["ETag"] in kept:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)
