"""Windows of larger pictures are found, and no group of alike frames is in two lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pinglow.data.folder import read_split
from pinglow.data.split import split_folder
from pinglow.data.windows import find_overlaps
from pinglow.errors import DataError, OptionError

SIDE = 128


def picture(seed: int, side: int = 300) -> NDArray[np.float64]:
    """A sky of 1/f noise with a little of the sensor's own."""
    rng = np.random.default_rng(seed)
    noise = np.fft.rfft2(rng.standard_normal((side, side)))
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    field = np.fft.irfft2(noise / np.maximum(np.hypot(fy, fx), 1 / side) ** 1.3, s=(side, side))
    return np.asarray(field / field.std() * 400 + rng.normal(0, 20, field.shape) + 8000)


def window(frame: NDArray[np.float64], y: int, x: int, gain: float = 1) -> NDArray[np.float64]:
    return frame[y : y + SIDE, x : x + SIDE] * gain + 300 * (gain - 1)


def overlaps(*frames: NDArray[np.float64]) -> list[tuple[int, int]]:
    return list(find_overlaps(frames, SIDE))


@pytest.mark.parametrize("gain", [1.0, 0.2, 5.0])
@pytest.mark.parametrize(("dy", "dx"), [(0, 45), (-37, 38), (64, 0), (5, 83), (70, -30)])
def test_windows_that_share_a_third_are_found_at_any_gain(dy: int, dx: int, gain: float) -> None:
    whole = picture(1)
    first = window(whole, 80, 80)
    assert overlaps(first, window(whole, 80 + dy, 80 + dx, gain)) == [(0, 1)]


def test_windows_that_share_nothing_and_other_pictures_are_apart() -> None:
    whole = picture(2)
    frames = [window(whole, y, x) for y in (0, 150) for x in (0, 150)]
    assert overlaps(*frames, *(window(picture(seed), 0, 0) for seed in range(3, 15))) == []


def test_horizons_and_smooth_skies_are_not_alike_for_their_edges() -> None:
    rng = np.random.default_rng(1)
    ys, xs = np.mgrid[:SIDE, :SIDE]
    frames = [
        np.where(ys > 50 + a * xs / 9 + 10 * b, 900.0, 100.0) + rng.normal(0, 9, ys.shape)
        for a, b in rng.uniform(-1, 1, (6, 2))
    ]
    assert overlaps(*frames) == []
    assert overlaps(np.full((9, 9), 3.0), np.full((9, 9), 3.0), np.zeros((1, 1))) == []
    assert overlaps() == []


def test_windows_of_several_sizes_are_found() -> None:
    whole = picture(3)
    assert overlaps(window(whole, 0, 0), whole[20:120, 10:180]) == [(0, 1)]


def test_real_frames_are_apart_and_their_windows_are_found(shared_data: Path) -> None:
    paths = sorted((shared_data / "irstd-1k" / "images").iterdir())[3:800:80]
    frames = [np.asarray(Image.open(path)).astype(float) for path in paths]
    assert list(find_overlaps(frames, 512)) == []
    pairs = [part for frame in frames for part in (frame[:320, :320], 3 * frame[100:420, 60:380])]
    found = list(find_overlaps(pairs, 320))
    assert set(found) <= {(place, place + 1) for place in range(0, 20, 2)}
    assert len(found) >= 9


def write(folder: Path, frames: dict[str, NDArray[np.float64]]) -> Path:
    for name, frame in frames.items():
        for part, values in (("images", frame.astype(np.uint16)), ("masks", frame < 0)):
            path = folder / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, of four a second window, of two a near-duplicate."""
    frames = {}
    for seed in range(12):
        whole = picture(seed + 20)
        frames[f"p{'abcdefghijkl'[seed]}"] = window(whole, 80, 80)
        if seed < 4:
            frames[f"w{seed}"] = window(whole, 120, 130, 2.5)
        elif seed < 6:
            frames[f"n{seed}"] = window(whole, 80, 80, 0.5)
    return write(tmp_path / "in", frames)


def test_no_group_is_in_two_lists(folder: Path) -> None:
    done = split_folder(folder, val=0.25, test=0.25, seed=3)
    lists = {title: read_split(folder, title) for title in ("train", "val", "test")}
    assert lists == done.lists
    names = [name for names in lists.values() for name in names]
    assert len(names) == len(set(names)) == 18
    assert [len(lists[title]) for title in ("val", "test")] in ([4, 4], [4, 5], [5, 4])
    where = {name: title for title, listed in lists.items() for name in listed}
    for seed, letter in enumerate("abcdef"):
        assert where[f"p{letter}"] == where[f"{'w' if seed < 4 else 'n'}{seed}"]
    assert done.found == {"near-duplicates": 2, "windows": 6}
    assert sum(done.groups.values()) == 12
    assert done.largest == 2
    with pytest.raises(DataError, match=r"train\.txt is there already: use --overwrite"):
        split_folder(folder)
    again = split_folder(folder, val=0.25, test=0.25, seed=3, overwrite=True)
    assert again.lists == lists
    other = split_folder(folder, val=0.25, test=0.25, seed=4, overwrite=True)
    assert other.lists != lists


def test_a_clip_stays_together_and_numbers_alone_make_none(tmp_path: Path) -> None:
    frames = {}
    for number in range(12):
        # Every other frame of the clip looks elsewhere.
        whole = picture(50)
        frames[f"clip/{number:03}"] = (
            window(whole, 5 * number, 3 * number)
            if number % 4 < 3
            else window(picture(number), 0, 0)
        )
        frames[f"Misc_{number}"] = window(picture(100 + number), 0, 0)
    folder = write(tmp_path / "in", frames)
    done = split_folder(folder, val=0.1, test=0.1)
    assert (done.clips, done.numbered, done.largest) == (1, 2, 12)
    assert {name for name in done.lists["train"] if name.startswith("clip")} == {
        f"clip/{number:03}" for number in range(12)
    }
    loose = split_folder(folder, val=0.1, test=0.1, clips=False, overwrite=True)
    assert loose.clips == 0
    assert loose.largest == 9


def test_what_cannot_be_split_is_one_sentence(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(OptionError, match=r"--val 0\.5 and --test 0\.5 leave no frame"):
        split_folder(folder, val=0.5, test=0.5)
    alike = write(tmp_path / "alike", {f"a{n}": window(picture(1), n, n) for n in range(6)})
    with pytest.raises(DataError, match=r"6 frames fall into 1 groups .* leaves none for t"):
        split_folder(alike)
    assert not list(alike.glob("*.txt"))
    bare = write(tmp_path / "my bare", {f"a{n}": picture(n) for n in range(3)})
    shutil.rmtree(bare / "masks", ignore_errors=True)
    with pytest.raises(DataError, match=r"no frame with a mask or label.*: add masks/"):
        split_folder(bare)
    (bare / "a1.json").write_text('{"shapes": [], "imagePath": "a1.png"}')
    with pytest.raises(DataError, match=r"pinglow data import '.*my bare' --out 'my bare-pinglow'"):
        split_folder(bare)


def test_broken_and_unlabeled_frames_are_in_no_list(folder: Path) -> None:
    (folder / "images" / "pk.png").write_bytes(b"")
    (folder / "masks" / "pl.png").unlink()
    done = split_folder(folder, val=0, test=0.2)
    assert set(done.lists) == {"train", "test"}
    assert list(done.broken) == ["pk"]
    assert done.unlabeled == 1
    assert not {"pk", "pl"} & {name for names in done.lists.values() for name in names}
