from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from pinglow.backends.device import CPU
from pinglow.backends.opening import open_model
from pinglow.backends.torch import TorchBackend
from pinglow.data.synthetic.scenes import SceneSpec, render_scene, target_signal
from pinglow.errors import FrameError, ModelError, OptionError
from pinglow.inference.predictor import Predictor
from pinglow.inference.probability import predict_probabilities, predict_probability
from pinglow.models.card import ModelCard
from pinglow.models.registry import build_network
from pinglow.models.weights import load_network, save_model
from pinglow.preprocess import InputRule, normalize_frame
from pinglow.structures import find_targets

CONFIG: dict[str, Any] = {
    "type": "PinwheelUNet",
    "in_channels": 1,
    "widths": [4, 8, 8],
    "depths": [1, 1, 1],
    "attention": "learned",
    "patch": 2,
}


def make_card(**changes: Any) -> ModelCard:
    return ModelCard.model_validate({"name": "t", "network": CONFIG, "parameters": 1} | changes)


def make_network(seed: int = 0, **changes: Any) -> nn.Module:
    """A network whose probabilities are spread over 0 to 1."""
    torch.manual_seed(seed)
    network = build_network(CONFIG | changes).train()
    with torch.no_grad():
        for _ in range(5):  # settle BatchNorm
            network(torch.randn(4, 1, 64, 64))
    network.eval()
    logits = network(torch.randn(4, 1, 64, 64)).detach()
    assert isinstance(network.fuse, nn.Conv2d)
    assert network.fuse.bias is not None
    with torch.no_grad():
        factor = 2 / logits.std()
        network.fuse.bias -= logits.mean()
        network.fuse.bias *= factor
        network.fuse.weight *= factor
    return network


def make_frame(height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    return rng.normal(6000, 100, (height, width)).astype(np.uint16)


class Brightness(nn.Module):
    """Finds what stands out: logits from the normalized value of the pixel alone."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) to the same shape."""
        assert x.shape[-2] >= 32
        assert x.shape[-1] >= 32
        return 4 * (x - 2.5)


@pytest.mark.parametrize(
    "shape", [(5, 7), (1, 1), (1, 200), (200, 1), (31, 33), (97, 101), (64, 64), (2, 600)]
)
@pytest.mark.parametrize("max_scale", [1.0, 1.37, 2.0])
def test_the_output_has_the_size_of_the_frame(shape: tuple[int, int], max_scale: float) -> None:
    card = make_card(input_rule=InputRule(long_side=512, max_scale=max_scale))
    probability = Predictor(TorchBackend(make_network()), card).probability(make_frame(*shape))
    assert probability.shape == shape
    assert probability.dtype == np.float32
    assert (probability >= 0).all()
    assert (probability <= 1).all()


def test_at_scale_1_it_is_the_network_on_the_normalized_frame() -> None:
    network, frame = make_network(), make_frame(70, 90)
    found = predict_probability(TorchBackend(network), frame, InputRule(max_scale=1))
    with torch.inference_mode():
        image = torch.from_numpy(normalize_frame(frame))[None, None]
        expected = torch.sigmoid(network(image))[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.std() > 0.05


def test_a_frame_as_long_as_the_rule_is_not_enlarged() -> None:
    network, frame = TorchBackend(make_network()), make_frame(64, 96)
    found = predict_probability(network, frame, InputRule(long_side=96, max_scale=2))
    plain = predict_probability(network, frame, InputRule(max_scale=1))
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("max_scale", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("shape", [(60, 80), (14, 17), (40, 20)])
def test_targets_stay_where_they_are(shape: tuple[int, int], max_scale: float) -> None:
    frame = make_frame(*shape)
    frame[3:6, 4:7] += 5000
    card = make_card(input_rule=InputRule(max_scale=max_scale))
    prediction = Predictor(TorchBackend(Brightness()), card)(frame)
    best = prediction.targets[0]
    assert (best.x, best.y) == pytest.approx((5, 4), abs=0.25)
    assert 5 <= best.area <= 13
    assert best.score > 0.9
    assert prediction.mask.shape == shape


def test_a_frame_of_the_other_bit_depth_has_the_same_targets() -> None:
    rng = np.random.default_rng(1)
    frame = rng.normal(90, 12, (60, 80)).clip(0, 255).astype(np.uint8)
    frame[20:23, 30:33] = 250
    predictor = Predictor(TorchBackend(make_network()), make_card())
    narrow, wide = predictor(frame), predictor(frame.astype(np.uint16) * 257)
    np.testing.assert_allclose(narrow.probability, wide.probability, atol=1e-4)
    bright = Predictor(TorchBackend(Brightness()), make_card(input_rule=InputRule(max_scale=1)))
    targets = bright(frame).targets
    assert targets
    again = bright(frame.astype(np.uint16) * 257).targets
    assert [(t.x, t.y, t.area) for t in again] == [(t.x, t.y, t.area) for t in targets]


@pytest.mark.parametrize("attention", ["fixed", "learned", "max", "steered", "free"])
def test_a_loaded_model_is_folded_and_equal(tmp_path: Path, attention: str) -> None:
    path = tmp_path / "m.safetensors"
    config = CONFIG | {"attention": attention}
    save_model(path, make_network(attention=attention), make_card(network=config))
    network, card = load_network(path)
    frame = make_frame(50, 61)
    unfolded = Predictor(TorchBackend(network), card).probability(frame)
    # Kernels and batch normalization: a float32's rounding, through all layers.
    np.testing.assert_allclose(
        Predictor.load(path, backend="torch").probability(frame), unfolded, atol=1e-5
    )
    assert unfolded.std() > 0.01


def test_without_a_calibration_the_cards_threshold_decides(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    network, frame = make_network(), make_frame(60, 60)
    probability = Predictor(TorchBackend(network), make_card()).probability(frame)
    high = float(np.percentile(probability, 90))
    save_model(path, network, make_card(threshold=high))
    found = Predictor.load(path, backend="torch")(frame)
    assert (found.threshold, found.min_score) == (high, high)
    np.testing.assert_array_equal(found.mask, found.probability > high)
    assert found.targets == find_targets(found.mask, found.probability)
    surer = Predictor.load(path, backend="torch", min_score=0.999)(frame)
    assert (surer.threshold, surer.targets) == (high, ())


@pytest.mark.parametrize("score", [1.0, -0.1, float("nan"), float("inf")])
def test_an_impossible_smallest_score_is_refused(score: float) -> None:
    with pytest.raises(OptionError, match=r"min_score is .*; use a value from 0 to below 1"):
        Predictor(TorchBackend(Brightness()), make_card(), score)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5,), (3, 5, 3), ()])
def test_a_frame_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FrameError, match="cannot be used; pass one"):
        Predictor(TorchBackend(Brightness()), make_card())(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_frame_of_one_finite_value_has_no_targets(value: float) -> None:
    frame = np.full((40, 50), value, dtype=np.float32)
    frame[3, 4] = 0
    prediction = Predictor(TorchBackend(Brightness()), make_card())(frame)
    assert np.isfinite(prediction.probability).all()
    assert prediction.targets == ()


def test_dead_pixels_do_not_hide_a_target() -> None:
    frame = make_frame(40, 50).astype(np.float32)
    frame[10:13, 20:23] += 5000
    frame[0, :5] = np.nan
    prediction = Predictor(TorchBackend(Brightness()), make_card())(frame)
    assert np.isfinite(prediction.probability).all()
    assert (prediction.targets[0].x, prediction.targets[0].y) == pytest.approx((21, 11), abs=0.2)


def test_the_frame_is_not_changed_and_the_result_repeats() -> None:
    frame = make_frame(40, 50)
    before = frame.copy()
    predictor = Predictor(TorchBackend(make_network()), make_card())
    first, second = predictor.probability(frame), predictor.probability(frame)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("view", [np.s_[::-1, ::2], np.s_[:, ::-1]])
def test_a_view_of_a_frame_is_read_like_its_copy(view: Any) -> None:
    frame = make_frame(60, 80)[view]
    predictor = Predictor(TorchBackend(make_network()), make_card())
    np.testing.assert_array_equal(predictor.probability(frame), predictor.probability(frame.copy()))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ModelError, match="'gone'"):
        Predictor.load("gone")


def test_what_is_no_frame_is_refused() -> None:
    predictor = Predictor(TorchBackend(make_network()), make_card())
    with pytest.raises(FrameError, match=r"as pinglow\.read_frame returns it"):
        predictor("frame.png")  # type: ignore[arg-type]
    with pytest.raises(FrameError, match="single finite pixel"):
        predictor(np.full((40, 40), np.inf))


@pytest.mark.parametrize(
    "frame",
    [
        [[1, 2], [3]],
        torch.ones(40, 40, requires_grad=True),
        torch.ones(40, 40, dtype=torch.bfloat16),
    ],
)
def test_what_is_no_array_is_refused(frame: Any) -> None:
    predictor = Predictor(TorchBackend(make_network()), make_card())
    with pytest.raises(FrameError, match=r"a (list|Tensor) cannot be used as a frame"):
        predictor(frame)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_pixels_that_a_masked_array_hides_are_no_numbers(dtype: str) -> None:
    predictor = Predictor(TorchBackend(make_network()), make_card(), flips=True)
    counts = (make_frame(48, 64) % 200).astype(dtype)
    hidden = np.zeros(counts.shape, dtype=np.bool_)
    hidden[5:20, 8:30] = True
    expected = predictor.probability(np.where(hidden, np.nan, counts))
    found = predictor.probability(np.ma.masked_array(counts, hidden))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - predictor.probability(counts)).max() > 1e-3
    whole = predictor.probability(np.ma.masked_array(counts))
    np.testing.assert_array_equal(whole, predictor.probability(counts))


def test_a_frame_beyond_memory_is_a_frame_error() -> None:
    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("a bug")

    frame = make_frame(40, 50)
    with pytest.raises(FrameError, match="50 x 40 pixels does not fit into memory"):
        predict_probability(TorchBackend(Full()), frame, InputRule())
    with pytest.raises(RuntimeError, match="a bug"):
        predict_probability(TorchBackend(Broken()), frame, InputRule())


@pytest.fixture(scope="module")
def fast() -> dict[int | None, Predictor]:
    """Return the shipped model, in tiles of 256 pixels and without tiles."""
    backend, card = open_model("pinglow-fast", "torch")
    return {tile: Predictor(backend, card, tile=tile) for tile in (256, None)}


@given(
    # Both of the first tile's inner borders lie at 192.
    y=st.integers(180, 204),
    x=st.integers(180, 204),
    length=st.floats(0, 6),
    angle=st.floats(0, 180),
    kind=st.sampled_from(["cloud", "sea", "ground", "gradient"]),
    seed=st.integers(0, 100),
)
@settings(max_examples=6, deadline=None)
def test_a_target_on_a_tiles_border_is_found_as_without_tiles(
    fast: dict[int | None, Predictor],
    y: int,
    x: int,
    length: float,
    angle: float,
    kind: str,
    seed: int,
) -> None:
    spec = SceneSpec(kind=kind, width=640, height=500, targets=(0, 0))
    frame = render_scene(spec, seed).frame
    spot = target_signal(frame.shape, x, y, length, angle, 1.0)
    frame = (frame + 25 * frame.std() * spot).clip(0, 16383).astype(np.uint16)
    tiled, whole = fast[256](frame), fast[None](frame)
    near = [
        [target for target in prediction.targets if np.hypot(target.x - x, target.y - y) < 8]
        for prediction in (tiled, whole)
    ]
    assert len(near[0]) == len(near[1]) > 0
    for found, expected in zip(*near, strict=True):
        assert found.x == pytest.approx(expected.x, abs=0.5)
        assert found.y == pytest.approx(expected.y, abs=0.5)
        assert abs(found.area - expected.area) <= max(2, 0.1 * expected.area)
    np.testing.assert_allclose(tiled.probability, whole.probability, atol=0.05)


def test_targets_on_borders_of_a_frame_beyond_the_windows_are_found_as_without_tiles(
    fast: dict[int | None, Predictor],
) -> None:
    # Over four megapixels, where the attention is that of windows.
    frame = render_scene(SceneSpec("cloud", 2200, 2000, targets=(0, 0)), 3).frame
    signal = np.zeros(frame.shape)
    for place, offset in enumerate(range(-12, 13)):  # around the first inner borders: 960
        spot = target_signal((41, 41), 20, 20, place % 5, 37.0 * place, 1.0)
        along = 40 + 72 * place
        for y, x in ((940 + offset, along), (along + 36, 940 + offset)):
            signal[y : y + 41, x : x + 41] += spot
    frame = (frame + 25 * frame.std() * signal).clip(0, 16383).astype(np.uint16)
    whole = fast[None]
    tiled = Predictor(whole.backend, whole.card)(frame)
    expected = whole(frame)
    assert len(tiled.targets) == len(expected.targets) > 40
    for found, target in zip(tiled.targets, expected.targets, strict=True):
        assert found.x == pytest.approx(target.x, abs=0.5)
        assert found.y == pytest.approx(target.y, abs=0.5)
        assert abs(found.area - target.area) <= max(2, 0.1 * target.area)


@pytest.mark.parametrize("shape", [(420, 700), (20, 9000), (9000, 20)])
@pytest.mark.parametrize("max_scale", [1.0, 1.3, 2.0])
def test_tiles_change_nothing_at_any_scale(shape: tuple[int, int], max_scale: float) -> None:
    backend = TorchBackend(make_network())
    card = make_card(input_rule=InputRule(long_side=8192, max_scale=max_scale))
    frame = make_frame(*shape)
    tiled = Predictor(backend, card, tile=256).probability(frame)
    whole = Predictor(backend, card, tile=None).probability(frame)
    np.testing.assert_allclose(tiled, whole, atol=1e-4)
    assert whole.std() > 0.05


def test_a_large_frames_memory_is_that_of_a_tile() -> None:
    largest = 0

    class Watch:
        name = "watch"
        device = CPU

        def __call__(self, images: Any, gates: Any = None) -> Any:
            nonlocal largest
            largest = max(largest, images.size)
            assert gates.shape == (1, 3)
            return np.full_like(images, 0.25)

        def gates(self, images: Any) -> Any:
            nonlocal largest
            largest = max(largest, images.size)
            return np.ones((len(images), 3), dtype=np.float32)

    frame = np.zeros((3000, 4000), dtype=np.uint16)
    card = make_card(input_rule=InputRule(max_scale=1))
    probability = Predictor(Watch(), card).probability(frame)
    assert largest == 1024**2
    assert (probability == 0.25).all()


def test_flips_are_the_mean_over_mirror_images_and_know_no_direction() -> None:
    backend, card = TorchBackend(make_network()), make_card()
    once, flipped = Predictor(backend, card), Predictor(backend, card, flips=True)
    frame = make_frame(50, 60)
    views = [
        once.probability(frame),
        once.probability(frame[::-1])[::-1],
        once.probability(frame[:, ::-1])[:, ::-1],
        once.probability(frame[::-1, ::-1])[::-1, ::-1],
    ]
    assert np.std(views, axis=0).max() > 0.01
    np.testing.assert_allclose(flipped.probability(frame), np.mean(views, axis=0), atol=1e-6)
    mirrored = flipped.probability(frame[::-1, ::-1])[::-1, ::-1]
    np.testing.assert_allclose(mirrored, flipped.probability(frame), atol=1e-6)


def test_flips_of_an_upright_model_are_from_left_to_right() -> None:
    backend, card = TorchBackend(make_network()), make_card(upright=True)
    once, flipped = Predictor(backend, card), Predictor(backend, card, flips=True)
    frame = make_frame(50, 60)
    both = [once.probability(frame), once.probability(frame[:, ::-1])[:, ::-1]]
    assert np.std(both, axis=0).max() > 0.01
    np.testing.assert_allclose(flipped.probability(frame), np.mean(both, axis=0), atol=1e-6)


def test_a_tile_that_is_too_small_is_refused() -> None:
    with pytest.raises(OptionError, match="tile is 100; use at least 256"):
        Predictor(TorchBackend(Brightness()), make_card(), tile=100)


# --- many frames ---------------------------------------------------------------------------------

SHAPES = [(40, 50), (50, 40), (20, 37)]
OnCard = Callable[..., Any]


@pytest.fixture(scope="module")
def settled() -> nn.Module:
    """Return one network for many examples."""
    return make_network()


@given(
    shapes=st.lists(st.sampled_from(SHAPES), max_size=6),
    flips=st.booleans(),
    card=st.booleans(),
    scale=st.sampled_from([1.0, 1.6]),
)
@settings(max_examples=15, deadline=None)
def test_many_frames_are_as_one_by_one(
    on_card: OnCard,
    settled: nn.Module,
    shapes: list[tuple[int, int]],
    flips: bool,
    card: bool,
    scale: float,
) -> None:
    backend = on_card(settled) if card else TorchBackend(settled)
    model_card = make_card(input_rule=InputRule(max_scale=scale))
    predictor = Predictor(backend, model_card, flips=flips)
    frames = [make_frame(*shape, seed) for seed, shape in enumerate(shapes)]
    found = list(predictor.many(frames))
    single = Predictor(TorchBackend(settled), model_card, flips=flips)
    assert len(found) == len(frames)
    for prediction, frame in zip(found, frames, strict=True):
        expected = single.probability(frame)
        # Another batch may be summed in another order.
        np.testing.assert_allclose(prediction.probability, expected, rtol=0, atol=1e-5 * card)


def test_on_a_card_frames_of_one_size_share_a_batch_up_to_a_large_frames_pixels(
    on_card: OnCard,
) -> None:
    backend = on_card(Brightness())
    rule = InputRule(long_side=512, max_scale=2)
    frames = [make_frame(256, 256, seed) for seed in range(18)]
    list(Predictor(backend, make_card(input_rule=rule)).many(frames))
    assert backend.batches == [(16, 1, 512, 512), (2, 1, 512, 512)]
    backend.batches.clear()
    # A smaller tile bounds the memory of a batch, too.
    list(Predictor(backend, make_card(input_rule=rule), tile=256).many(frames[:3]))
    assert backend.batches == [(1, 1, 512, 512)] * 3
    backend.batches.clear()
    others = [make_frame(128, 256, seed) for seed in range(2)]
    mixed = [frames[0], others[0], frames[1], others[1]]
    list(Predictor(backend, make_card(input_rule=rule)).many(mixed))
    assert sorted(backend.batches) == [(2, 1, 256, 512), (2, 1, 512, 512)]


def test_on_a_card_frames_in_tiles_go_one_by_one(on_card: OnCard) -> None:
    backend = on_card(make_network())
    frames = [make_frame(520, 540, seed) for seed in range(2)]
    rule = InputRule(max_scale=1)
    tiled = predict_probabilities(backend, frames, rule, tile=256)
    assert {batch[0] for batch in backend.batches} == {1}
    assert len(backend.batches) > 4
    for found, frame in zip(tiled, frames, strict=True):
        expected = predict_probability(TorchBackend(make_network()), frame, rule, tile=256)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("card", "ahead"), [(False, 1), (True, 4)])
def test_frames_are_taken_no_further_ahead_than_a_batch(
    on_card: OnCard, card: bool, ahead: int
) -> None:
    taken = 0

    def frames() -> Iterator[NDArray[np.uint16]]:
        nonlocal taken
        for seed in range(9):
            taken += 1
            yield make_frame(1024, 1024, seed)

    backend = on_card(Brightness()) if card else TorchBackend(Brightness())
    results = Predictor(backend, make_card()).many(frames())
    assert taken == 0
    next(results)
    assert taken == ahead


def test_a_result_that_is_kept_does_not_keep_its_batch(on_card: OnCard) -> None:
    frames = [make_frame(64, 64, seed) for seed in range(8)]
    found = list(Predictor(on_card(Brightness()), make_card()).many(frames))
    for prediction in found:
        base = prediction.probability.base
        assert base is None or base.nbytes <= prediction.probability.nbytes


class Small(nn.Module):
    """Has memory for two images at most, and none at all for bright ones."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2 or x.max() > 5:
            raise self.error
        return x


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously"),
    RuntimeError(
        "[ONNXRuntimeError] : 6 : BFCArena::AllocateRawInternal Failed to allocate memory"
    ),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:30])
def test_a_batch_beyond_a_cards_memory_is_computed_frame_by_frame(
    on_card: OnCard, error: Exception
) -> None:
    frames = [make_frame(48, 64, seed) for seed in range(5)]
    frames[3][5, 5] = 60000  # too bright
    backend = on_card(Small(error))
    predictor = Predictor(backend, make_card(input_rule=InputRule(max_scale=1)))
    found = list(predictor.probabilities(frames))
    assert backend.batches == [(5, 1, 48, 64), *[(1, 1, 48, 64)] * 5]
    assert [isinstance(each, FrameError) for each in found] == [False, False, False, True, False]
    assert "64 x 48 pixels does not fit into memory" in str(found[3])
    assert found[3].__traceback__ is None  # it would keep what was in the way
    assert found[3].__cause__ is None
    with pytest.raises(FrameError, match="64 x 48 pixels does not fit into memory"):
        predictor(frames[3])


def test_many_raises_at_the_frame_that_cannot_be_used_and_not_before(on_card: OnCard) -> None:
    frames = [make_frame(48, 64), np.full((48, 64), np.nan), make_frame(48, 64)]
    predictor = Predictor(on_card(Brightness()), make_card())
    results = predictor.many(frames)
    next(results)
    with pytest.raises(FrameError, match="single finite pixel"):
        next(results)
    found = list(predictor.probabilities([*frames, "no frame"]))  # type: ignore[list-item]
    assert [isinstance(each, FrameError) for each in found] == [False, True, False, True]


needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_card
def test_a_real_card_finds_what_the_cpu_finds() -> None:
    cpu = Predictor.load("pinglow-fast", backend="torch", device="cpu")
    card = Predictor.load("pinglow-fast", backend="torch", device="cuda")
    scenes = [render_scene(SceneSpec("cloud", 320, 256), seed).frame for seed in range(20)]
    for found, frame in zip(card.many(scenes), scenes, strict=True):
        expected = cpu(frame)
        np.testing.assert_allclose(found.probability, expected.probability, atol=1e-4)
    large = render_scene(SceneSpec("cloud", 1100, 1000), 3).frame
    for tile in (256, 1024):
        card.tile = cpu.tile = tile
        np.testing.assert_allclose(card.probability(large), cpu.probability(large), atol=1e-4)


@needs_card
def test_a_frame_beyond_a_real_cards_memory_is_a_frame_error() -> None:
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return torch.empty(2**42, device=x.device)

    predictor = Predictor(TorchBackend(Greedy().cuda()), make_card())
    with pytest.raises(FrameError, match="does not fit into memory"):
        predictor(make_frame(64, 64))
