"""Synthetic infrared frames with known truth: targets over a background, seen by a sensor.

    background (cloud, sea, ground, gradient) --PSF--> + targets --> + fixed pattern
        --> + shot and read noise --> bad pixels --> counts

Everything is in counts. A frame follows from its ``SceneSpec`` and seed alone. Source: ours; the
target is a line segment under a Gaussian point spread function (PSF), in closed form.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, special

from pinglow.data.synthetic.backgrounds import BACKGROUNDS, Field
from pinglow.errors import DataError, OptionError
from pinglow.files import naming, naming_below, write_whole
from pinglow.structures import BoolArray

LOCAL_RADIUS = 10
"""Local means the (2 * LOCAL_RADIUS + 1) square around a target, cut at the frame's edge."""

# At this many PSF sigmas a target has 3e-4 of its peak left.
_REACH = 4.0
_PLACING_TRIES = 2000
_ASIDE = ".new-"  # where a set is made before it takes its place

TRUTH = "scenes.csv"
"""The file beside a written data set that holds the known truth, one row per target."""
SPLIT_SHARES = {"val": 0.15, "test": 0.15}
"""The share of scenes in each list; the rest is train."""


@dataclass(frozen=True)
class Sensor:
    """How a scene becomes counts.

    Attributes:
        bits: 8, 14 or 16: counts are cut to 0 .. 2**bits - 1 and rounded.
        base: Counts of the darkest background.
        span: Counts between the darkest and the brightest background.
        psf_sigma: Standard deviation of the Gaussian PSF, pixel aperture included, in pixels.
        read_noise: Standard deviation of the noise that does not depend on the signal, in counts.
        electrons_per_count: Shot noise has the variance signal / electrons_per_count.
        fixed_pattern: Standard deviation of the column offsets, in counts; rows have half of it.
        vignetting: Counts that the warm housing adds in the corners, growing with radius squared.
        dead_pixels: Number of pixels stuck at 0, none inside a target.
        hot_pixels: Number of pixels stuck at the largest count, none inside a target.
    """

    bits: int
    base: float
    span: float
    psf_sigma: float
    read_noise: float
    electrons_per_count: float
    fixed_pattern: float
    vignetting: float
    dead_pixels: int
    hot_pixels: int


SENSORS = {
    # Camera video after gain control: bad pixels are replaced, the range is well used.
    8: Sensor(8, 30, 120, 0.8, 0.9, 150, 0.4, 6, 0, 0),
    # An uncooled core's raw output: a large base, little of the range used.
    14: Sensor(14, 6000, 1200, 0.9, 6, 300, 3, 150, 2, 2),
    # A cooled camera: more wells, more counts, sharper.
    16: Sensor(16, 21000, 6000, 0.7, 12, 75, 6, 400, 2, 2),
}
"""A typical sensor for each bit depth; vary one with ``dataclasses.replace``."""


@dataclass(frozen=True)
class SceneSpec:
    """What a frame shows. Each (low, high) range is drawn from uniformly, once per target.

    Attributes:
        kind: A name in ``BACKGROUNDS``: cloud, sea, ground, gradient.
        width: Pixels, 32 to 4096.
        height: Pixels, 32 to 4096.
        targets: Fewest and most targets, both included; (0, 0) is a target-free scene.
        snr: Peak of the noise-free target signal over the local standard deviation of the frame
            without the target: ``sqrt(var(background + fixed pattern) + mean noise variance)``
            within ``LOCAL_RADIUS``. Quantization and saturation come after it.
        length: Length of the bar in pixels; 0 is a point.
        angle: Direction of the bar in degrees from the x axis towards +y (down).
        cold: Probability that a target is darker than its background, in [0, 1].
        sensor: The sensor.

    Raises:
        OptionError: A value is impossible.
    """

    kind: str = "cloud"
    width: int = 256
    height: int = 256
    targets: tuple[int, int] = (1, 3)
    snr: tuple[float, float] = (3.0, 12.0)
    length: tuple[float, float] = (0.0, 6.0)
    angle: tuple[float, float] = (0.0, 180.0)
    cold: float = 0.0
    sensor: Sensor = field(default=SENSORS[14])

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.kind not in BACKGROUNDS:
            raise OptionError(
                f"There is no background '{self.kind}'; choose one of {', '.join(BACKGROUNDS)}"
            )
        if not 32 <= min(self.width, self.height) <= max(self.width, self.height) <= 4096:
            raise OptionError(
                f"The size {self.width}x{self.height} is impossible; use 32 to 4096 a side"
            )
        for name in ("targets", "snr", "length"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < math.inf:
                raise OptionError(
                    f"The range {name} {low}-{high} is impossible; give LOW-HIGH, 0 <= LOW <= HIGH"
                )
        bad, pixels = self.sensor.dead_pixels + self.sensor.hot_pixels, self.width * self.height
        if bad > pixels / 2:
            raise OptionError(f"{bad} bad pixels are over half of the frame's {pixels}; use fewer")
        if self.targets[1] > pixels:
            raise OptionError(f"{self.targets[1]} targets do not fit {pixels} pixels; use fewer")
        if not 0 <= self.cold <= 1:
            raise OptionError(f"The share cold {self.cold} is impossible; use 0 to 1")


@dataclass(frozen=True)
class SceneTarget:
    """The truth about one target.

    Attributes:
        x: Sub-pixel center to the right; the center of the top-left pixel is (0, 0).
        y: Sub-pixel center downwards.
        length: Length of the bar in pixels, 0 for a point.
        angle: Direction of the bar in degrees from the x axis towards +y.
        snr: As in ``SceneSpec``, never negative.
        amplitude: Peak of the noise-free signal in counts, negative for a cold target.
        area: Pixels of the target in the mask.
    """

    x: float
    y: float
    length: float
    angle: float
    snr: float
    amplitude: float
    area: int


@dataclass(frozen=True, eq=False)
class Scene:
    """A frame and its truth.

    Attributes:
        frame: (H, W) counts, uint8 up to 8 bits, uint16 above.
        mask: (H, W) bool: where a target's noise-free signal exceeds half of its own largest
            pixel.
        targets: The truth about each target.
    """

    frame: NDArray[np.uint8 | np.uint16]
    mask: BoolArray
    targets: tuple[SceneTarget, ...]


def render_scene(spec: SceneSpec, seed: int | Sequence[int]) -> Scene:
    """Render a frame; the same spec and seed give the same bytes.

    Args:
        spec: What the frame shows.
        seed: One number or several, not negative, e.g. (data set, scene).

    Raises:
        OptionError: So many or so long targets do not fit into the frame without touching each
            other or its edge.
    """
    rng = np.random.default_rng(seed)
    sensor, shape = spec.sensor, (spec.height, spec.width)
    background = ndimage.gaussian_filter(BACKGROUNDS[spec.kind](rng, *shape), sensor.psf_sigma)
    clean = sensor.base + sensor.span * background + _fixed_pattern(rng, sensor, *shape)

    signal, mask = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    targets = []
    for x, y, length, angle in _place_targets(rng, spec):
        unit = target_signal(shape, x, y, length, angle, sensor.psf_sigma)
        inside = unit > 0.5
        snr, sign = rng.uniform(*spec.snr), -1 if rng.random() < spec.cold else 1
        amplitude = sign * snr * _local_deviation(clean, sensor, x, y)
        signal += amplitude * unit
        mask |= inside
        targets.append(SceneTarget(x, y, length, angle, snr, amplitude, int(inside.sum())))

    counts = clean + signal
    counts += rng.standard_normal(shape) * np.sqrt(_noise_variance(counts, sensor))
    top = 2**sensor.bits - 1
    levels = counts.round().clip(0, top)
    frame: NDArray[np.uint8 | np.uint16]
    frame = levels.astype(np.uint8) if sensor.bits <= 8 else levels.astype(np.uint16)
    dead, hot = sensor.dead_pixels, sensor.hot_pixels
    stuck = rng.choice(np.flatnonzero(~mask), dead + hot, replace=False)
    frame.flat[stuck[:dead]], frame.flat[stuck[dead:]] = 0, top
    return Scene(frame, mask, tuple(targets))


def target_signal(
    shape: tuple[int, int], x: float, y: float, length: float, angle: float, psf_sigma: float
) -> Field:
    """Image of a uniform bar (or a point, at length 0) under a Gaussian PSF, largest pixel 1.

    The convolution of the two in closed form, taken at pixel centers: across the bar a Gaussian,
    along it a difference of two error functions.

    Args:
        shape: (H, W) of the frame.
        x: Center of the bar to the right, in pixels.
        y: Center of the bar downwards, in pixels.
        length: Length of the bar in pixels.
        angle: Direction of the bar in degrees from the x axis towards +y.
        psf_sigma: Standard deviation of the PSF in pixels.

    Returns:
        (H, W) float64 in [0, 1].
    """
    dy, dx = np.ogrid[: shape[0], : shape[1]]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along = (dx - x) * cos + (dy - y) * sin
    across = (dy - y) * cos - (dx - x) * sin
    # A point is a bar too short to see; the difference of error functions needs some length.
    half, scale = max(length, 1e-3) / 2, math.sqrt(2) * psf_sigma
    profile = special.erf((along + half) / scale) - special.erf((along - half) / scale)
    image = profile * np.exp(-((across / scale) ** 2))
    return np.asarray(image / image.max())


def write_dataset(
    out: Path,
    count: int,
    spec: SceneSpec,
    *,
    kinds: Sequence[str] = tuple(BACKGROUNDS),
    seed: int = 0,
    overwrite: bool = False,
    on_scene: Callable[[], object] = lambda: None,
) -> None:
    """Write scenes as a data set: images/, masks/, train.txt, val.txt, test.txt and scenes.csv.

    Images are PNG, 16-bit above 8 bits, masks 0 and 255. A target-free scene has one row in
    scenes.csv, without a target's columns. Below four scenes there is only train.txt.

    Args:
        out: The folder, made if missing.
        count: Number of scenes, at least 1.
        spec: What the frames show; its kind is replaced, and each scene's sensor gets a span
            between 0.4 and 1.6 times the given one, as contrast varies with the weather.
        kinds: Backgrounds to go through in turn.
        seed: The same arguments and seed write the same bytes.
        overwrite: Replace a data set that this function wrote.
        on_scene: Called after each scene, to show progress.

    Raises:
        OptionError: A value is impossible, or the targets do not fit.
        DataError: The folder holds something else, or a data set and ``overwrite`` is off.
    """
    if count < 1:
        raise OptionError(f"The count {count} is impossible; ask for at least 1 scene")
    _check_room(out, overwrite)
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_ASIDE}*"):  # by a call that was killed
        shutil.rmtree(left)
    with TemporaryDirectory(prefix=_ASIDE, dir=out) as aside, naming_below(Path(aside), out):
        new = Path(aside)
        _write_scenes(new, count, spec, kinds, seed, on_scene)
        lists = [out / f"{split}.txt" for split in ("train", *SPLIT_SHARES)]
        for old in (*lists, *out.glob("images/*.png"), *out.glob("masks/*.png")):
            old.unlink(missing_ok=True)
        files = [each for each in new.rglob("*") if each.is_file()]
        # The table first, by which the folder is known as ours should this be killed.
        for path in sorted(files, key=lambda each: (each.name != TRUTH, each.suffix == ".txt")):
            place = out / path.relative_to(new)
            place.parent.mkdir(exist_ok=True)
            path.replace(place)


def _write_scenes(
    out: Path,
    count: int,
    spec: SceneSpec,
    kinds: Sequence[str],
    seed: int,
    on_scene: Callable[[], object],
) -> None:
    names = [f"{index:06d}" for index in range(count)]
    _write_lists(out, names, seed)
    for folder in ("images", "masks"):
        (out / folder).mkdir()
    with naming(out / TRUTH), (out / TRUTH).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "kind", "bits", "targets", *(f.name for f in fields(SceneTarget))])
        for index, name in enumerate(names):
            rng = np.random.default_rng([seed, index, 1])
            sensor = replace(spec.sensor, span=spec.sensor.span * rng.uniform(0.4, 1.6))
            kind = kinds[index % len(kinds)]
            scene = render_scene(replace(spec, kind=kind, sensor=sensor), [seed, index])
            mask = scene.mask.astype(np.uint8) * 255
            for folder, image in (("images", scene.frame), ("masks", mask)):
                with naming(out / folder / f"{name}.png"):
                    Image.fromarray(image).save(out / folder / f"{name}.png")
            known = [name, kind, sensor.bits, len(scene.targets)]
            for target in scene.targets:
                table.writerow([*known, *(round(value, 4) for value in astuple(target))])
            if not scene.targets:
                table.writerow([*known, *[""] * len(fields(SceneTarget))])
            on_scene()


def _check_room(out: Path, overwrite: bool) -> None:
    """Refuse to write among files of anybody else."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder to write the scenes into")
    if out.is_dir() and any(not path.name.startswith(_ASIDE) for path in out.iterdir()):
        if not (out / TRUTH).is_file():
            raise DataError(f"{out} holds other files; name an empty or a new folder")
        if not overwrite:
            raise DataError(
                f"{out} already holds synthetic scenes; name another folder or use --overwrite"
            )


def _write_lists(out: Path, names: list[str], seed: int) -> None:
    """Deal the scenes out to the lists at random, so that each list has every background."""
    order = np.random.default_rng([seed, len(names)]).permutation(len(names))
    left = [names[i] for i in order]
    for split, share in SPLIT_SHARES.items():
        size = round(share * len(names))
        taken, left = left[:size], left[size:]
        _write_list(out / f"{split}.txt", taken)
    _write_list(out / "train.txt", left)


def _write_list(path: Path, names: list[str]) -> None:
    if names:
        write_whole(path, "".join(f"{name}\n" for name in sorted(names)).encode(), durable=False)


def _place_targets(
    rng: np.random.Generator, spec: SceneSpec
) -> list[tuple[float, float, float, float]]:
    """Draw (x, y, length, angle) of each target, whole and apart from each other."""
    blur = _REACH * spec.sensor.psf_sigma
    count = int(rng.integers(spec.targets[0], spec.targets[1], endpoint=True))
    placed: list[tuple[float, float, float, float]] = []
    for _ in range(_PLACING_TRIES):
        if len(placed) == count:
            return placed
        length, angle = rng.uniform(*spec.length), rng.uniform(*spec.angle)
        margin = length / 2 + blur
        x, y = rng.uniform(0, spec.width - 1), rng.uniform(0, spec.height - 1)
        edge = min(x, spec.width - 1 - x, y, spec.height - 1 - y)
        if edge >= margin and all(
            math.hypot(x - x2, y - y2) > margin + other / 2 + blur for x2, y2, other, _ in placed
        ):
            placed.append((x, y, length, angle))
    raise OptionError(
        f"{count} targets of length {spec.length[0]:g} to {spec.length[1]:g} px do not fit into "
        f"{spec.width}x{spec.height} px apart from each other; ask for fewer or shorter ones"
    )


def _fixed_pattern(rng: np.random.Generator, sensor: Sensor, height: int, width: int) -> Field:
    """Column and row offsets and the glow of the housing, (H, W) counts."""
    columns = rng.normal(0, sensor.fixed_pattern, width)
    rows = rng.normal(0, sensor.fixed_pattern / 2, (height, 1))
    ys, xs = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    return np.asarray(columns + rows + sensor.vignetting * (xs**2 + ys**2) / 2)


def _noise_variance(counts: Field, sensor: Sensor) -> Field:
    """Variance of shot and read noise, counts squared."""
    return np.asarray(counts.clip(0) / sensor.electrons_per_count + sensor.read_noise**2)


def _local_deviation(clean: Field, sensor: Sensor, x: float, y: float) -> float:
    """Standard deviation around (x, y) of the frame without its target, in counts."""
    top, left = max(round(y) - LOCAL_RADIUS, 0), max(round(x) - LOCAL_RADIUS, 0)
    local = clean[top : round(y) + LOCAL_RADIUS + 1, left : round(x) + LOCAL_RADIUS + 1]
    return math.sqrt(local.var() + _noise_variance(local, sensor).mean())
