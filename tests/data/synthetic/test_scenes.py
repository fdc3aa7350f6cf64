from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pinglow.data.synthetic.backgrounds import BACKGROUNDS
from pinglow.data.synthetic.scenes import (
    SENSORS,
    SceneSpec,
    render_scene,
    target_signal,
    write_dataset,
)
from pinglow.errors import DataError, OptionError
from pinglow.structures import find_targets, label_targets

FLAT = replace(
    SENSORS[14], span=0, fixed_pattern=0, vignetting=0, dead_pixels=0, hot_pixels=0, read_noise=8
)


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("bits", SENSORS)
def test_same_seed_same_bytes(kind: str, bits: int) -> None:
    spec = SceneSpec(kind=kind, width=96, height=64, sensor=SENSORS[bits])
    first, again, other = render_scene(spec, 3), render_scene(spec, 3), render_scene(spec, 4)
    assert first.frame.tobytes() == again.frame.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    assert first.targets == again.targets
    assert first.frame.tobytes() != other.frame.tobytes()


@pytest.mark.parametrize(("length", "angle"), [(0, 0), (5, 0), (8, 30), (8, 90), (3, 135)])
def test_signal_is_a_blurred_bar(length: float, angle: float) -> None:
    # Reference: many points along the bar, each blurred on its own, summed by brute force.
    x, y, sigma = 15.3, 16.8, 0.9
    ys, xs = np.mgrid[:32, :32]
    brute = np.zeros((32, 32))
    for step in (np.arange(2000) + 0.5) / 2000 - 0.5:
        px = x + step * length * math.cos(math.radians(angle))
        py = y + step * length * math.sin(math.radians(angle))
        brute += np.exp(-((xs - px) ** 2 + (ys - py) ** 2) / (2 * sigma**2))
    signal = target_signal((32, 32), x, y, length, angle, sigma)
    np.testing.assert_allclose(signal, brute / brute.max(), atol=1e-6)


def test_mask_is_the_signal_above_half_of_its_peak() -> None:
    for seed in range(20):
        scene = render_scene(SceneSpec(targets=(3, 3)), seed)
        expected = np.zeros_like(scene.mask)
        for target in scene.targets:
            signal = target_signal(
                scene.mask.shape, target.x, target.y, target.length, target.angle, 0.9
            )
            assert target.area == np.count_nonzero(signal > 0.5) >= 1
            expected |= signal > 0.5
        np.testing.assert_array_equal(scene.mask, expected)


def test_a_sharp_point_still_has_a_pixel() -> None:
    sharp = replace(SENSORS[14], psf_sigma=0.3)
    for seed in range(50):
        scene = render_scene(SceneSpec(targets=(1, 1), length=(0, 0), sensor=sharp), seed)
        assert scene.mask.sum() >= 1


def test_point_snr_measured_in_a_flat_frame() -> None:
    # Independent of the renderer's own bookkeeping: the excess of the brightest true pixel over
    # the frame's mean, averaged over many draws so that noise cancels, against the deviation of
    # pixels far from any target.
    spec = SceneSpec("gradient", 64, 64, (1, 1), snr=(8, 8), length=(0, 0), sensor=FLAT)
    measured = []
    for seed in range(300):
        scene = render_scene(spec, seed)
        (target,) = scene.targets
        row, column = round(target.y), round(target.x)
        far = np.ones_like(scene.mask)
        far[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7] = False
        excess = scene.frame[row, column] - scene.frame[far].mean()
        measured.append(excess / scene.frame[far].std())
    # One draw has a deviation of 1; the mean of 300 of 0.06.
    assert np.mean(measured) == pytest.approx(8, abs=0.3)


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_snr_counts_clutter_as_well_as_noise(kind: str) -> None:
    spec = SceneSpec(kind, 96, 96, (1, 1), snr=(5, 5), sensor=replace(SENSORS[16], hot_pixels=0))
    bare = replace(spec, targets=(1, 1), snr=(0, 0))
    for seed in range(20):
        scene, without = render_scene(spec, seed), render_scene(bare, seed)
        (target,) = scene.targets
        row, column = round(target.y), round(target.x)
        local = without.frame[max(row - 10, 0) : row + 11, max(column - 10, 0) : column + 11]
        # The measured deviation of a few hundred pixels of one noise draw; dead pixels are out.
        deviation = local[local > 0].astype(float).std()
        assert target.amplitude == pytest.approx(5 * deviation, rel=0.2)


def test_cold_targets_are_darker() -> None:
    spec = SceneSpec("gradient", 64, 64, (1, 1), snr=(20, 20), cold=1.0, sensor=FLAT)
    scene = render_scene(spec, 0)
    assert scene.targets[0].amplitude < 0
    assert scene.frame[scene.mask].mean() < scene.frame[~scene.mask].mean() - 50


def test_mask_centroid_is_near_the_true_position() -> None:
    for seed in range(100):
        scene = render_scene(SceneSpec(width=64, height=64, targets=(1, 1)), seed)
        (target,), (found,) = scene.targets, find_targets(scene.mask)
        assert math.hypot(found.x - target.x, found.y - target.y) < 0.5


@pytest.mark.parametrize("angle", [0, 25, 45, 90, 120, 170])
def test_bar_angle_from_image_moments(angle: float) -> None:
    signal = target_signal((64, 64), 30.4, 31.7, 9, angle, 0.9)
    ys, xs = np.mgrid[:64, :64]
    total = signal.sum()
    cy, cx = ndimage.center_of_mass(signal)
    mxx, myy = (signal * (xs - cx) ** 2).sum() / total, (signal * (ys - cy) ** 2).sum() / total
    mxy = (signal * (xs - cx) * (ys - cy)).sum() / total
    found = math.degrees(0.5 * math.atan2(2 * mxy, mxx - myy)) % 180
    assert abs((found - angle + 90) % 180 - 90) < 1
    # A uniform bar of length L under a PSF of variance s**2 has the variance L**2 / 12 + s**2.
    major = (mxx + myy) / 2 + math.hypot((mxx - myy) / 2, mxy)
    assert major == pytest.approx(81 / 12 + 0.81, rel=0.02)


def test_bad_pixels_are_counted_and_off_target() -> None:
    sensor = replace(SENSORS[14], dead_pixels=7, hot_pixels=11)
    scene = render_scene(SceneSpec(sensor=sensor), 1)
    assert np.count_nonzero(scene.frame == 0) == 7
    assert np.count_nonzero(scene.frame == 2**14 - 1) == 11
    assert not scene.mask[(scene.frame == 0) | (scene.frame == 2**14 - 1)].any()


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (14, np.uint16), (16, np.uint16)])
def test_bit_depth(bits: int, dtype: type) -> None:
    sensor = SENSORS[bits]
    for kind in BACKGROUNDS:
        frame = render_scene(SceneSpec(kind, targets=(0, 0), sensor=sensor), 0).frame
        assert frame.dtype == dtype
        assert frame.max() < 2**bits
        low, high = np.percentile(frame, [1, 99])
        assert sensor.base - 100 < low < high < sensor.base + sensor.span + sensor.vignetting + 100


def test_saturation_clips_and_does_not_wrap() -> None:
    sensor = replace(SENSORS[8], base=250, span=0)
    frame = render_scene(SceneSpec("cloud", snr=(50, 50), sensor=sensor), 0).frame
    assert frame.max() == 255
    assert frame.min() > 240


def test_noise_has_the_stated_variance() -> None:
    sensor = replace(FLAT, base=6000, electrons_per_count=50, read_noise=5)
    frame = render_scene(SceneSpec("gradient", targets=(0, 0), sensor=sensor), 0).frame
    # Rounding to counts adds 1 / 12.
    assert frame.var() == pytest.approx(6000 / 50 + 25 + 1 / 12, rel=0.03)


def test_fixed_pattern_lies_in_columns() -> None:
    sensor = replace(FLAT, fixed_pattern=10)
    frame = render_scene(SceneSpec("gradient", targets=(0, 0), sensor=sensor), 0).frame
    assert frame.mean(axis=0).std() == pytest.approx(10, rel=0.2)
    assert frame.mean(axis=1).std() == pytest.approx(5, rel=0.2)


def test_no_targets_is_an_empty_mask() -> None:
    scene = render_scene(SceneSpec(targets=(0, 0)), 0)
    assert scene.targets == ()
    assert not scene.mask.any()


def test_targets_are_whole_and_apart() -> None:
    spec = SceneSpec(width=96, height=96, targets=(4, 4), length=(0, 9))
    for seed in range(40):
        scene = render_scene(spec, seed)
        assert label_targets(scene.mask)[1] == 4
        assert sorted(t.area for t in scene.targets) == sorted(
            t.area for t in find_targets(scene.mask)
        )
        for target in scene.targets:
            # On a frame of four times the area it has the same sum: the edge cut nothing off.
            inside = target_signal(
                (96, 96), target.x, target.y, target.length, target.angle, 0.9
            ).sum()
            larger = target_signal(
                (192, 192), target.x + 48, target.y + 48, target.length, target.angle, 0.9
            ).sum()
            assert inside == pytest.approx(larger, rel=1e-3)


def test_number_of_targets_covers_its_range() -> None:
    spec = SceneSpec("gradient", 96, 96, targets=(0, 3))
    assert {len(render_scene(spec, seed).targets) for seed in range(40)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "lava"}, "'lava'.*cloud, sea, ground, gradient"),
        ({"width": 20}, "20x256"),
        ({"targets": (3, 1)}, "targets 3-1"),
        ({"snr": (-1, 2)}, "snr -1-2"),
        ({"length": (0, math.inf)}, "length 0-inf"),
        ({"snr": (math.nan, 2)}, "snr nan-2"),
        ({"cold": 1.5}, "cold 1.5"),
    ],
)
def test_impossible_values_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SceneSpec(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"targets": (30, 30)}, {"length": (40, 40)}])
def test_targets_that_do_not_fit_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="do not fit into 40x40"):
        render_scene(SceneSpec(width=40, height=40, **options), 0)  # type: ignore[arg-type]


def read_truth(out: Path) -> list[dict[str, str]]:
    with (out / "scenes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_dataset_matches_its_truth(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", 20, SceneSpec(width=64, height=48, targets=(0, 2)), seed=7)
    names = [f"{index:06d}" for index in range(20)]
    listed = [(tmp_path / "set" / f"{s}.txt").read_text().split() for s in ("train", "val", "test")]
    assert [len(part) for part in listed] == [14, 3, 3]
    assert sorted(listed[0] + listed[1] + listed[2]) == names
    truth = read_truth(tmp_path / "set")
    assert {row["id"]: row["kind"] for row in truth}["000002"] == "ground"
    for name in names:
        frame = np.asarray(Image.open(tmp_path / "set" / "images" / f"{name}.png"))
        mask = np.asarray(Image.open(tmp_path / "set" / "masks" / f"{name}.png"))
        assert frame.shape == mask.shape == (48, 64)
        assert frame.dtype == np.uint16
        assert set(np.unique(mask)) <= {0, 255}
        rows = [row for row in truth if row["id"] == name]
        known = sorted((int(row["area"]) for row in rows if row["area"]), reverse=True)
        found = find_targets(mask > 0)
        assert sorted((t.area for t in found), reverse=True) == known
        assert {int(row["targets"]) for row in rows} == {len(found)}
        for target in found:
            near = [math.hypot(float(r["x"]) - target.x, float(r["y"]) - target.y) for r in rows]
            assert min(near) < 0.5


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_dataset_is_reproducible(tmp_path: Path) -> None:
    spec = SceneSpec(width=48, height=48, targets=(0, 1), length=(0, 2))
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dataset(tmp_path / folder, 4, spec, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_dataset_never_touches_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="holds other files"):
            write_dataset(tmp_path, 1, SceneSpec(), overwrite=overwrite)
    with pytest.raises(DataError, match="is a file"):
        write_dataset(tmp_path / "notes.txt", 1, SceneSpec())
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_overwrite_leaves_nothing_of_the_old_set(tmp_path: Path) -> None:
    spec = SceneSpec(width=48, height=48, targets=(1, 1), length=(0, 2))
    write_dataset(tmp_path / "set", 5, spec)
    with pytest.raises(DataError, match="already holds"):
        write_dataset(tmp_path / "set", 2, spec)
    write_dataset(tmp_path / "set", 2, spec, overwrite=True)
    write_dataset(tmp_path / "fresh", 2, spec)
    assert contents(tmp_path / "set") == contents(tmp_path / "fresh")


def test_scenes_that_do_not_fit_cost_nothing_that_is_there(tmp_path: Path) -> None:
    good = SceneSpec(width=64, height=64, targets=(1, 1))
    crowded = replace(good, targets=(50, 50))
    write_dataset(tmp_path / "set", 2, good)
    before = contents(tmp_path / "set")
    with pytest.raises(OptionError, match="do not fit"):
        write_dataset(tmp_path / "set", 2, crowded, overwrite=True)
    assert contents(tmp_path / "set") == before
    with pytest.raises(OptionError, match="do not fit"):
        write_dataset(tmp_path / "new", 2, crowded)
    write_dataset(tmp_path / "new", 2, good)
    assert contents(tmp_path / "new") == before


@pytest.mark.parametrize("done", [0, 1, 3, 6])
def test_a_call_that_is_stopped_while_files_move_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    spec = SceneSpec(width=48, height=48, targets=(1, 1))
    write_dataset(tmp_path / "set", 4, spec)
    left, replace = [done], Path.replace

    def stop(path: Path, place: Path) -> Path:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= ".part" not in path.name
        return replace(path, place)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(tmp_path / "stopped", 4, spec)
    assert not list((tmp_path / "stopped").glob("*.txt"))
    write_dataset(tmp_path / "stopped", 4, spec, overwrite=True)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "set")


def test_what_a_killed_call_left_is_no_obstacle(tmp_path: Path) -> None:
    spec = SceneSpec(width=64, height=64, targets=(1, 1))
    write_dataset(tmp_path / "set", 2, spec)
    (tmp_path / "killed" / ".new-abc" / "images").mkdir(parents=True)
    write_dataset(tmp_path / "killed", 2, spec)
    assert contents(tmp_path / "killed") == contents(tmp_path / "set")
    assert not list((tmp_path / "killed").glob(".new-*"))


def test_zero_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="count 0"):
        write_dataset(tmp_path / "set", 0, SceneSpec())
    assert not (tmp_path / "set").exists()


def test_more_than_a_frame_holds_is_refused() -> None:
    broken = replace(SENSORS[14], dead_pixels=100_000)
    with pytest.raises(OptionError, match="bad pixels are over half"):
        SceneSpec(width=64, height=64, sensor=broken)
    with pytest.raises(OptionError, match="targets do not fit"):
        SceneSpec(targets=(0, 10**30))
