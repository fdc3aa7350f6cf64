from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pinglow.data.augment.counter import mix, normal, uniform

MASK = 2**64 - 1


def splitmix(key: int, number: int) -> int:
    """Sebastiano Vigna's splitmix64 in whole numbers: output number + 1 of a state."""
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@given(key=st.integers(-(2**63), 2**63 - 1), number=st.integers(-(2**31), 2**31))
def test_keys_are_those_of_splitmix64(key: int, number: int) -> None:
    expected = splitmix(key & MASK, number)
    for given_number in (number, torch.tensor(number)):
        assert int(mix(torch.tensor(key), given_number)) & MASK == expected
    (draw,) = uniform(torch.tensor([key]), 1)
    assert draw.item() == (splitmix(key & MASK, 0) >> 11) / 2**53


def test_the_published_first_numbers_of_splitmix64() -> None:
    # Of seed 1234567, as Rosetta Code lists them.
    found = [int(mix(torch.tensor(1234567), number)) & MASK for number in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_draw_depends_on_its_own_key_alone() -> None:
    keys = mix(torch.tensor(5), torch.arange(40))
    for draw in (uniform, normal):
        whole = draw(keys, 30)
        assert torch.equal(draw(keys[7:9], 30), whole[7:9])
        assert torch.equal(draw(keys, 20), whole[:, :20])
        assert len(whole.unique()) >= whole.numel() - 2  # of 2^23 and 2^53 values


@pytest.mark.parametrize(
    ("draw", "distribution"), [(uniform, stats.uniform()), (normal, stats.norm())]
)
def test_draws_follow_their_distribution(
    draw: object, distribution: stats.rv_continuous_frozen
) -> None:
    values = draw(mix(torch.tensor(3), torch.arange(50)), 4000).double().numpy()  # type: ignore[operator]
    assert np.isfinite(values).all()
    assert stats.kstest(values.ravel(), distribution.cdf).pvalue > 1e-3
    # Neither neighbors in a row nor rows are alike.
    assert abs(np.corrcoef(values[:, 1:].ravel(), values[:, :-1].ravel())[0, 1]) < 0.01
    assert np.abs(np.corrcoef(values[:8]) - np.eye(8)).max() < 0.08
