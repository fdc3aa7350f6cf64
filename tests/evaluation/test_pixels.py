"""What a model is shown under each protocol."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pinglow.backends.torch import TorchBackend
from pinglow.errors import DataError, FrameError
from pinglow.evaluation.pixels import evaluate_model
from pinglow.inference.predictor import Predictor
from pinglow.metrics import PROTOCOLS, Scorer
from pinglow.models.card import ModelCard

STRICT = [PROTOCOLS["strict"]]


def make_pairs(count: int = 3) -> list[tuple[str, NDArray[np.uint16], NDArray[np.bool_]]]:
    """14-bit frames of 45 x 70 pixels with one target each, 60 counts above the rest."""
    generator = np.random.default_rng(0)
    pairs = []
    for index in range(count):
        mask = np.zeros((45, 70), dtype=bool)
        y, x = generator.integers(2, 38, size=2)
        mask[y : y + 4, x : x + 4] = True
        frame = generator.integers(8000, 8010, size=mask.shape) + 60 * mask
        pairs.append((f"frame{index}", frame.astype(np.uint16), mask))
    return pairs


def each(predict: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[..., Iterator[Any]]:
    """Return what predicts frames one by one, as they come."""
    return lambda frames: map(predict, frames)


class Threshold:
    """A model that is sure of every pixel 30 counts above the median; keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[NDArray[Any]] = []

    def __call__(self, frame: NDArray[Any]) -> NDArray[np.float32]:
        self.shown.append(frame)
        return (frame > np.median(frame) + 30).astype(np.float32)


@pytest.mark.parametrize("name", ["strict", "greedy"])
def test_original_size_equals_scoring_by_hand(name: str) -> None:
    model, scorer = Threshold(), Scorer(PROTOCOLS[name])
    for _, frame, mask in make_pairs():
        scorer.update(model(frame), mask)
    [report] = evaluate_model(make_pairs(), each(Threshold()), [PROTOCOLS[name]])
    assert report == scorer.compute()
    assert (report.images, report.iou, report.pd, report.fa) == (3, 1, 1, 0)


def test_protocols_share_a_pass_and_what_they_have_in_common() -> None:
    model = Threshold()
    reports = evaluate_model(iter(make_pairs(2)), each(model), list(PROTOCOLS.values()))
    assert [report.protocol for report in reports] == list(PROTOCOLS)
    # strict and greedy share the frame as it is, then 256 x 256, then a multiple of 32
    assert [frame.shape for frame in model.shown] == [(45, 70), (256, 256), (64, 96)] * 2
    for report, protocol in zip(reports, PROTOCOLS.values(), strict=True):
        assert evaluate_model(make_pairs(2), each(Threshold()), [protocol]) == [report]


def test_mshnet256_resizes_frame_and_mask_as_pillow_does() -> None:
    model = Threshold()
    name, _, mask = make_pairs(1)[0]
    eight_bit = np.random.default_rng(1).integers(0, 256, size=mask.shape, dtype=np.uint8)
    [report] = evaluate_model([(name, eight_bit, mask)], each(model), [PROTOCOLS["mshnet256"]])
    # MSHNet resizes 8-bit images: the same but for rounding to whole levels after each axis.
    theirs = np.asarray(Image.fromarray(eight_bit).resize((256, 256), Image.Resampling.BILINEAR))
    assert model.shown[0].shape == (256, 256)
    np.testing.assert_allclose(model.shown[0], theirs, atol=1.01)
    nearest = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (256, 256), Image.Resampling.NEAREST
    )
    assert report.targets == 1
    [blind] = evaluate_model(
        [(name, eight_bit, mask)], each(np.ones_like), [PROTOCOLS["mshnet256"]]
    )
    assert blind.iou == np.mean(np.asarray(nearest) > 127)


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    frame = np.zeros((512, 512), dtype=np.uint16)
    frame[100, 100] = 10000  # a filter of torch's kind would leave a quarter or nothing of it
    model = Threshold()
    evaluate_model([("dot", frame, frame > 0)], each(model), [PROTOCOLS["mshnet256"]])
    assert model.shown[0].sum() == pytest.approx(10000 / 4, rel=1e-3)
    assert model.shown[0].dtype == np.float32


def test_basicirstd_pads_right_and_below_and_crops_back() -> None:
    [(name, frame, mask)] = make_pairs(1)
    model = Threshold()
    [report] = evaluate_model([(name, frame, mask)], each(model), [PROTOCOLS["basicirstd"]])
    [shown] = model.shown
    assert shown.shape == (64, 96)
    assert shown.dtype == frame.dtype
    np.testing.assert_array_equal(shown[:45, :70], frame)
    assert np.all(shown[45:] == np.median(frame))
    assert np.all(shown[:, 70:] == np.median(frame))
    assert (report.iou, report.fa) == (1, 0)
    # What a model claims in the padding is cropped away.
    [blind] = evaluate_model([(name, frame, mask)], each(np.ones_like), [PROTOCOLS["basicirstd"]])
    assert blind.iou == 16 / (45 * 70)


def test_basicirstd_leaves_multiples_of_32_alone() -> None:
    model = Threshold()
    frame = np.zeros((64, 32), dtype=np.uint8)
    evaluate_model([("flat", frame, frame > 0)], each(model), [PROTOCOLS["basicirstd"]])
    assert model.shown[0].shape == (64, 32)


def test_threshold_reaches_the_scorer() -> None:
    [report] = evaluate_model(
        make_pairs(), each(lambda frame: np.full(frame.shape, 0.4)), STRICT, threshold=0.3
    )
    assert report.threshold == 0.3
    assert report.false_alarms_per_image == 1


def test_a_frame_that_cannot_be_predicted_is_named_or_left_out() -> None:
    class Failing(Threshold):
        def many(self, frames: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any] | FrameError]:
            for frame in frames:
                found = self(frame)
                # The second frame, by the second protocol.
                yield FrameError("does not fit") if len(self.shown) == 4 else found

    rules = [PROTOCOLS["strict"], PROTOCOLS["mshnet256"]]
    first, (name, *_), third = make_pairs()
    with pytest.raises(FrameError, match=f"^{name}: does not fit"):
        evaluate_model(make_pairs(), Failing().many, rules)
    broken: list[str] = []
    reports = evaluate_model(make_pairs(), Failing().many, rules, on_broken=broken.append)
    assert broken == [f"{name}: does not fit"]
    assert reports == evaluate_model([first, third], each(Threshold()), rules)


def test_frames_that_are_taken_ahead_keep_their_masks() -> None:
    def three_at_once(frames: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        ahead = iter(frames)
        while batch := list(itertools.islice(ahead, 3)):
            yield from map(Threshold(), batch)

    rules = list(PROTOCOLS.values())
    assert evaluate_model(make_pairs(5), three_at_once, rules) == evaluate_model(
        make_pairs(5), each(Threshold()), rules
    )


def test_a_predictor_on_a_card_scores_as_one_on_the_cpu(on_card: Callable[..., Any]) -> None:
    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - 3

    card, rules = on_card(Bright()), [PROTOCOLS["strict"], PROTOCOLS["mshnet256"]]
    model = ModelCard(name="t", network={}, parameters=0)
    frames = make_pairs(5)
    frames[2] = (frames[2][0], np.full((45, 70), np.nan), frames[2][2])
    broken: list[str] = []
    reports = [
        evaluate_model(frames, Predictor(backend, model).probabilities, rules, 0.5, broken.append)
        for backend in (card, TorchBackend(Bright()))
    ]
    assert reports[0] == reports[1]
    assert (reports[0][0].images, reports[0][0].pd) == (4, 1)
    assert len(broken) == 2
    assert broken[0] == broken[1]
    assert {batch[0] for batch in card.batches} == {4}  # by protocol


def test_frame_and_mask_of_different_sizes_are_refused_by_name() -> None:
    [(name, frame, mask)] = make_pairs(1)
    with pytest.raises(DataError, match=r"mask of frame0 is 70 x 44 but the frame is 70 x 45"):
        evaluate_model([(name, frame, mask[1:])], each(Threshold()), STRICT)
