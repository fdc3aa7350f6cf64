"""The plug-in for ultralytics, against ultralytics itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pinglow.integrations.yolo import YoloDetector, gaussianize, use_box_loss
from pinglow.nn import GaussianConv2d, fold_kernels

pytest.importorskip("ultralytics", reason="needs ultralytics: pip install '.[detect]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # ultralytics' own, and its libraries'


def build(layout: str = "yolov8n-p2.yaml") -> Any:
    """A YOLO object whose normalization does something, as after training."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    yolo = YOLO(layout)
    for module in yolo.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return yolo


def outputs(network: Any, images: Tensor) -> Tensor:
    """What the shaped layers give: further on, untrained layers hardly pass a change on."""
    with torch.inference_mode():
        found: Tensor = network.eval().model[:3](images)
        return found


def shaped_layers(network: nn.Module) -> list[GaussianConv2d]:
    return [layer for layer in network.modules() if isinstance(layer, GaussianConv2d)]


IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_the_first_layers_are_shaped_and_outputs_stay() -> None:
    yolo = build()
    before = outputs(yolo.model, IMAGES)
    number = sum(each.numel() for each in yolo.model.parameters())
    paths = gaussianize(yolo)
    assert paths == [
        *("model.0.conv", "model.1.conv"),
        *("model.2.m.0.cv1.conv", "model.2.m.0.cv2.conv"),
    ]
    assert len(shaped_layers(yolo.model)) == 4
    torch.testing.assert_close(outputs(yolo.model, IMAGES), before, rtol=1e-4, atol=1e-4)
    # No free weights are added: sigma, theta and tau of each layer.
    assert sum(each.numel() for each in yolo.model.parameters()) == number + 3 * len(paths)


def test_without_keeping_outputs_the_gaussian_acts_at_once() -> None:
    yolo = build()
    before = outputs(yolo.model, IMAGES)
    gaussianize(yolo, keep_outputs=False)
    assert (outputs(yolo.model, IMAGES) - before).abs().max() > 0.05 * before.abs().max()


@pytest.mark.parametrize("orientation", ["none", "fixed", "learned", "max"])
def test_shaped_networks_fuse_and_fold_to_the_same_outputs(orientation: str) -> None:
    yolo = build()
    for module in yolo.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.005, 0.02)  # scales far from 1
    gaussianize(yolo, keep_outputs=False, orientation=orientation, arms=2, sigma=0.8)
    wanted = outputs(yolo.model, IMAGES)
    fused = copy.deepcopy(yolo.model).fuse(verbose=False)
    folded = fold_kernels(fused)  # in the order of the page: ultralytics cannot fuse a folded bank
    assert not shaped_layers(folded)
    for network in (fused, folded):
        torch.testing.assert_close(outputs(network, IMAGES), wanted, rtol=1e-3, atol=1e-3)
    with torch.inference_mode():
        assert torch.isfinite(folded(IMAGES)[0]).all()


def test_what_fusing_would_change_is_refused() -> None:
    with pytest.raises(ValueError, match="'steered' does not survive"):
        gaussianize(build(), orientation="steered")


def test_plain_weights_loaded_after_shaping_mean_what_they_did() -> None:
    """As yolo.load("plain.pt") does it: by intersecting the two states."""
    plain, yolo = build(), build()
    nn.init.normal_(plain.model.model[0].conv.weight)
    gaussianize(yolo)
    yolo.model.load(plain.model, verbose=False)
    torch.testing.assert_close(
        outputs(yolo.model, IMAGES), outputs(plain.model, IMAGES), rtol=1e-4, atol=1e-4
    )


def test_heads_with_losses_of_their_own_are_refused() -> None:
    from ultralytics import YOLO

    with pytest.raises(ValueError, match="ends in OBB has a loss of its own"):
        use_box_loss(YOLO("yolov8n-obb.yaml"), "sdb")


def test_where_chooses_and_a_second_call_changes_nothing() -> None:
    yolo = build("yolov8n.yaml")
    assert gaussianize(yolo, "model[.]0[.]conv") == ["model.0.conv"]
    layer = yolo.model.model[0].conv
    assert gaussianize(yolo, "model[.]0[.]conv") == ["model.0.conv"]
    assert yolo.model.model[0].conv is layer
    with pytest.raises(ValueError, match="'nowhere' matches no convolution"):
        gaussianize(yolo, "nowhere")


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear holds no network of ultralytics"):
        gaussianize(nn.Linear(1, 1))


# --- ultralytics' own trainer ----------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(yolo_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A shaped YOLOv8n-P2 after two epochs of ultralytics' training."""
    yolo = build()
    gaussianize(yolo)
    use_box_loss(yolo, "sdb")
    yolo.train(
        data=str(yolo_set),
        epochs=2,
        imgsz=64,
        batch=3,
        workers=0,
        device="cpu",
        project=str(tmp_path_factory.mktemp("runs")),
        name="run",
        plots=False,
        verbose=False,
        optimizer="AdamW",
        lr0=1e-3,
        warmup_epochs=0,
        mosaic=0.0,  # it drops boxes that it makes smaller than 2 px
        scale=0.0,
    )
    return yolo


def test_training_trains_the_shape_and_keeps_it(trained: Any) -> None:
    layers = shaped_layers(trained.model)
    assert len(layers) == 4
    # Half precision checkpoints: the start values, rounded, would be equal.
    start = GaussianConv2d(1, 1, 3, orientation="learned").kernel
    for name in ("log_sigma", "theta"):
        first = getattr(start, name).detach().half().float().flatten()
        assert all(getattr(layer.kernel, name).flatten() != first for layer in layers)


def test_a_saved_checkpoint_loads_and_predicts_the_same(trained: Any, yolo_set: Path) -> None:
    from ultralytics import YOLO

    again = YOLO(trained.ckpt_path or trained.trainer.best)
    assert len(shaped_layers(again.model)) == 4
    frame = sorted((yolo_set.parent / "images").glob("*.png"))[0]
    first, second = (
        each.predict(frame, imgsz=64, conf=0.0001, verbose=False, device="cpu")[0].boxes
        for each in (trained, again)
    )
    assert len(first) > 0
    torch.testing.assert_close(first.data, second.data, rtol=1e-4, atol=1e-3)


def test_a_checkpoint_is_trained_further_from_its_own_weights(
    trained: Any, yolo_set: Path, tmp_path: Path
) -> None:
    from ultralytics import YOLO

    again = YOLO(trained.trainer.best)
    gaussianize(again)
    wanted = {k: v.clone() for k, v in again.model.state_dict().items()}
    settings = {"data": str(yolo_set), "imgsz": 64, "batch": 3, "workers": 0, "device": "cpu"}
    again.train(
        **settings,
        epochs=1,
        project=str(tmp_path),
        plots=False,
        verbose=False,
        optimizer="SGD",
        lr0=0.0,
        warmup_epochs=0,
        val=False,
    )
    found = again.trainer.model.state_dict()
    assert found.keys() == wanted.keys()
    for key in wanted:
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(found[key], wanted[key], msg=key)


def test_validation_runs(trained: Any, yolo_set: Path, tmp_path: Path) -> None:
    scores = trained.val(
        data=str(yolo_set),
        imgsz=64,
        workers=0,
        device="cpu",
        plots=False,
        verbose=False,
        project=str(tmp_path),
    )
    assert 0 <= scores.box.map50 <= 1


def test_an_exported_model_finds_the_same(trained: Any, yolo_set: Path) -> None:
    from ultralytics import YOLO

    path = trained.export(format="onnx", imgsz=64, simplify=False, device="cpu")
    exported = YOLO(path, task="detect")
    frame = sorted((yolo_set.parent / "images").glob("*.png"))[0]
    first, second = (
        each.predict(frame, imgsz=64, conf=0.0001, verbose=False, device="cpu")[0].boxes
        for each in (trained, exported)
    )
    torch.testing.assert_close(
        first.data[:10], second.data[:10].to(first.data), rtol=1e-3, atol=0.2
    )


# --- the loss for boxes ----------------------------------------------------------------------


def loss_parts(box_loss: str) -> tuple[Tensor, Tensor]:
    """Box loss and the gradient that it gives the first layer, of a network that finds much."""
    torch.manual_seed(0)
    detector = YoloDetector("yolov8n").train()
    if box_loss != "own":
        use_box_loss(detector.network, box_loss)
    head = detector.network.model[-1]
    for branch in head.cv3:
        nn.init.constant_(branch[-1].bias, 2.0)  # confident, so that boxes count
    images = torch.randn(2, 1, 64, 64)
    batch = {
        "img": images,
        "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
        "cls": torch.zeros(3),
        "bboxes": torch.tensor([[0.3, 0.4, 0.2, 0.1], [0.8, 0.7, 0.1, 0.1], [0.5, 0.5, 0.3, 0.4]]),
    }
    total, _ = detector.network(batch)
    total[0].backward()
    return total[0].detach(), detector.network.model[0].conv.weight.grad


def test_our_ciou_is_ultralytics_own() -> None:
    own, gradient = loss_parts("own")
    ours, our_gradient = loss_parts("ciou")
    assert own > 0.01
    torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-2, atol=1e-4)


def test_the_detector_takes_the_loss_that_it_was_given() -> None:
    losses = []
    for name in ("own", "diff"):
        torch.manual_seed(0)
        detector = YoloDetector("yolov8n", box_loss=name).train()
        for branch in detector.network.model[-1].cv3:
            nn.init.constant_(branch[-1].bias, 2.0)
        images = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
        losses.append(float(detector.loss(images, [torch.tensor([[10.0, 12, 30, 40]])]).detach()))
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)
    with pytest.raises(ValueError, match="box_loss is 'giou'; use own, ciou, sdb, diff"):
        YoloDetector("yolov8n", box_loss="giou")


def test_other_box_losses_are_others() -> None:
    values = [float(loss_parts(name)[0]) for name in ("ciou", "sdb", "diff")]
    assert all(np.isfinite(values))
    assert len({round(value, 5) for value in values}) == 3
    with pytest.raises(ValueError, match="'giou' is unknown; use one of ciou, sdb, diff"):
        use_box_loss(build().model, "giou")


# --- the detector ----------------------------------------------------------


def test_the_detector_agrees_with_ultralytics_prediction() -> None:
    """Same network, same image: boxes as ultralytics' own decoding and suppression gives them."""
    from ultralytics.utils.nms import non_max_suppression

    torch.manual_seed(0)
    detector = YoloDetector("yolov8n-p2").eval()
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        found = detector(images)
        raw = detector.network(images)[0]
    kept = non_max_suppression(raw, conf_thres=0.0, iou_thres=1.0, max_det=10_000)[0]
    assert len(kept) == found.shape[1]
    # Near-ties may come in another order.
    nearest = (kept[:, None, :5] - found[0]).abs().amax(dim=2).amin(dim=1)
    assert float(nearest.max()) < 1e-3


def test_any_size_goes_in() -> None:
    torch.manual_seed(0)
    detector = YoloDetector("yolov8n").eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert detector(torch.randn(3, 1, 33, 70)).shape[::2] == (3, 5)
        assert detector(image).shape[1] == 8 * 8 + 4 * 4 + 2 * 2


def test_frames_without_targets_have_a_loss_with_a_gradient() -> None:
    detector = YoloDetector("yolov8n", gaussian=True).train()
    loss = detector.loss(torch.randn(2, 1, 64, 64), [torch.zeros(0, 4), torch.zeros(0, 4)])
    loss.backward()
    assert torch.isfinite(loss)
    assert detector.network.model[0].conv.weight.grad.abs().sum() > 0
