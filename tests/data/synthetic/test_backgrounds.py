from __future__ import annotations

import numpy as np
import pytest

from pinglow.data.synthetic.backgrounds import BACKGROUNDS, fractal_field


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("shape", [(32, 32), (97, 160), (200, 64)])
def test_range_and_shape(kind: str, shape: tuple[int, int]) -> None:
    for seed in range(5):
        drawn = BACKGROUNDS[kind](np.random.default_rng(seed), *shape)
        assert drawn.shape == shape
        assert drawn.min() >= 0
        assert drawn.max() <= 1
        assert np.ptp(drawn) > 0.02


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_each_draw_is_another(kind: str) -> None:
    first, second, again = (
        BACKGROUNDS[kind](np.random.default_rng(seed), 64, 64) for seed in (0, 1, 0)
    )
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("slope", [0.8, 1.5])
def test_fractal_slope_measured_from_the_structure_function(slope: float) -> None:
    # A 2-D field with power f**(-2 slope) has <(z(x + d) - z(x))**2> ~ d**(2 slope - 2) for
    # 1 < slope < 2; below that its increments do not grow.
    growth = []
    for seed in range(8):
        z = fractal_field(np.random.default_rng(seed), 512, 512, slope)
        variances = [np.mean((z[:, d:] - z[:, :-d]) ** 2) for d in (8, 16)]
        growth.append(np.log2(variances[1] / variances[0]))
    assert np.mean(growth) == pytest.approx(max(2 * slope - 2, 0), abs=0.2)


def test_sea_waves_lie_flat() -> None:
    rows, columns = [], []
    for seed in range(10):
        sea = BACKGROUNDS["sea"](np.random.default_rng(seed), 128, 128)[70:]
        rows.append(np.abs(np.diff(sea, axis=0)).mean())
        columns.append(np.abs(np.diff(sea, axis=1)).mean())
    assert np.mean(rows) > 2 * np.mean(columns)


def test_a_gradient_is_smooth() -> None:
    for seed in range(5):
        sky = BACKGROUNDS["gradient"](np.random.default_rng(seed), 128, 128)
        assert np.abs(np.diff(sky, axis=0)).max() < 0.01
