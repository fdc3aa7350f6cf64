"""Raw frames of a file or a pipe are what was written, and a torn one is said."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from pinglow.errors import FrameError, OptionError
from pinglow.io.live import LiveSource
from pinglow.io.raw import RawFormat, RawSource
from pinglow.io.source import Selection
from pinglow.io.streams import open_stream

FRAMES = np.random.default_rng(0).integers(0, 2**16, (5, 6, 4)).astype(np.uint16)


@pytest.mark.parametrize("text", ["4x6", "4x6:gray12", "4,6:gray8", "0x6:gray8", "4x6:gray8@0"])
def test_what_it_does_not_say(text: str) -> None:
    with pytest.raises(OptionError, match=f"--raw '{text}'"):
        RawFormat.parse(text)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("gray16le", "<u2"), ("gray16be", ">u2"), ("gray8", "u1")]
)
def test_a_file_holds_frame_after_frame(tmp_path: Path, kind: str, dtype: str) -> None:
    frames = FRAMES.astype(dtype)
    path = tmp_path / "clip.raw"
    path.write_bytes(frames.tobytes())
    source = open_stream(str(path), RawFormat.parse(f"4x6:{kind}@10"))
    assert isinstance(source, RawSource)
    assert (source.frames, source.rate, source.stem) == (5, 10.0, "clip")
    for found, expected in zip(source.select(), frames, strict=True):
        np.testing.assert_array_equal(found.counts, expected)
        assert isinstance(found.counts, np.ndarray)
        assert found.counts.dtype.isnative
    np.testing.assert_array_equal(source.read(4), frames[4])
    some = list(source.select(Selection(every=2, start=0.15, end=0.4)))
    assert [(each.index, each.time) for each in some] == [(2, 0.2)]
    with pytest.raises(FrameError, match="has no frame 5"):
        source.read(5)


def test_a_file_that_is_cut_short_says_so(tmp_path: Path) -> None:
    path = tmp_path / "clip.raw"
    path.write_bytes(FRAMES.tobytes()[:-7])
    *frames, last = RawSource(path, RawFormat.parse("4x6:gray16le")).select()
    assert len(frames) == 4
    assert isinstance(last.counts, FrameError)
    assert "ends in the middle of frame 4, after 41 of 48 bytes" in str(last.counts)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("lost", [0, 7])
def test_a_named_pipe(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "camera.fifo"
    os.mkfifo(path)
    content = FRAMES[:4].tobytes()  # as many as may wait: none is dropped

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for start in range(0, len(content) - lost, 13):  # not at the edges of frames
                pipe.write(content[start : min(start + 13, len(content) - lost)])

    threading.Thread(target=write, daemon=True).start()
    source = open_stream(str(path), RawFormat.parse("4x6:gray16le"))
    assert isinstance(source, LiveSource)
    found = [each.counts for each in source.select()]
    if lost:
        error = found.pop()
        assert isinstance(error, FrameError)
        assert "ends in the middle of frame 3, after 41 of 48 bytes" in str(error)
    np.testing.assert_array_equal(np.stack(found), FRAMES[: 3 if lost else 4])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_needs_its_format(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(OptionError, match="--raw 640x512:gray16le"):
        open_stream(str(tmp_path / "p"))
