from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pinglow.data.video import is_video, probe_video, read_video
from pinglow.errors import FrameError, MissingExtraError


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
def test_other_formats_become_grey(tmp_path: Path, form: str) -> None:
    grey = noise(3, 200, "uint8")
    frames = [np.repeat(frame[..., None], 3, axis=2) for frame in grey]
    path = write_video(tmp_path / "clip.mkv", frames, "ffv1", form)
    for frame, expected in zip(read_video(path), grey, strict=True):
        assert frame.counts.shape == expected.shape
        assert np.corrcoef(frame.counts.ravel(), expected.ravel())[0, 1] > 0.999
        if form == "bgr0":
            np.testing.assert_array_equal(frame.counts, expected)
        else:
            assert frame.counts.dtype == np.uint16


def test_header(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", noise(15, 256, "uint8"), rate=5)
    info = probe_video(path)
    assert (info.rate, info.frames) == (5, 15)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
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
    codec = ("libx264", "yuv420p") if suffix == ".mp4" else ("ffv1", "gray")
    path = write_video(tmp_path / f"clip{suffix}", frames, *codec, g="12")
    whole = {frame.index: frame for frame in read_video(path)}
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
        with pytest.raises(FrameError, match=r"clip.mp4 is damaged or cut short"):
            list(read_video(path))


def test_a_video_cut_short_gives_what_it_has(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", noise(20, 256, "uint8"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read = 0
    with contextlib.suppress(FrameError):
        for _ in read_video(path):
            read += 1
    assert 5 < read < 20


def test_too_large_a_video_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", noise(2, 256, "uint8"))
    with pytest.raises(FrameError, match="claims 70 x 48 pixels, more than the limit of 3000"):
        list(read_video(path, max_pixels=3000))


def test_without_pyav_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pinglow\[video\]'"):
        probe_video(tmp_path / "clip.mp4")


def test_a_video_is_known_by_its_suffix() -> None:
    assert is_video(Path("a/B.MP4"))
    assert not is_video(Path("a/mp4.png"))


def test_real_clips(shared_data: Path) -> None:
    path = sorted((shared_data / "ir-drone").glob("*.mp4"))[0]
    info = probe_video(path)
    frames = list(read_video(path, every=30))
    assert info.frames is not None
    assert len(frames) == -(-info.frames // 30)
    assert {frame.counts.shape for frame in frames} == {(256, 320)}
