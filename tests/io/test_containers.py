from __future__ import annotations

from pathlib import Path

import pytest

from pinglow.io.containers import is_container, lacks_bytes

EBML = b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67"


@pytest.mark.parametrize(
    ("content", "video", "lacking"),
    [
        (b"\0\0\0\x10ftypisom\0\0\0\0", True, False),
        (b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x20mdat", True, True),
        (b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\1mdat\xff" + b"\xff" * 7, True, True),
        (b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\0mdat1234", True, False),  # up to the end
        (b"\0\0\0\x10ftypheic\0\0\0\0", False, False),
        (EBML + b"\x84abcd", True, False),
        (EBML + b"\x84abc", True, True),
        (EBML + b"\x01" + b"\xff" * 7, True, False),  # of unknown length
        (EBML + b"\x01" + b"\xff" * 7 + b"\xec\x84abc", True, True),
        (b"RIFF\x08\0\0\0AVI 1234", True, False),
        (b"RIFF\x09\0\0\0AVI 1234", True, True),
        (b"RIFF\0\0\0\0AVI 1234", True, False),
        (b"RIFF\x08\0\0\0WAVE1234", False, False),
        ((b"G" + bytes(187)) * 3, True, False),
        ((b"G" + bytes(187)) * 3 + b"G", True, True),
        ((b"1234G" + bytes(187)) * 3, True, False),
        (b"\0\0\1\xba\x44" + bytes(9) + b"\0\0\1\xe0\0\4abcd", True, False),
        (b"\0\0\1\xba\x44" + bytes(9) + b"\0\0\1\xe0\0\4abc", True, True),
        (b"", False, False),
        (b"GIF89a", False, False),
        (bytes(4000), False, False),
    ],
)
def test_by_the_first_bytes(tmp_path: Path, content: bytes, video: bool, lacking: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert is_container(path) == video
    assert lacks_bytes(path) == lacking


@pytest.mark.parametrize("start", [EBML + b"\x01" + b"\xff" * 7, b"\x30\x26\xb2\x75", b"RIFF"])
def test_garbage_ends(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "file"
    for filling in (b"\0", b"\xff", b"\x81\x80", b"\x01\x7f"):
        path.write_bytes(start + filling * 20_000)
        lacks_bytes(path)


def test_a_length_beyond_what_files_can_have_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(EBML[:4] + b"\x01\x7f" + b"\xff" * 6 + EBML[5:])
    assert not lacks_bytes(path)
