"""Whole videos of many kinds are whole; of those that are cut it is said how much is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pinglow.errors import FrameError
from pinglow.io.video import read_video

COUNT = 40
NTSC = Fraction(30000, 1001)
KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": {"movflags": "faststart"}},
    "fragments.mp4": {"options": {"movflags": "frag_keyframe"}},
    "late.mp4": {"times": range(50, 50 + COUNT), "options": {"movflags": "faststart"}},
    "uneven.mp4": {"times": [i * i for i in range(COUNT)], "options": {"movflags": "faststart"}},
    "ffv1.mkv": {"codec": "ffv1", "form": "gray16le"},
    "ntsc.mkv": {"rate": NTSC},
    "late.mkv": {"times": range(50, 50 + COUNT)},
    "sound.mkv": {"sound": "aac"},
    "sound.mp4": {"sound": "aac", "options": {"movflags": "faststart"}},
    "vp8.webm": {"codec": "libvpx"},
    "mpeg4.avi": {"codec": "mpeg4", "rate": NTSC},
    "h264.avi": {},
    "sound.avi": {"codec": "mpeg4", "sound": "mp2"},
    "wmv2.wmv": {"codec": "wmv2"},
    "late.wmv": {"codec": "wmv2", "times": range(50, 50 + COUNT)},
    "mpeg2.mxf": {"codec": "mpeg2video"},
    "flv1.flv": {"codec": "flv"},
}
UNCOUNTED: dict[str, dict[str, Any]] = {
    "h264.ts": {},
    "h264.m2ts": {},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mpeg1.mpeg": {"codec": "mpeg1video"},
    "raw.y4m": {"codec": "wrapped_avframe"},
    "live.mkv": {"options": {"live": "1"}},
}
SPACED: dict[str, dict[str, Any]] = {
    "gaps.avi": {"codec": "mpeg4", "times": range(0, 2 * COUNT, 2)},
    "uneven.mkv": {"times": [i * i for i in range(COUNT)]},
}


def save(
    path: Path,
    codec: str = "libx264",
    form: str = "yuv420p",
    rate: Fraction | int = 25,
    times: Sequence[int] = range(COUNT),
    sound: str = "",
    options: dict[str, str] | None = None,
) -> Path:
    """Encode noise of 48 x 32; sound lasts twice as long."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 48, 32, form
        other = container.add_stream(sound, rate=48000) if sound else None
        for time in times:
            values = rng.integers(0, 256, (32, 48)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(values, format="gray").reformat(format=form)
            frame.pts, frame.time_base = time, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if other is not None:
            size = other.codec_context.frame_size
            for start in range(0, 48000 * 2 * COUNT // 25, size):
                kind = other.codec_context.format.name
                silence = np.zeros((2, size), "f4" if kind == "fltp" else "i2")
                if not kind.endswith("p"):
                    silence = silence.reshape(1, -1)
                clip = av.AudioFrame.from_ndarray(silence, format=kind, layout="stereo")
                clip.sample_rate, clip.pts, clip.time_base = 48000, start, Fraction(1, 48000)
                container.mux(other.encode(clip))
            container.mux(other.encode())
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("whole")

    def make(name: str) -> Path:
        path = folder / name
        kinds = KINDS | UNCOUNTED | SPACED
        return path if path.exists() else save(path, **kinds[name])

    return make


def read(path: Path, **options: Any) -> tuple[int, str]:
    """How many frames come, and what is said after them."""
    count = 0
    try:
        for _ in read_video(path, **options):
            count += 1
    except FrameError as error:
        return count, str(error).removeprefix(str(path))
    return count, ""


def cut(path: Path, share: float, folder: Path) -> Path:
    content = path.read_bytes()
    short = folder / f"short-{path.name}"
    short.write_bytes(content[: int(len(content) * share)])
    return short


@pytest.mark.parametrize("name", KINDS | UNCOUNTED | SPACED)
def test_a_whole_video_is_whole(whole: Callable[[str], Path], name: str) -> None:
    assert read(whole(name)) == (COUNT, "")
    assert read(whole(name), start=0.6)[1] == ""


def test_short_and_slow_videos_are_whole(tmp_path: Path) -> None:
    for count in (1, 2):
        short = save(tmp_path / f"{count}.wmv", codec="wmv2", times=range(count))
        assert read(short) == (count, "")
        assert read(save(tmp_path / f"{count}.ts", times=range(count))) == (count, "")
    assert read(save(tmp_path / "slow.flv", times=range(0, 6 * 75, 75))) == (6, "")


@pytest.mark.parametrize("share", [0.6, 0.93, 0.975])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_missing_is_counted(
    whole: Callable[[str], Path], tmp_path: Path, name: str, share: float
) -> None:
    count, said = read(cut(whole(name), share, tmp_path))
    if name.endswith(".mxf") and not count:
        assert said.startswith(" is cut short, and what is missing is needed to read the rest")
        return
    missing = COUNT - count
    are = "is" if missing == 1 else "are"
    expected = f" is cut short: {missing} of {COUNT} frames {are} missing at its end; copy it again"
    assert said == (expected if missing else "")
    assert missing or share > 0.9 or "sound" in name  # which is stored last


def test_ticks_of_a_file_with_hardly_any_frames_are_no_frames(
    whole: Callable[[str], Path], tmp_path: Path
) -> None:
    count, said = read(cut(whole("wmv2.wmv"), 0.1, tmp_path))
    assert (count, said) == (1, " is cut short: about 1.6 s are missing at its end; copy it again")


@pytest.mark.parametrize("share", [0.6, 0.97])
@pytest.mark.parametrize("name", UNCOUNTED)
def test_a_torn_last_frame_is_left_out_and_said(
    whole: Callable[[str], Path], tmp_path: Path, name: str, share: float
) -> None:
    count, said = read(cut(whole(name), share, tmp_path))
    assert count < COUNT
    assert said in (
        " is cut short: its last frame is not whole, and how many follow it does not say; "
        "copy it again",
        " is damaged: 1 of its packets could not be decoded (Invalid data found when processing "
        "input); the others were read",  # cut where a packet of the container ends
    )


@pytest.mark.parametrize("name", SPACED)
def test_where_frames_are_not_even_the_number_is_a_guess(
    whole: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    count, said = read(cut(whole(name), 0.8, tmp_path))
    assert count < COUNT
    assert re.search(r"is cut short: about \d+ frames \(\d+\.\d s\) are missing", said)


@pytest.mark.parametrize("name", ["ffv1.mkv", "h264.mp4"])
def test_a_download_that_was_never_filled_is_not_whole(
    whole: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    content = whole(name).read_bytes()
    end = int(len(content) * 0.8)
    path = tmp_path / name
    path.write_bytes(content[:end] + bytes(len(content) - end))
    count, said = read(path)
    assert count < COUNT
    assert f" {COUNT - count} of " in said


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_edit_lists_and_held_last_frames_are_no_loss(
    whole: Callable[[str], Path], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"clip{suffix}"
    with av.open(str(whole("h264.mp4"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        second = round(1 / packets[0].time_base)
        for packet in packets:
            packet.stream = stream
            packet.pts -= 10 * second // 25  # before 0: left out by an edit list
            packet.dts -= 10 * second // 25
            if packet is packets[-1]:
                packet.duration = 5 * second
            target.mux(packet)
    assert read(path) == (COUNT - 10 * (suffix == ".mp4"), "")


def test_a_longer_sound_is_no_loss_where_no_stream_has_a_length(
    whole: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(whole("sound.mkv").read_bytes().replace(b"DURATION", b"LASTED_S"))
    assert read(path) == (COUNT, "")


def test_without_a_frame_or_an_index_nothing_is_read(
    whole: Callable[[str], Path], tmp_path: Path
) -> None:
    for name, share in (("h264.mp4", 0.05), ("mpeg4.avi", 0.1), ("end.mp4", 0.9)):
        path = whole(name) if name in KINDS else save(tmp_path / "end.mp4")
        count, said = read(cut(path, share, tmp_path))
        assert count < 3
        assert said.startswith(" is cut short")
