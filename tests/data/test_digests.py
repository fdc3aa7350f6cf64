"""Digests of frames: equal pictures in other files, and the compact set of a card."""

from __future__ import annotations

import numpy as np

from pinglow.data.digests import count_known, digest_frame, pack_digests


def test_equal_values_are_one_frame_however_they_lie_in_memory() -> None:
    counts = np.arange(24, dtype=np.uint16).reshape(4, 6)
    turned = np.asfortranarray(counts)
    swapped = counts.astype(">u2")
    assert digest_frame(counts) == digest_frame(turned) == digest_frame(swapped)
    others = [counts + 1, counts.reshape(6, 4), counts.astype(np.int16), counts.astype(np.uint32)]
    assert len({digest_frame(each) for each in [counts, *others]}) == 5


def test_a_set_knows_its_frames_in_5_characters_each() -> None:
    frames = [np.full((2, 3), value) for value in range(300)]
    digests = [digest_frame(frame) for frame in frames]
    packed = pack_digests(digests[:200])
    assert len(packed) <= 200 * 16 / 3 + 4
    assert count_known([packed], digests[150:]) == 50
    assert count_known([packed, pack_digests(digests[250:])], digests[150:]) == 100
    assert count_known([pack_digests([]), "no such text"], digests) == 0
