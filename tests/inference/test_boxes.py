"""From a frame to boxes, with a detector whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pinglow.errors import FrameError, ModelError, OptionError
from pinglow.inference.boxes import BoxPredictor, find_boxes
from pinglow.inference.predictor import Predictor
from pinglow.models.card import ModelCard
from pinglow.models.registry import build_network
from pinglow.models.weights import load_network, save_model
from pinglow.nn import fold_kernels
from pinglow.preprocess import InputRule

pytest.importorskip("torchvision", reason="needs torchvision: pip install '.[detect]'")

pytestmark = pytest.mark.usefixtures("one_thread", "offline_detectors")

AS_IT_IS = InputRule(long_side=32, max_scale=1)


class BrightPixels(nn.Module):
    """A box of 3 x 3 pixels about every pixel of an image; its score is above 0 if bright."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        self.sizes.append((height, width))
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        score = (images[0, 0] / 10).clamp(0, 1)
        return torch.stack([x - 1, y - 1, x + 2, y + 2, score], dim=2).reshape(1, -1, 5)

    def loss(self, images: Tensor, boxes: list[Tensor]) -> Tensor:
        return images.sum()


def starry(height: int, width: int, stars: list[tuple[int, int]]) -> np.ndarray:
    """A noisy frame with bright pixels (row, column)."""
    frame = np.random.default_rng(0).normal(1000, 10, (height, width))
    for row, column in stars:
        frame[row, column] = 30_000
    return frame.astype(np.uint16)


def test_boxes_lie_where_the_bright_pixels_are() -> None:
    found = find_boxes(
        BrightPixels(), starry(80, 120, [(20, 100), (50, 7)]), AS_IT_IS, least_score=0.5
    )
    assert sorted(found.boxes.tolist()) == [[6, 49, 3, 3], [99, 19, 3, 3]]
    assert sorted((target.x, target.y) for target in found.targets) == [(7, 50), (100, 20)]
    assert {target.bbox for target in found.targets} == {(6, 49, 3, 3), (99, 19, 3, 3)}
    assert all(target.area == 9 for target in found.targets)


def test_boxes_at_the_border_are_cut_to_the_frame() -> None:
    found = find_boxes(
        BrightPixels(), starry(80, 120, [(0, 0), (79, 119)]), AS_IT_IS, least_score=0.5
    )
    assert sorted(found.boxes.tolist()) == [[0, 0, 2, 2], [118, 78, 2, 2]]


def test_an_enlarged_frame_gives_boxes_in_its_own_pixels() -> None:
    frame = starry(60, 60, [])
    frame[30:32, 40:42] = 30_000
    found = find_boxes(
        BrightPixels(), frame, InputRule(long_side=120, max_scale=2), least_score=0.5
    )
    center = found.boxes[:, :2] + found.boxes[:, 2:] / 2
    assert len(center) >= 1
    assert np.abs(center - [41, 31]).max() <= 1


def test_overlapping_boxes_are_one_target_and_the_best_comes_first() -> None:
    frame = starry(64, 64, [])
    frame[10, 10], frame[10, 11], frame[40, 40] = 20_000, 30_000, 5_000
    found = find_boxes(BrightPixels(), frame, AS_IT_IS, least_score=0.3)
    assert found.boxes.tolist() == [[10, 9, 3, 3], [39, 39, 3, 3]]
    assert found.scores[0] > found.scores[1]


def test_tiles_find_what_the_whole_frame_finds() -> None:
    rng = np.random.default_rng(1)
    stars = [(int(r), int(c)) for r, c in rng.integers(0, (700, 900), (40, 2))]
    frame = starry(700, 900, stars)
    whole, tiled = BrightPixels(), BrightPixels()
    wanted = find_boxes(whole, frame, AS_IT_IS, least_score=0.5, tile=1024)
    found = find_boxes(tiled, frame, AS_IT_IS, least_score=0.5, tile=256)
    assert len(whole.sizes) == 1
    assert len(tiled.sizes) > 9
    assert max(max(size) for size in tiled.sizes) <= 256
    assert sorted(found.boxes.tolist()) == sorted(wanted.boxes.tolist())
    assert len(found.boxes) > 35


def test_a_tiny_frame_has_no_boxes_outside_itself() -> None:
    frame = starry(9, 12, [(4, 5)])
    found = find_boxes(BrightPixels(), frame, AS_IT_IS, least_score=0.5)
    assert found.boxes.tolist() == [[4, 3, 3, 3]]  # not its reflections in the padding


def test_a_flat_frame_has_no_targets() -> None:
    found = find_boxes(BrightPixels(), np.full((64, 64), 7, np.uint8), AS_IT_IS)
    assert found.boxes.shape == (0, 4)
    assert found.targets == ()


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="shape \\(3, 64, 64\\)"):
        find_boxes(BrightPixels(), np.zeros((3, 64, 64)), AS_IT_IS)


def test_pixels_that_a_masked_array_hides_are_no_targets() -> None:
    card = ModelCard(name="stars", network={}, parameters=0, threshold=0.3, input_rule=AS_IT_IS)
    predictor = BoxPredictor(BrightPixels(), card)
    frame = starry(80, 120, [(20, 100), (50, 7)])
    hidden = np.zeros(frame.shape, dtype=np.bool_)
    hidden[50, 7] = True
    assert len(predictor(frame).boxes) == 2
    assert predictor(np.ma.masked_array(frame, hidden)).boxes.tolist() == [[99, 19, 3, 3]]
    with pytest.raises(FrameError, match="a list cannot be used as a frame"):
        predictor([[1, 2], [3]])  # type: ignore[arg-type]


class OutOfMemory(BrightPixels):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")


def test_a_frame_that_does_not_fit_into_memory_is_left_out() -> None:
    with pytest.raises(FrameError, match="64 x 64 pixels does not fit into memory"):
        find_boxes(OutOfMemory(), starry(64, 64, []), AS_IT_IS)
    card = ModelCard(name="stars", network={}, parameters=0, input_rule=AS_IT_IS)
    (found,) = BoxPredictor(OutOfMemory(), card).candidates([starry(64, 64, [])])
    assert isinstance(found, FrameError)
    assert found.__traceback__ is None


def test_half_precision_around_it_does_not_round_boxes() -> None:
    torch.manual_seed(0)
    detector = build_network({"type": "retinanet-small"}).eval()
    frame = starry(64, 600, [(20, 500)])
    wanted = find_boxes(detector, frame, AS_IT_IS)
    with torch.autocast("cpu", torch.bfloat16):
        found = find_boxes(detector, frame, AS_IT_IS)
    np.testing.assert_array_equal(found.boxes, wanted.boxes)


# --- weights ---------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = {"type": "retinanet-small", "gaussian": True, "box_loss": "sdb"}
    card = ModelCard(name="d", network=config, parameters=1, threshold=0.3, input_rule=AS_IT_IS)
    path = tmp_path / "detector.safetensors"
    save_model(path, build_network(config), card)
    return path


def test_weights_load_folded_and_find_the_same(weights: Path) -> None:
    predictor = Predictor.load(weights)
    network, card = predictor.network, predictor.card
    assert not [key for key in network.state_dict() if "kernel" in key]
    torch.manual_seed(0)
    again = build_network(card.network).eval()
    frame = starry(64, 64, [(20, 30)])
    found, wanted = (find_boxes(each, frame, AS_IT_IS) for each in (network, again))
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)


def test_the_predictor_takes_the_cards_smallest_score(weights: Path) -> None:
    assert Predictor.load(weights).min_score == 0.3
    predictor = Predictor.load(weights, min_score=0.0)
    frame = starry(64, 64, [(20, 30)])
    found, (candidates,) = predictor(frame), predictor.candidates([frame])
    assert len(found.boxes) == len(candidates.boxes)
    (again,) = predictor.many([frame])
    np.testing.assert_array_equal(found.boxes, again.boxes)
    with pytest.raises(OptionError, match=r"min_score is 1\.0"):
        Predictor.load(weights, min_score=1.0)


def test_the_card_says_which_kind_of_model_a_file_is(weights: Path, small_model: Path) -> None:
    assert isinstance(Predictor.load(weights), BoxPredictor)
    assert Predictor.load(weights).kind == "boxes"
    assert Predictor.load(small_model, backend="torch").kind == "pixels"


@pytest.mark.parametrize(
    ("option", "value"), [("flips", True), ("backend", "onnxruntime"), ("precision", "tf32")]
)
def test_what_a_detector_cannot_do_is_refused(weights: Path, option: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"{option} .* is not for .*detector.safetensors"):
        Predictor.load(weights, **{option: value})  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["yolov8n-p2", "retinanet-small"])
def test_a_real_card_finds_the_boxes_that_the_cpu_finds(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "detector.safetensors"
    config = {"type": kind}
    card = ModelCard(name="d", network=config, parameters=1, input_rule=AS_IT_IS)
    save_model(path, build_network(config), card)
    frame = starry(96, 64, [(20, 30), (50, 60)])
    found, wanted = (
        next(Predictor.load(path, device=name).candidates([frame])) for name in ("cuda", "cpu")
    )
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-2)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_a_detector_exports_to_onnx_and_computes_the_same(tmp_path: Path) -> None:
    """RetinaNet does in tests/integrations/test_examples.py."""
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="needs ONNX Runtime: pip install '.[export]'"
    )
    torch.manual_seed(0)
    detector = fold_kernels(build_network({"type": "yolov8n-p2", "gaussian": True}).eval())
    images = torch.randn(1, 1, 64, 96)
    path = str(tmp_path / "detector.onnx")
    torch.onnx.export(detector, (images,), path, input_names=["images"], dynamo=True)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})
    with torch.inference_mode():
        wanted = detector(images)
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-3, atol=1e-3)


def test_models_of_the_other_kind_are_refused(weights: Path, small_model: Path) -> None:
    with pytest.raises(ModelError, match="finds pixels, where a model that finds boxes"):
        BoxPredictor.load(small_model)
    with pytest.raises(ModelError, match="finds boxes, where a model that finds pixels"):
        load_network(weights)
