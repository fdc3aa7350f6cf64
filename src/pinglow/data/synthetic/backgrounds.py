"""Synthetic infrared backgrounds: cloud, sea, ground, and a smooth gradient. Source: ours.

Each draws an (H, W) float64 map in [0, 1], from the coldest to the warmest radiance that the
sensor's span covers; detail finer than a pixel is left to the optics.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float64]
Generator = np.random.Generator


def fractal_field(rng: Generator, height: int, width: int, slope: float) -> Field:
    """Gaussian noise whose amplitude falls as 1 / frequency**slope.

    Cut from a larger periodic field, so that opposite edges do not match.

    Returns:
        (height, width) float64 with mean 0 and standard deviation 1.
    """
    size = 1 << math.ceil(math.log2(1.5 * max(height, width)))
    values = _periodic_field(rng, size, slope)[:height, :width]
    return np.asarray((values - values.mean()) / values.std())


def cloud(rng: Generator, height: int, width: int) -> Field:
    """Warm clouds with soft, ragged edges before a cold sky that is warmer near the horizon."""
    elevation = np.linspace(0, 1, height)[:, None]
    sky = 0.25 * rng.random() * elevation
    shape = fractal_field(rng, height, width, rng.uniform(1.5, 1.9))
    softness = rng.uniform(0.5, 1.6)
    cover = _smoothstep((shape - rng.uniform(-0.8, 0.8)) / softness)
    # Lumps inside the cloud: its thick parts are warm, its thin parts let the cold sky through.
    body = 0.55 + 0.15 * shape + 0.1 * fractal_field(rng, height, width, 1.3)
    return (sky + cover * (body.clip(0.05, 1) - sky)).clip(0, 1)


def sea(rng: Generator, height: int, width: int) -> Field:
    """Waves in perspective, elongated towards the horizon, sun glint, and a strip of sky."""
    horizon = rng.uniform(-0.3, 0.45) * height
    ys, xs = np.mgrid[:height, :width].astype(np.float64)
    below = np.maximum(ys - horizon, 0.5)
    # A flat sea seen from a height: distance goes with 1 / (rows below the horizon).
    distance = height / (below + 0.08 * height)
    texture = _periodic_field(rng, 512, 0.8)
    u = (xs - width / 2) / width * distance * rng.uniform(12, 25) + 256
    v = distance * rng.uniform(100, 180) + rng.uniform(-0.7, 0.7) * u
    waves = ndimage.map_coordinates(texture, [v, u], order=1, mode="grid-wrap")
    # Far waves are finer than a pixel and average out.
    waves *= 0.08 / (1 + (distance / 5) ** 2)
    swell = 0.03 * ndimage.map_coordinates(texture, [v / 8, u / 4], order=1, mode="grid-wrap")
    water = 0.4 + 0.12 * np.exp(-below / (0.15 * height)) + waves + swell
    path = np.exp(-(((xs - rng.uniform(0, 1) * width) / (rng.uniform(0.05, 0.15) * width)) ** 2))
    glint = rng.random() * path * np.maximum(waves / waves.std() - 1, 0) ** 1.5
    water += 0.12 * glint
    sky = 0.1 + 0.35 * np.exp((ys - horizon) / (0.35 * height))
    sky += 0.02 * fractal_field(rng, height, width, 1.8)
    return np.asarray(np.where(ys > horizon, water, sky).clip(0, 1))


def ground(rng: Generator, height: int, width: int) -> Field:
    """Fields cut by lines, roads, buildings with warm walls, and sometimes trees against sky."""
    ys, xs = np.mgrid[:height, :width].astype(np.float64)
    size = max(height, width)
    land = 0.4 + 0.04 * fractal_field(rng, height, width, 1.2)
    for _ in range(rng.integers(3, 8)):
        land += rng.uniform(-0.08, 0.08) * (_line_distance(rng, xs, ys) > 0)
    land += 0.03 * rng.standard_normal((height, width))
    for _ in range(rng.integers(0, 3)):
        distance = np.abs(_line_distance(rng, xs, ys))
        land[distance < rng.uniform(0.006, 0.02) * size] += rng.uniform(0.1, 0.25)
    for _ in range(rng.integers(2, 9)):
        _add_building(rng, land, xs, ys)
    if rng.random() < 0.5:
        land = _behind_trees(rng, land, ys)
    return land.clip(0, 1)


def gradient(rng: Generator, height: int, width: int) -> Field:
    """A clear sky: a smooth slope, slightly curved, with a trace of haze; a tenth of the span."""
    ys, xs = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    tilt, bend = rng.uniform(-0.3, 0.3), rng.uniform(0, 0.5)
    slope = ys + tilt * xs + bend * ys**2
    haze = 0.05 * fractal_field(rng, height, width, 2.2)
    level, strength = rng.uniform(0.1, 0.4), rng.uniform(0.03, 0.12)
    return np.asarray((level + strength * (slope + haze)).clip(0, 1))


BACKGROUNDS: dict[str, Callable[[Generator, int, int], Field]] = {
    "cloud": cloud,
    "sea": sea,
    "ground": ground,
    "gradient": gradient,
}
"""Name to drawing function (rng, height, width) -> (height, width) in [0, 1]."""


def _periodic_field(rng: Generator, size: int, slope: float) -> Field:
    """Square of ``fractal_field`` whose opposite edges match, standard deviation 1."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    values = np.fft.irfft2(spectrum / frequency**slope, s=(size, size))
    return np.asarray(values / values.std())


def _smoothstep(values: Field) -> Field:
    """0 below 0, 1 above 1, a cubic between."""
    inside = values.clip(0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside))


def _line_distance(rng: Generator, xs: Field, ys: Field) -> Field:
    """Signed distance in pixels to a random line through the frame."""
    height, width = xs.shape
    angle = rng.uniform(0, 2 * np.pi)
    x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height
    return np.asarray((xs - x) * np.cos(angle) + (ys - y) * np.sin(angle))


def _add_building(rng: Generator, land: Field, xs: Field, ys: Field) -> None:
    """A turned rectangle: a roof, cold or warm against the land, with two warm walls."""
    height, width = land.shape
    size = max(height, width)
    angle = rng.uniform(0, np.pi / 2)
    dx, dy = xs - rng.uniform(0, width), ys - rng.uniform(0, height)
    along = np.abs(dx * np.cos(angle) + dy * np.sin(angle)) - rng.uniform(0.02, 0.09) * size
    across = dy * np.cos(angle) - dx * np.sin(angle)
    depth = np.abs(across) - rng.uniform(0.02, 0.06) * size
    inside = (along < 0) & (depth < 0)
    wall = inside & ((along > -0.006 * size) | ((depth > -0.01 * size) & (across > 0)))
    land[inside] = rng.uniform(0.15, 0.7)
    land[wall] += rng.uniform(0.05, 0.25)


def _behind_trees(rng: Generator, land: Field, ys: Field) -> Field:
    """Put sky over the upper part of the land, with a ragged line of trees between."""
    height, width = land.shape
    ragged = 0.035 * height * fractal_field(rng, 8, width, 1.0)
    trees = rng.uniform(0.15, 0.45) * height + ragged[0]
    foot = trees.mean() + rng.uniform(0.06, 0.14) * height + 0.4 * ragged[1]
    sky = rng.uniform(0.02, 0.15) + 0.1 * ys / height
    leaves = 0.5 + 0.07 * fractal_field(rng, height, width, 0.7)
    return np.asarray(np.where(ys < trees, sky, np.where(ys < foot, leaves, land)))
