"""Streams of servers on this machine: UDP, HTTP, RTSP; and what names a live source."""

from __future__ import annotations

import io
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pinglow.errors import FrameError, OptionError
from pinglow.io.live import LiveSource
from pinglow.io.raw import RawFormat
from pinglow.io.source import Source
from pinglow.io.streams import hide_login, kind_of, open_stream

FRAMES = np.random.default_rng(0).integers(0, 2**16, (12, 64, 96)).astype(np.uint16)
STEPS = np.stack([np.full((64, 96), 40 + 15 * number, np.uint8) for number in range(12)])


def encode(frames: Any, container: str, codec: str, pixels: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt, stream.gop_size = pixels, 1
        for frame in frames:
            kind = "gray16le" if frame.dtype == np.uint16 else "gray"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=kind)))
        file.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def transport() -> bytes:
    """Twelve frames, each brighter than the one before, as an MPEG transport stream."""
    return encode(STEPS, "mpegts", "mpeg2video", "yuv420p")


def brightness(source: Source, count: int) -> list[float]:
    """Of the first frames of a source, which is closed then."""
    found = []
    for frame in source.select():
        assert not isinstance(frame.counts, FrameError), frame.counts
        found.append(float(frame.counts.mean()))
        if len(found) == count:
            break
    source.close()
    return found


@contextmanager
def http_server(answer: Any) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_recording_at_an_address_comes_whole() -> None:
    content = encode(FRAMES, "matroska", "ffv1", "gray16le")

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    with http_server(answer) as address:
        source = open_stream(f"{address}/night/clip.mkv")
        found = [each.counts for each in source.select()]
    assert source.stem.endswith("_night_clip.mkv")
    np.testing.assert_array_equal(np.stack(found), FRAMES)
    assert isinstance(source, LiveSource)
    assert source.state.dropped == 0


def test_a_stream_that_breaks_off_is_opened_again(
    transport: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        request.send_response(200 if len(asked) < 3 else 404)
        request.end_headers()  # without a length: nobody knows where it ends
        if len(asked) < 3:
            request.wfile.write(transport)

    with http_server(answer) as address:
        opened = open_stream(f"{address}/live?token=abc")
        assert isinstance(opened, LiveSource)
        waited: list[float] = []
        source = LiveSource(
            opened.name, opened._open_feed, opened.stem, waits=(1, 2), wait=waited.append
        )
        *frames, last = source.select()
    assert (source.state.reconnects, len(asked), waited) == (1, 4, [1, 1, 2])
    assert frames[-1].index >= 12
    assert isinstance(last.counts, FrameError)
    assert "went away after" in str(last.counts)
    assert "404" in str(last.counts)
    assert "abc" not in str(last.counts) + caplog.text


def test_packets_of_udp(transport: bytes) -> None:
    done = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not done.is_set():
                for start in range(0, len(transport), 1316):
                    sender.sendto(transport[start : start + 1316], ("127.0.0.1", port))
                    done.wait(0.001)

    threading.Thread(target=send, daemon=True).start()
    try:
        found = brightness(open_stream(f"udp://127.0.0.1:{port}"), 3)
    finally:
        done.set()
    assert all(min(abs(STEPS.mean((1, 2)) * 219 / 255 + 16 - each)) < 3 for each in found)


def test_rtsp_with_a_login(transport: bytes) -> None:
    seen: list[str] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            while True:
                request = b"".join(iter(lines.readline, b"\r\n")).decode()
                if not request:
                    return
                method = request.split()[0]
                seen.append(method)
                number = request.lower().split("cseq:")[1].split()[0]
                head = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1\r\n"
                body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n"
                if method == "DESCRIBE":
                    head += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                if method == "SETUP":
                    head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                connection.sendall(
                    (head + "\r\n" + (body if method == "DESCRIBE" else "")).encode()
                )
                if method == "PLAY":
                    break
            for number, start in enumerate(range(0, len(transport), 1316)):
                part = transport[start : start + 1316]
                packet = struct.pack(">BBHII", 0x80, 33, number, 90 * number, 1) + part
                connection.sendall(struct.pack(">BBH", 0x24, 0, len(packet)) + packet)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        source = open_stream(f"rtsp://me:secret@127.0.0.1:{listener.getsockname()[1]}/ir")
        found = brightness(source, 2)
    assert len(found) == 2
    assert {"DESCRIBE", "SETUP", "PLAY"} <= set(seen)
    assert "secret" not in source.name + source.stem


def test_what_does_not_open_is_one_sentence() -> None:
    source = open_stream("tcp://me:secret@127.0.0.1:1")
    with pytest.raises(
        FrameError, match=r"^tcp://\*\*\*@127.0.0.1:1 cannot be opened \("
    ) as caught:
        list(source.select())
    assert "secret" not in str(caught.value)
    with pytest.raises(FrameError, match="camera 97 cannot be opened"):
        list(open_stream("97").select())


def test_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").mkdir()
    (tmp_path / "a.raw").touch()
    kinds = {"0": "camera", "7": None, "a.raw": None, "*.png": None, "gone.png": None}
    kinds |= {"rtsp://cam/ir": "address", "UDP://:5000": "address", "c:/x": None, "²": None}
    assert {word: kind_of(word) for word in kinds} == kinds
    assert kind_of("a.raw", raw=True) == "raw"
    assert open_stream("12").stem == "camera12"
    assert open_stream("rtsp://u:p@cam.local:554/ir/1?x=2").stem == "cam.local_554_ir_1"
    assert hide_login("rtsp://u:p@cam/ir?user=a&Password=b&t=1") == (
        "rtsp://***@cam/ir?user=a&Password=***&t=1"
    )
    assert hide_login("rtsp://u:p@ss:w@cam/ir") == "rtsp://***@cam/ir"
    assert hide_login("http://cam/ir?mail=a@b") == "http://cam/ir?mail=a@b"
    with pytest.raises(OptionError, match="--raw is for pipes"):
        open_stream("rtsp://cam", RawFormat.parse("4x4:gray8"))
