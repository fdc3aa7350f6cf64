"""What hostile clients send, and what of it counts as having got through.

An attack is through if an answer has a status that it should not have, tells something of the
computer (a planted secret, a path, a traceback), more answers come than requests were sent, no
answer comes in time, or the service still holds a connection that it should have let go. What all
attacks together do to memory, files, workers and other clients is judged beside: see `besiege.py`.
"""

from __future__ import annotations

import itertools
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from siege import bombs
from siege.service import make_frames
from siege.wire import PATIENCE, Exchange, Send, dripping, endless, once, request

REFUSED = frozenset({400, 401, 403, 404, 405, 406, 408, 411, 413, 414, 415, 417, 421, 422, 426})
REFUSED |= {428, 429, 431, 501, 505}
ACCEPTED = frozenset({200, 202})
LET_GO = 90.0  # seconds after which a client that does nothing has lost its connection

SECRET = "pinglow-secret"
"""Stands in a file beside the service's folder."""
EVIL = "pinglow-evil"
"""Stands in the name of each file that an attack tries to make."""


@dataclass(frozen=True)
class Attack:
    """Bytes, and what may come back."""

    family: str
    name: str
    send: Send
    allowed: frozenset[int] = REFUSED
    answers: int = 1  # more of them were smuggled
    patience: float = PATIENCE
    read_every: float = 0.0  # seconds between bytes that it reads
    slow: bool = False  # the connection must be gone after `patience`
    silent: bool = False  # no answer is good as well: the connection is closed
    unharmed: Callable[[Exchange], bool] = lambda found: True

    def judge(self, found: Exchange, paths: tuple[str, ...]) -> str | None:
        """How it got through; None: it did not.

        Args:
            found: What came back.
            paths: Parts of paths that no answer may tell.
        """
        for reply in found.replies:
            if reply.status not in self.allowed and reply.status != 100:
                return f"the answer is {reply.status}: {reply.body[:200]!r}"
        text = b"".join(r.head.encode("latin-1") + r.body for r in found.replies) + found.rest
        for word in (SECRET, "root:x:0", "Traceback", "site-packages", *paths):
            # A name that it sent may come back: it knows that.
            if word.encode() in text and word not in self.name:
                return f"an answer tells {word!r}: {text[:300]!r}"
        if len([reply for reply in found.replies if reply.status != 100]) > self.answers:
            return f"{len(found.replies)} answers"
        if found.held:
            return f"held for {found.seconds:.0f} s"
        if not found.replies and not self.slow and not (found.closed and self.silent):
            return f"no answer within {found.seconds:.0f} s"
        return None if self.unharmed(found) else "it was taken in"


def make_attacks(outside: str) -> list[Attack]:
    """All of them on a service of the loopback without a token.

    Args:
        outside: A folder beside that of the service, which holds the secret.
    """
    families = (traversals(outside), names(outside), images(), archives(outside), encodings())
    families += (lengths(), multiparts(), tensors(), smuggling(), heads(), queries(), slow())
    families += (sockets(),)
    return list(itertools.chain(*families))


# --- paths and names ------------------------------------------------------------------------------


def traversals(outside: str) -> Iterator[Attack]:
    """Paths that lead up."""
    steps = ("../", "%2e%2e/", "..%2f", "%2e%2e%2f", "%252e%252e%252f", "..\\", "..%5c", "....//")
    steps += ("..;/", "%c0%ae%c0%ae/", ".%00./", "..%c1%9c")
    places = ("/", "/page/", "/v1/jobs/", "/v1/models/", "/v2/models/", "/static/")
    for place, step in itertools.product(places, steps):
        for target in ("/etc/passwd", f"{outside}/{SECRET}"):
            path = place + step * 12 + target[1:]
            yield Attack("traversal", path, once(request("GET", path)))
    for place in ("/", "/page", "/v1/jobs/x/results"):
        for path in ("//etc/passwd", "/%2fetc%2fpasswd", "/file:///etc/passwd", "/\\etc\\passwd"):
            yield Attack("traversal", place + path, once(request("GET", place + path)))


def names(outside: str) -> Iterator[Attack]:
    """Names of frames that are paths, or more than names."""
    known = (f"../{EVIL}.png", f"{outside}/{EVIL}.png", "/etc/passwd", "..", "", "%00.png")
    known += ("%0d%0aX-Evil:%20yes.png", "%1b%5b2J.png", "%ff%fe.png", "a" * 5000, "C:%5cEVIL.png")
    known += (
        "http://127.0.0.1:1/a.png",
        "file:///etc/passwd",
        "rtsp://127.0.0.1:1/",
        "%3Cscript%3E",
    )
    small = bombs.png(64, 64, data=zlib.compress(bytes(64 * 129)))
    for name in known:
        for path in (f"/v1/predict?name={name}", f"/v1/predict?save=overlay&name={name}"):
            yield Attack(
                "name",
                f"query {name[:40]} {path[12:16]}",
                once(request("POST", path, small)),
                REFUSED | ACCEPTED,
                unharmed=_one_line_heads,
            )
        raw = re.sub("%(..)", lambda found: chr(int(found[1], 16)), name)
        yield Attack(
            "name",
            f"part {name[:40]}",
            once(_multipart([(f'form-data; name="f"; filename="{raw}"', small)])),
            REFUSED | ACCEPTED,
            unharmed=_one_line_heads,
        )


def _one_line_heads(found: Exchange) -> bool:
    return not any("x-evil" in reply.head.lower() for reply in found.replies)


def queries() -> Iterator[Attack]:
    """Options that are no numbers, or too many."""
    small = bombs.png(64, 64, data=zlib.compress(bytes(64 * 129)))
    values = ("nan", "inf", "-1", "1e309", "2", "", "0x1", "١", "1" * 5000, "[]", "__class__")
    for value in values:
        path = f"/v1/predict?min_score={value}"
        yield Attack("query", path[:60], once(request("POST", path, small)), REFUSED | ACCEPTED)
    regions = ("0,0,1e99,1", "-1,-1,5,5", "0,0,0,0", "nan,0,1,1", ",,,", "/etc/passwd", "@f", "*")
    for value, option in itertools.product(regions, ("ignore", "crop")):
        path = f"/v1/predict?{option}={value}"
        yield Attack("query", path, once(request("POST", path, small)), REFUSED | ACCEPTED)
    many = "&".join(["ignore=0,0,1,1"] * 3000)
    path = f"/v1/predict?{many}"
    yield Attack("query", "3000 regions", once(request("POST", path, small)), REFUSED | ACCEPTED)
    for save in ("../../x", "html", "csv", "__import__", "mask,overlay", ""):
        path = f"/v1/predict?save={save}"
        yield Attack("query", path, once(request("POST", path, small)), REFUSED | ACCEPTED)


# --- bodies ---------------------------------------------------------------------------------------


def images() -> Iterator[Attack]:
    for name, make in bombs.images():
        path = f"/v1/predict?name={name}"
        sent = once(request("POST", path, make()))
        yield Attack("image", name, sent, REFUSED | ACCEPTED)
        if name.endswith(".tif"):
            sent = once(request("POST", f"/v1/jobs?name={name}", make()))
            yield Attack("job", name, sent, REFUSED | ACCEPTED)


def archives(outside: str) -> Iterator[Attack]:
    for name, make in itertools.chain(bombs.archives(), bombs.members(outside)):
        sent = once(request("POST", f"/v1/jobs?name={name}", make()))
        yield Attack("job", name, sent, REFUSED | ACCEPTED)


def encodings() -> Iterator[Attack]:
    """Bodies that say they are packed."""
    packed = {
        "gzip": bombs.gzipped(1000),
        "x-gzip": bombs.gzipped(1000),
        "deflate": bombs.deflated(1000),
    }
    packed |= {
        "br": b"\xff" * 999,
        "zstd": b"\x28\xb5\x2f\xfd" + b"\xff" * 99,
        "compress": b"\x1f\x9d",
    }
    packed |= {"gzip, gzip": bombs.gzipped(100), "identity, gzip": bombs.gzipped(100)}
    for path in ("/v1/predict", "/v1/jobs", "/v2/models/pinglow-fast/infer"):
        for encoding, body in packed.items():
            sent = once(request("POST", path, body, {"Content-Encoding": encoding}))
            yield Attack("encoding", f"{encoding} {path}", sent, REFUSED | {202})


def lengths() -> Iterator[Attack]:
    """Lengths that lie."""
    for path in ("/v1/predict", "/v1/jobs", "/v2/models/pinglow-fast/infer"):
        for length in ("99999999999", "9" * 30, "-1", "+5", "5, 5", "0x10", "1e3", "5 5", "", "٥"):
            sent = once(
                _text(f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}")
            )
            yield Attack("length", f"{length[:12]} {path}", sent)
        chunked = request("POST", path, None, {"Transfer-Encoding": "chunked"})
        chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
        yield Attack("length", f"endless chunks {path}", endless(chunked, chunk), silent=True)
        yield Attack(
            "length",
            f"endless extension {path}",
            endless(chunked + b"1;", b"x" * 9999),
            silent=True,
        )
        trailers = endless(chunked + b"0\r\n", b"X-Trailer: x\r\n" * 999)
        yield Attack("length", f"endless trailers {path}", trailers, silent=True)
        for size in ("-1", "0x5", "f" * 17, "g", "", " 5", "5 ", "+5"):
            sent = once(chunked + f"{size}\r\nabcde\r\n0\r\n\r\n".encode())
            yield Attack("length", f"chunk {size!r} {path}", sent, REFUSED | {202}, silent=True)


def _multipart(
    parts: list[tuple[str, bytes]], boundary: str = "b", end: bool = True, path: str = "/v1/predict"
) -> bytes:
    content = b"".join(
        f"--{boundary}\r\nContent-Disposition: {about}\r\n\r\n".encode("latin-1", "replace")
        + data
        + b"\r\n"
        for about, data in parts
    )
    content += f"--{boundary}--\r\n".encode() if end else b""
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return request("POST", path, content, kind)


def multiparts() -> Iterator[Attack]:
    def attack(name: str, data: bytes) -> Attack:
        return Attack("multipart", name, once(data))

    file = 'form-data; name="f"; filename="a.png"'
    yield attack("10000 files", _multipart([(file, b"x")] * 10_000))
    yield attack("10000 fields", _multipart([('form-data; name="f"', b"x")] * 10_000))
    yield attack("no files", _multipart([]))
    yield attack("not closed", _multipart([(file, b"x")], end=False))
    yield attack("long boundary", _multipart([(file, b"x")], "b" * 5000))
    yield attack("large field", _multipart([('form-data; name="f"', b"x" * 5_000_000)]))
    yield attack("large header", _multipart([("form-data; x=" + "y" * 1_000_000, b"x")]))
    lines = "\r\n".join(f"X-{number}: x" for number in range(20_000))
    yield attack("many headers", _multipart([(f"{file}\r\n{lines}", b"x")]))
    yield attack("no disposition", _multipart([("", b"x")]))
    yield attack("cut name", _multipart([('form-data; name="f', b"x")]))
    yield attack("no name", _multipart([("form-data", b"x")]))
    yield attack("encoded name", _multipart([("form-data; name=f; filename*=x''%2e%2e%2f", b"x")]))
    yield attack("100 bombs", _multipart([(file, bombs.png(*bombs.HUGE))] * 100))
    nested = _multipart([(file, b"x")], "inner")
    yield attack("nested", _multipart([(f"{file}\r\nContent-Type: multipart/mixed", nested)]))
    for kind in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=b",
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary=é",
        "application/x-www-form-urlencoded",
    ):
        data = request("POST", "/v1/predict", b"--b\r\n\r\nx\r\n--b--", {"Content-Type": kind})
        yield attack(kind, data)


def tensors(model: str = "pinglow-fast") -> Iterator[Attack]:
    """What the Open Inference Protocol can be sent."""
    path = f"/v2/models/{model}/infer"

    def attack(
        name: str,
        body: bytes,
        headers: dict[str, str] | None = None,
        allowed: frozenset[int] = REFUSED,
    ) -> Attack:
        given = {"Content-Type": "application/json", **(headers or {})}
        return Attack("tensor", name, once(request("POST", path, body, given)), allowed)

    for opening, depth in itertools.product((b"[", b'{"a":', b'{"inputs":['), (1000, 300_000)):
        yield attack(f"{depth} x {opening.decode()}", opening * depth)
    yield attack("deep data", _infer(data="[" * 100_000 + "]" * 100_000))
    numbers = ("1e999", "NaN", "-Infinity", "9" * 5000, '"x"', "null", "true", "{}", "-1", "1e38")
    for number in numbers:
        body = _infer(data=f"[{number},1,2,3]")
        yield attack(f"number {number[:9]}", body, allowed=REFUSED | ACCEPTED)
        body = _infer(data=f"[{number},1,2,3]", kind="UINT16")
        yield attack(f"whole number {number[:9]}", body, allowed=REFUSED | ACCEPTED)
    shapes = ("[-1,64,64]", "[1e3]", "[9999999,9999999]", "[0,0]", "[1,1,1,1,1,1,1,1]", "[]")
    shapes += (f"[{2**63},{2**63}]", '["a"]', "[1.5,2]", "[true,true]", "null", "[4]", "{}")
    shapes += (f"[1,{2**32},{2**32}]", f"[{2**62},2,2]", "[2,2,-1,-1]", "[1000000,2,2]")
    for shape in shapes:
        yield attack(f"shape {shape}", _infer(shape=shape))
    for kind in ("BYTES", "INT8", "OBJECT", "|O", "__class__", "", "fp32", "<U99999999"):
        yield attack(f"datatype {kind}", _infer(kind=kind))
    head = (
        b'{"inputs":[{"name":"frame","datatype":"FP32","shape":[1,32,32],'
        b'"parameters":{"binary_data_size":%d}}]}'
    )
    name = "Inference-Header-Content-Length"
    for size in (-1, 0, 3, 2**40, 4096):
        content = head % size
        sent = {name: str(len(content)), "Content-Type": "application/octet-stream"}
        yield attack(f"binary of {size}", content + bytes(64), sent)
    for length in ("-1", "999999", "x", "", "1e3", "9" * 50):
        yield attack(f"header length {length[:9]}", head % 4096 + bytes(4096), {name: length})
    region = b'{"inputs":[{"name":"frame","datatype":"FP32","shape":[1,32,32],"parameters":'
    region += b'{"shared_memory_region":"/dev/shm/x","shared_memory_byte_size":4096}}]}'
    yield attack("shared memory", region)
    for output in ('"../../x"', "1", "null", '{"name":"x"}', '{"name":"probability"}'):
        body = _infer()[:-1] + b',"outputs":[' + b",".join([output.encode()] * 5000) + b"]}"
        yield attack(f"5000 outputs {output}", body, allowed=REFUSED | ACCEPTED)
    yield attack("same keys", b'{"inputs":1,' * 1000)
    yield attack("bytes", bytes(range(256)) * 100)
    yield attack("10000 inputs", b'{"inputs":[' + b",".join([b"{}"] * 10_000) + b"]}")
    long = f"/v2/models/{'m' * 5000}/versions/{'9' * 500}"
    yield Attack("tensor", "long names", once(request("GET", long)))
    yield Attack("tensor", "path as name", once(request("GET", "/v2/models/..%2f..%2fetc/ready")))


def _infer(shape: str = "[1,2,2]", kind: str = "FP32", data: str = "[1,2,3,4]") -> bytes:
    given = f'"name":"frame","datatype":{json.dumps(kind)},"shape":{shape},"data":{data}'
    return f'{{"inputs":[{{{given}}}]}}'.encode()


# --- heads ----------------------------------------------------------------------------------------


def _text(*lines: str, body: str = "", end: str = "\r\n") -> bytes:
    return (end.join((*lines, "")) + end + body).encode("utf-8")


def smuggling() -> Iterator[Attack]:
    """Requests that two readers end at different places."""
    hidden = "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Hidden: 1\r\n\r\n"
    codings = ("chunked", "Chunked", "xchunked", "chunked, identity", "identity", "gzip, chunked")
    codings += ("chunked\x0b", "\tchunked", "chunked, chunked", '"chunked"', "x\r\n chunked")
    for coding in codings:
        lines = ("POST /v1/predict HTTP/1.1", "Host: 127.0.0.1", f"Transfer-Encoding: {coding}")
        for length in (4, len(hidden) + 5):
            sent = once(_text(*lines, f"Content-Length: {length}", body=f"0\r\n\r\n{hidden}"))
            yield Attack("smuggling", f"{coding!r} and {length}", sent, silent=True)
    first = ("POST /v1/predict HTTP/1.1", "Host: 127.0.0.1")
    odd = {
        "two lengths": (*first, "Content-Length: 0", f"Content-Length: {len(hidden)}"),
        "list of lengths": (*first, f"Content-Length: 0, {len(hidden)}"),
        "space before colon": (*first, f"Content-Length : {len(hidden)}"),
        "no colon": (*first, "Content-Length 5"),
        "NUL in a name": (*first, "Content\0-Length: 5"),
        "NUL in a value": (*first, "X: a\0b"),
        "return in a value": (*first, "X: a\rContent-Length: 5"),
        "coding twice": (*first, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        "old version": ("POST /v1/predict HTTP/1.0", "Transfer-Encoding: chunked"),
        "two hosts": (*first, "Host: other"),
        "no host": ("POST /v1/predict HTTP/1.1", "Content-Length: 0"),
        "empty name": (*first, ": x"),
    }
    for name, lines in odd.items():
        yield Attack("smuggling", name, once(_text(*lines, body=hidden)), silent=True)
    bare = _text(*first, f"Content-Length: {len(hidden)}", body=hidden, end="\n")
    yield Attack("smuggling", "bare newlines", once(bare), silent=True)


def heads() -> Iterator[Attack]:
    """Requests whose first lines are the attack."""

    def attack(name: str, data: bytes, allowed: frozenset[int] = REFUSED, **more: object) -> Attack:
        return Attack("head", name, once(data), allowed, silent=True, **more)  # type: ignore[arg-type]

    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8080",
        "169.254.169.254",
        "localhost.evil.example",
        "[::ffff:7f00:1]x",
        "a" * 300,
        "",
        "127.0.0.1@evil",
    ):
        yield attack(f"host {host[:30]}", request("GET", "/v1/models", host=host))
        yield attack(f"host {host[:30]}, job", request("POST", "/v1/jobs", b"x", host=host))
    for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example", "file://"):
        for method, path in (
            ("POST", "/v1/jobs"),
            ("DELETE", "/v1/jobs/x"),
            ("POST", "/v1/predict"),
        ):
            yield attack(
                f"origin {origin} {method} {path}", request(method, path, b"x", {"Origin": origin})
            )
    for value in (
        "a\r\n b",
        "\x1b[2J",
        "a" * 5000,
        '"}\\n{"level":"x',
        "<script>",
        "é",
        "a\tb",
        "%0a",
        "../../x",
        "\x7f",
        "{{7*7}}",
        "${jndi:ldap://127.0.0.1/x}",
    ):
        yield attack(
            f"request id {value[:20]!r}",
            request("GET", "/healthz", None, {"X-Request-Id": value}),
            REFUSED | ACCEPTED,
            unharmed=lambda found: all(
                r.head.isascii() and "\x1b" not in r.head for r in found.replies
            ),
        )
    large = {"X-Large": "x" * 2_000_000}
    yield attack("large header", request("GET", "/healthz", None, large))
    many = {f"X-{number}": "x" * 20 for number in range(20_000)}
    yield attack("many headers", request("GET", "/healthz", None, many))
    yield attack("long path", request("GET", "/" + "a" * 1_000_000))
    yield attack("long method", request("A" * 1_000_000, "/"))
    yield attack("no end", request("GET", "/healthz")[:-2] + b"X: " + b"y" * 1_000_000)
    for method in (
        "TRACE",
        "CONNECT",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "PROPFIND",
        "get",
        "\x00",
    ):
        for path in ("/v1/predict", "/metrics", "*"):
            yield attack(f"{method!r} {path}", request(method, path))
    over = {"X-HTTP-Method-Override": "DELETE", "X-Original-URL": "/v1/jobs", "X-Rewrite-URL": "/x"}
    yield attack("overrides", request("GET", "/v1/nothing", None, over))
    ranges = (
        "bytes=0-," * 2000,
        "bytes=-99999999999999999999",
        "bytes=5-1",
        "lines=0-1",
        "bytes=" + "0-0," * 4000,
    )
    for value in ranges:
        sent = request("GET", "/", None, {"Range": value})
        yield attack(f"range {value[:20]}", sent, REFUSED | {200, 206, 416})
    for name, data in {
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
        "HTTP/0.9": b"GET /\r\n\r\n",
        "HTTP/9.9": request("GET", "/", version="9.9"),
        "nothing but newlines": b"\r\n" * 50_000,
        "noise": bytes(range(256)) * 400,
        "SSH": b"SSH-2.0-x\r\n\r\n",
        "absolute": request("GET", "http://evil.example/v1/models", host="evil.example"),
        "fragment": request("GET", "/v1/nothing#x"),
    }.items():
        yield attack(name, data)
    upgrade = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABk",
    }
    yield attack("h2c", request("GET", "/healthz", None, upgrade), REFUSED | ACCEPTED)


def tokens(token: str) -> Iterator[Attack]:
    """Attempts at a service that asks for a token."""

    def attack(name: str, *values: str, path: str = "/v1/models", method: str = "GET") -> Attack:
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"Authorization: {value}" for value in values]
        return Attack("token", name, once(_text(*lines)), REFUSED, silent=True)

    for value in (
        "",
        "Bearer",
        "Bearer ",
        f"Basic {token}",
        token,
        f"Bearer {token}x",
        "Bearer é",
        f"Bearer {token[:-1]}",
        f"Bearer {token.swapcase()}",
        "Bearer null",
        "Bearer undefined",
        "Bearer " + "x" * 30_000,
        f"Bearer x {token}",
        "Bearer \u202e",
        f"Digest {token}",
        f"Bearer={token}x",
    ):
        yield attack(f"{value[:30]!r}", value)
    yield attack("in the query", path=f"/v1/models?token={token}&access_token={token}")
    yield attack("two", "Bearer x", "Bearer y")
    for method, path in (
        ("POST", "/v1/predict"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs"),
        ("DELETE", "/v1/jobs/x"),
        ("GET", "/v2"),
        ("GET", "/v1/models/"),
        ("GET", "//v1/models"),
        ("GET", "/v1/./models"),
        ("GET", "/V1/models"),
        ("POST", "/v2/models/pinglow-fast/infer"),
        ("GET", "/healthz/../v1/models"),
        ("GET", "/%761/models"),
    ):
        yield attack(f"none for {method} {path}", method=method, path=path)
    for wish in ("", "bearer", "bearer.x", "bearer.", "bearer." + "x" * 5000):
        yield Attack("token", f"stream {wish[:20]!r}", once(_handshake(protocol=wish)), REFUSED)


# --- slow -----------------------------------------------------------------------------------------


def slow() -> Iterator[Attack]:
    """Clients that take their time: after `LET_GO` seconds none may hold a connection."""

    def attack(name: str, send: Send, read_every: float = 0.0, answers: int = 0) -> Attack:
        return Attack(
            "slow", name, send, REFUSED | ACCEPTED, answers or 10**9, LET_GO, read_every, slow=True
        )

    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for number in range(4):
        yield attack(f"silence {number}", dripping(b"", 1))
        yield attack(f"half a head {number}", dripping(head[:20], 0))
        yield attack(f"head by bytes {number}", dripping(head, 0.5, 1, b"X: y\r\n"))
    yield attack("head by lines", dripping(head, 0.1, 30, b"X-Slow: y\r\n"))
    for path in ("/v1/predict", "/v1/jobs", "/v2/models/pinglow-fast/infer"):
        post = request("POST", path, None, {"Content-Length": "50000"})
        chunked = request("POST", path, None, {"Transfer-Encoding": "chunked"})
        form = {"Content-Length": "50000", "Content-Type": "multipart/form-data; boundary=b"}
        for number in range(3):
            yield attack(f"no body {number} {path}", dripping(post, 0, 9999))
            yield attack(f"body by bytes {number} {path}", dripping(post, 0, 9999, b"x"))
        yield attack(f"chunks by bytes {path}", dripping(chunked, 0.5, 9999, b"1\r\nx\r\n"))
        yield attack(f"no chunks {path}", dripping(chunked, 0, 9999))
        parts = dripping(request("POST", path, None, form), 0.5, 9999, b"--b\r\n")
        yield attack(f"parts by bytes {path}", parts)
    many = request("GET", "/openapi.json") * 2000
    for number in range(4):
        yield attack(f"answers not read {number}", once(many), read_every=1.0)
    (noise,) = make_frames(1, 1024)  # its pictures are large
    pictures = request("POST", "/v1/predict?save=overlay", noise, {"Accept": "image/png"})
    yield attack("pictures not read", once(pictures * 8), read_every=1.0)


# --- WebSockets -----------------------------------------------------------------------------------


def _handshake(
    path: str = "/v1/streams", protocol: str | None = None, **other: str | None
) -> bytes:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    if protocol is not None:
        headers["Sec-WebSocket-Protocol"] = protocol
    headers |= {name.replace("_", "-"): value for name, value in other.items() if value is not None}
    left_out = [name.replace("_", "-") for name, value in other.items() if value is None]
    return request("GET", path, None, {k: v for k, v in headers.items() if k not in left_out})


def message(content: bytes, code: int = 2, end: bool = True, claim: int | None = None) -> bytes:
    """A frame of the WebSocket protocol, masked with zeros."""
    length = len(content) if claim is None else claim
    first = bytes([(0x80 if end else 0) | code])
    if length < 126:
        return first + bytes([0x80 | length, 0, 0, 0, 0]) + content
    if length < 2**16:
        return first + b"\xfe" + struct.pack(">H", length) + bytes(4) + content
    return first + b"\xff" + struct.pack(">Q", length) + bytes(4) + content


def sockets() -> Iterator[Attack]:
    open_one = _handshake()

    def attack(name: str, send: Send, let_go: bool = False) -> Attack:
        patience = LET_GO if let_go else 3.0
        allowed = REFUSED | {101}
        return Attack("socket", name, send, allowed, 1, patience, slow=let_go, silent=True)

    broken = {
        "version": _handshake(Sec_WebSocket_Version="7"),
        "no key": _handshake(Sec_WebSocket_Key=None),
        "short key": _handshake(Sec_WebSocket_Key="x"),
        "no upgrade": _handshake(Upgrade=None),
        "other upgrade": _handshake(Upgrade="h2c"),
        "foreign origin": _handshake(Origin="http://evil.example"),
        "origin null": _handshake(Origin="null"),
        "other path": _handshake("/v1/predict"),
        "up": _handshake("/v1/streams/../../etc/passwd"),
        "foreign host": _handshake(Host="evil.example"),
        "post": _handshake().replace(b"GET", b"POST"),
    }
    for name, data in broken.items():
        yield Attack("socket", name, once(data), REFUSED, patience=5.0, silent=True)
    for query in (
        "rate=nan",
        "rate=0",
        "rate=-1",
        "rate=1e309",
        "rate=x",
        "min_score=nan",
        "raw=99999999x99999999:gray16le",
        "raw=0x0:gray8",
        "raw=-1x5:gray8",
        "raw=x",
        "raw=64x64:../../x",
        "raw=" + "9" * 4000 + "x1:gray8",
        "min_score=2",
    ):
        sent = once(_handshake(f"/v1/streams?{query}") + message(b"x"))
        yield attack(query[:40], sent)
    frames = {
        "claim of 2^63": message(b"", claim=2**63 - 1),
        "claim of 2^62": message(b"", claim=2**62),
        "not masked": b"\x82\x05hello",
        "reserved bits": b"\xf2\x80\0\0\0\0",
        "reserved code": message(b"x", 3),
        "continued nothing": message(b"x", 0),
        "long ping": message(b"x" * 200, 9),
        "fragmented ping": message(b"x", 9, end=False),
        "bad close": message(b"\0\1", 8),
        "close without reason": message(b"\3", 8),
        "text": message(b"hello", 1),
        "bad text": message(b"\xff\xfe", 1),
        "deep text": message(b"[" * 100_000, 1),
        "empty": message(b"") * 100,
        "10000 pings": message(b"x", 9) * 10_000,
        "10000 frames": message(b"not a frame") * 10_000,
        "bomb": message(bombs.png(60000, 30000, bits=8, data=b"")),
        "pickle": message(bombs.npy("(1,)", "|O", b"cos\nsystem\n(S'x'\ntR.")),
        "10000 fragments": message(b"x", 2, end=False) + message(b"x", 0, end=False) * 10_000,
        "after close": message(b"", 8) + message(b"x") * 100,
    }
    for name, data in frames.items():
        yield attack(name, once(open_one + data))
    endless_fragments = endless(
        open_one + message(b"x", 2, end=False), message(bytes(60_000), 0, end=False)
    )
    yield attack("endless fragments", endless_fragments, let_go=True)
    packed = _handshake(Sec_WebSocket_Extensions="permessage-deflate")
    yield attack("inflating", once(packed + b"\xc2" + message(bombs.flat(1000))[1:]))
    for number in range(3):
        yield attack(f"half a handshake {number}", dripping(open_one[:60], 0), let_go=True)
