from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pictures import full_mask
from pinglow.rle import encode_rle


# pycocotools decodes with an __array__ that NumPy 2 complains about.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(deadline=None, max_examples=60)
@given(
    inside=hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    left=st.integers(0, 40),
    top=st.integers(0, 900),
    room=st.tuples(st.integers(0, 900), st.integers(0, 40)),
)
def test_run_lengths_are_those_of_pycocotools(
    inside: NDArray[np.bool_], left: int, top: int, room: tuple[int, int]
) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    height, width = inside.shape
    whole = full_mask((top + height + room[0], left + width + room[1]), left, top, inside)
    made = encode_rle(inside, (left, top), whole.shape)
    theirs = coco.encode(np.asfortranarray(whole.astype(np.uint8)))
    assert made == {"size": theirs["size"], "counts": theirs["counts"].decode()}
    np.testing.assert_array_equal(coco.decode(made), whole)
