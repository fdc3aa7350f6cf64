from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import FrameError, MissingExtraError
from pinglow.io.video import is_video, probe_video, read_video


def write_video(
    path: Path,
    frames: Sequence[NDArray[Any]],
    codec: str = "ffv1",
    form: str = "gray",
    rate: int = 10,
    **options: str,
) -> Path:
    """Encode (H, W) or (H, W, 3) arrays."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = form
        stream.options = options
        for number, values in enumerate(frames):
            source = form if form.startswith("gray") else "rgb24" if values.ndim == 3 else "gray"
            frame = av.VideoFrame.from_ndarray(values, format=source)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noise(count: int, top: int, dtype: str, shape: tuple[int, int] = (48, 70)) -> Any:
    return list(np.random.default_rng(0).integers(0, top, (count, *shape)).astype(dtype))


@pytest.mark.parametrize(
    ("form", "top", "dtype"), [("gray", 256, "uint8"), ("gray16le", 2**14, "uint16")]
)
@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_counts_of_lossless_videos_are_intact(
    tmp_path: Path, form: str, top: int, dtype: str, suffix: str
) -> None:
    frames = noise(12, top, dtype)
    path = write_video(tmp_path / f"clip{suffix}", frames, form=form)
    read = list(read_video(path))
    assert [frame.index for frame in read] == list(range(12))
    assert [frame.time for frame in read] == pytest.approx(np.arange(12) / 10)
    for frame, expected in zip(read, frames, strict=True):
        assert frame.counts.dtype == expected.dtype
        np.testing.assert_array_equal(frame.counts, expected)


def test_luma_is_read_as_it_is_stored(tmp_path: Path) -> None:
    # Lossless H.264; 46 of 48 bytes a row are pixels.
    frames = [np.full((32, 46), level, dtype=np.uint8) for level in (16, 60, 235)]
    path = write_video(tmp_path / "clip.mp4", frames, "libx264", "yuv420p", qp="0")
    levels = [np.unique(frame.counts) for frame in read_video(path)]
    with av.open(str(path)) as container:
        planes = [
            np.unique(np.frombuffer(frame.planes[0], np.uint8).reshape(32, -1)[:, :46])
            for frame in container.decode(video=0)
        ]
    for level, plane in zip(levels, planes, strict=True):
        np.testing.assert_array_equal(level, plane)
    assert levels[0] < levels[1] < levels[2]


@pytest.mark.parametrize("form", ["bgr0", "yuv444p10le"])
def test_other_formats_become_gray(tmp_path: Path, form: str) -> None:
    gray = noise(3, 200, "uint8")
    frames = [np.repeat(frame[..., None], 3, axis=2) for frame in gray]
    path = write_video(tmp_path / "clip.mkv", frames, "ffv1", form)
    for frame, expected in zip(read_video(path), gray, strict=True):
        assert frame.counts.shape == expected.shape
        assert np.corrcoef(frame.counts.ravel(), expected.ravel())[0, 1] > 0.99  # swscale dithers
        if form == "bgr0":
            np.testing.assert_array_equal(frame.counts, expected)
        else:
            assert frame.counts.dtype == np.uint16


def test_header(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", noise(15, 256, "uint8"), rate=5)
    info = probe_video(path)
    assert (info.rate, info.frames) == (5, 15)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
@pytest.mark.parametrize(
    ("every", "start", "end", "expected"),
    [
        (1, 0, None, range(60)),
        (7, 0, None, range(0, 60, 7)),
        (1, 2.5, 3, range(25, 30)),
        (4, 1.1, 3.3, [12, 16, 20, 24, 28, 32]),
        (1, 5.85, None, [59]),
        (1, 100, None, []),
    ],
)
def test_a_part_is_what_it_is_in_the_whole(
    tmp_path: Path, suffix: str, every: int, start: float, end: float | None, expected: Any
) -> None:
    frames = [np.full((32, 32), 4 * number, dtype=np.uint8) for number in range(60)]
    # H.264 stores frames out of order, for which AVI has no times.
    codec = ("ffv1", "gray") if suffix == ".mkv" else ("libx264", "yuv420p")
    path = write_video(tmp_path / f"clip{suffix}", frames, *codec, g="12", bf="2")
    whole = {frame.index: frame for frame in read_video(path)}
    assert list(whole) == list(range(60))
    levels = [frame.counts.mean() for frame in whole.values()]
    assert levels == sorted(levels)
    part = list(read_video(path, every, start, end))
    assert [frame.index for frame in part] == list(expected)
    for frame in part:
        np.testing.assert_array_equal(frame.counts, whole[frame.index].counts)
        assert frame.time == pytest.approx(whole[frame.index].time)


def test_what_is_no_video_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with pytest.raises(FrameError, match=r"clip.mp4 does not exist"):
        probe_video(path)
    for content in (b"", b"garbage" * 100):
        path.write_bytes(content)
        with pytest.raises(FrameError, match=r"clip.mp4 cannot be decoded"):
            list(read_video(path))


def read_until_error(path: Path, said: str) -> list[int]:
    """Indices of what can be read, and see what is said of the rest."""
    indices: list[int] = []
    frames = read_video(path)
    try:
        while True:
            indices.append(next(frames).index)
    except FrameError as error:
        assert f"clip.mkv {said}" in str(error)  # noqa: PT017
        return indices
    except StopIteration:
        pytest.fail("nothing was said")


def test_a_video_cut_short_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", noise(20, 256, "uint8"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(read_until_error(path, "is cut short: 11 of 20 frames are missing")) == 9


def test_a_damaged_part_does_not_end_a_video(tmp_path: Path) -> None:
    frames = noise(40, 256, "uint8")
    path = write_video(tmp_path / "clip.mkv", frames, "libx264", "yuv420p", g="5", bf="0")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    start, size = packets[20]
    content = bytearray(path.read_bytes())
    assert size > 100
    content[start + 20 : start + size] = bytes(size - 20)
    path.write_bytes(content)
    assert len(read_until_error(path, "is damaged: 1 of its packets could not be")) == 39


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_video_whose_times_do_not_start_at_0_is_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"late{suffix}"
    codec = "ffv1" if suffix == ".mkv" else "libx264"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 70, 48, "gray"
        for number, values in enumerate(noise(20, 256, "uint8")):
            frame = av.VideoFrame.from_ndarray(values, format="gray")
            frame.pts, frame.time_base = 50 + number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    read = list(read_video(path))
    assert [frame.time for frame in read] == pytest.approx(np.arange(20) / 10)
    assert probe_video(path).frames == 20


@pytest.mark.parametrize("suffix", [".avi", ".mov"])
def test_raw_video_of_16_bits_is_not_taken_for_colors(tmp_path: Path, suffix: str) -> None:
    frames = noise(3, 2**14, "uint16")
    path = write_video(tmp_path / f"raw{suffix}", frames, codec="rawvideo", form="gray16le")
    with pytest.raises(FrameError, match=r"raw\..* holds raw video of 16 bits a pixel"):
        list(read_video(path))


def test_raw_video_of_an_unknown_format_is_one_sentence(tmp_path: Path) -> None:
    frames = noise(3, 256, "uint8")
    path = write_video(tmp_path / "raw.avi", frames, codec="rawvideo", form="gray")
    content = bytearray(path.read_bytes())
    header = content.index(b"strf") + 8  # a BITMAPINFOHEADER
    content[header + 14 : header + 20] = (10).to_bytes(2, "little") + bytes(4)  # bits, no code
    path.write_bytes(bytes(content))
    with pytest.raises(FrameError, match=r"raw\.avi"):
        list(read_video(path))
    with pytest.raises(FrameError, match=r"raw\.avi"):
        probe_video(path)


def test_an_unknown_codec_is_one_sentence(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", noise(3, 256, "uint8"))
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_XXX1"))
    with pytest.raises(FrameError, match=r"clip.mkv is of a codec that is not known here"):
        list(read_video(path))


@pytest.mark.parametrize(("form", "offset"), [("yuyv422", 0), ("uyvy422", 1)])
def test_luma_of_packed_videos_is_as_stored(tmp_path: Path, form: str, offset: int) -> None:
    path = tmp_path / "clip.avi"
    packed = np.full((32, 92), 128, dtype=np.uint8)
    luma = np.random.default_rng(0).integers(0, 256, (32, 46)).astype(np.uint8)
    packed[:, offset::2] = luma
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = 46, 32, form
        frame = av.VideoFrame(46, 32, form)
        plane = np.zeros((32, frame.planes[0].line_size), dtype=np.uint8)
        plane[:, :92] = packed
        frame.planes[0].update(plane.tobytes())
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (read,) = read_video(path)
    np.testing.assert_array_equal(read.counts, luma)


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "T12:30.mkv", noise(3, 256, "uint8"))
    assert len(list(read_video(Path("T12:30.mkv")))) == 3


def test_too_large_a_video_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", noise(2, 256, "uint8"))
    with pytest.raises(FrameError, match="claims 70 x 48 pixels, more than the limit of 3000"):
        list(read_video(path, max_pixels=3000))


def test_without_pyav_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[video\]'"):
        probe_video(tmp_path / "clip.mp4")


def test_a_video_is_known_by_its_suffix_or_its_first_bytes(tmp_path: Path) -> None:
    assert is_video(Path("a/B.MP4"))
    assert is_video(Path("a/b.M2TS"))
    assert not is_video(Path("a/mp4.png"))
    path = write_video(tmp_path / "clip.mkv", noise(3, 256, "uint8"))
    assert is_video(path.rename(tmp_path / "clip.dat"))
    assert len(list(read_video(tmp_path / "clip.dat"))) == 3
    (tmp_path / "text.dat").write_text("no video")
    assert not is_video(tmp_path / "text.dat")


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    with pytest.raises(FrameError, match=r"clip.mp4 is a folder, a pipe or a device"):
        list(read_video(tmp_path / "clip.mp4"))
    assert not is_video(Path("/dev/zero"))


@pytest.fixture
def two_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of two video streams, 32 x 24 and 64 x 48; the second of them has more frames."""
    monkeypatch.setattr("pinglow.terminal._said", set())
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=10) for _ in range(2)]
        for stream, width in zip(streams, (32, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, width * 3 // 4, "gray"
        for number in range(5):
            for stream in streams[number > 2 :]:
                values = np.full((stream.height, stream.width), number, np.uint8)
                frame = av.VideoFrame.from_ndarray(values, format="gray")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


def test_of_several_streams_one_is_chosen(
    two_streams: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for stream, shape, count in ((None, (24, 32), 3), (0, (24, 32), 3), (1, (48, 64), 5)):
        frames = list(read_video(two_streams, stream=stream))
        assert [frame.counts.shape for frame in frames] == [shape] * count
    for number in (2, -1):
        with pytest.raises(FrameError, match=rf"has no video stream {number}: choose from 0: ffv1"):
            probe_video(two_streams, number)
    probe_video(two_streams)
    assert caplog.messages == [
        f"{two_streams} has 2 video streams (0: ffv1 32 x 24, 1: ffv1 64 x 48): reading 0, "
        "--video-stream chooses (said once)"
    ]


def test_cover_art_is_no_video(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cover = io.BytesIO()
    Image.new("RGB", (200, 100)).save(cover, "JPEG")
    path, clip = tmp_path / "clip.mkv", noise(3, 256, "uint8")[0]
    with av.open(str(path), "w") as container:
        container.add_attachment("cover.jpg", "image/jpeg", cover.getvalue())
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 70, 48, "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(clip, format="gray")))
        container.mux(stream.encode())
    assert [frame.counts.shape for frame in read_video(path)] == [(48, 70)]
    assert caplog.messages == []
    with pytest.raises(FrameError, match="has no video stream 1"):
        probe_video(path, 1)


def test_real_clips(shared_data: Path) -> None:
    path = sorted((shared_data / "ir-drone").glob("*.mp4"))[0]
    info = probe_video(path)
    frames = list(read_video(path, every=30))
    assert info.frames is not None
    assert len(frames) == -(-info.frames // 30)
    assert {frame.counts.shape for frame in frames} == {(256, 320)}
