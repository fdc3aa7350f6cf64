"""The plug-in for torchvision's RetinaNet, against torchvision itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinglow.integrations.retinanet import (
    RetinaNetDetector,
    build_retinanet,
    gaussianize,
    use_box_loss,
)
from pinglow.nn import GaussianConv2d, fold_kernels

torchvision = pytest.importorskip(
    "torchvision", reason="needs torchvision: pip install '.[detect]'"
)
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, on export


@pytest.fixture(scope="module")
def large() -> Any:
    """torchvision's RetinaNet with a ResNet-50, as a user has it."""
    torch.manual_seed(0)
    build = torchvision.models.detection.retinanet_resnet50_fpn
    return build(weights=None, weights_backbone=None, num_classes=2).eval()


def features(model: Any, images: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model.backbone(images)["0"]
        return found


def test_torchvisions_own_is_shaped_keeps_its_outputs_and_folds(large: Any) -> None:
    images = torch.rand(1, 3, 64, 96)
    before = features(large, images)
    number = sum(each.numel() for each in large.parameters())
    # A 7 x 7 stem has taps between four arms, so that a mask changes outputs at once.
    paths = gaussianize(large, orientation="none")
    assert paths == ["backbone.body.conv1", *(f"backbone.body.layer1.{n}.conv2" for n in range(3))]
    torch.testing.assert_close(features(large, images), before, rtol=1e-3, atol=1e-4)
    assert sum(each.numel() for each in large.parameters()) == number + len(paths)
    folded = fold_kernels(large)
    assert not any(isinstance(layer, GaussianConv2d) for layer in folded.modules())
    torch.testing.assert_close(features(folded, images), before, rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        (found,) = large(list(images))
    assert set(found) == {"boxes", "labels", "scores"}


def test_anchors_have_the_sides_and_shapes_that_they_should() -> None:
    model = build_retinanet()
    anchors = torch.cat(model.anchor_generator.cell_anchors)  # (36, 4), about the origin
    width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    torch.testing.assert_close(anchors[:, :2], -anchors[:, 2:])
    sides = (width * height).sqrt().reshape(4, 3, 3)  # level, ratio, side
    wanted = [2 * 32 ** (step / 11) for step in range(12)]
    for ratio in range(3):
        torch.testing.assert_close(sides[:, ratio].flatten(), torch.tensor(wanted))
    ratios = (height / width).reshape(4, 3, 3)[0, :, 0]
    torch.testing.assert_close(ratios, torch.tensor([0.5, 1.0, 2.0]))


def test_candidates_are_torchvisions_own() -> None:
    """The same boxes as torchvision's inference, which decodes and suppresses by itself."""
    torch.manual_seed(0)
    detector = RetinaNetDetector("small").eval()
    detector.network.score_thresh = 0.0
    detector.network.nms_thresh = 1.0
    detector.network.detections_per_img = 10_000
    detector.network.topk_candidates = 10_000
    image = torch.randn(1, 1, 64, 128)
    with torch.inference_mode():
        found = detector(image)[0]
        (theirs,) = detector.network(list(image))
    inside = (found[:, :2] >= 0).all(1) & (found[:, 2] <= 128) & (found[:, 3] <= 64)
    ours = found[inside]
    boxes = torch.cat([theirs["boxes"], theirs["scores"][:, None]], dim=1)
    nearest = (ours[:100, None] - boxes).abs().amax(dim=2).amin(dim=1)
    assert float(nearest.max()) < 1e-3


@pytest.mark.parametrize(("height", "width"), [(50, 70), (66, 97)])
def test_anchors_keep_their_stride_whatever_the_size(height: int, width: int) -> None:
    """Candidates far from the right and lower edges are those of an image of a whole grid."""
    torch.manual_seed(0)
    detector = RetinaNetDetector("small").eval()
    nn.init.zeros_(detector.network.head.regression_head.bbox_reg.weight)  # boxes are the anchors
    with torch.inference_mode():
        found = detector(torch.zeros(1, 1, height, width))[0]
        whole = detector(torch.zeros(1, 1, 128, 128))[0]
    nearest = torch.cdist(
        found[:, :4], whole[:, :4], compute_mode="donot_use_mm_for_euclid_dist"
    ).amin(dim=1)
    assert float(nearest.max()) < 1e-3


def test_images_are_taken_as_they_are() -> None:
    model = build_retinanet().eval()
    images, _ = model.transform([torch.full((1, 50, 70), 3.0)])
    assert images.image_sizes == [(50, 70)]
    assert float(images.tensors[0, 0, :50, :70].min()) == 3.0


@pytest.mark.parametrize("box_loss", ["own", "ciou", "sdb", "diff"])
def test_training_finds_a_target(box_loss: str) -> None:
    """A bright square on a flat ground, over and over: its box becomes the best one."""
    torch.manual_seed(0)
    detector = RetinaNetDetector("small", gaussian=True, box_loss=box_loss).train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    images = torch.zeros(2, 1, 64, 64)
    images[0, 0, 20:25, 40:46] = 4.0
    boxes = [torch.tensor([[40.0, 20.0, 46.0, 25.0]]), torch.zeros(0, 4)]
    for _ in range(25):
        optimizer.zero_grad()
        loss = detector.loss(images, boxes)
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        # The normalization of the batches that it has seen.
        best = detector_in_use(detector)(images[:1])[0]
    box = best[best[:, 4].argmax(), :4]
    iou = torchvision.ops.box_iou(box[None], boxes[0])
    assert float(iou) > 0.5
    kernel = next(each for each in detector.modules() if isinstance(each, GaussianConv2d)).kernel
    assert kernel.theta.grad is not None


def detector_in_use(detector: RetinaNetDetector) -> RetinaNetDetector:
    """In eval mode, with the batch statistics of the last step."""
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        images = torch.zeros(2, 1, 64, 64)
        images[0, 0, 20:25, 40:46] = 4.0
        detector.loss(images, [torch.tensor([[40.0, 20.0, 46.0, 25.0]]), torch.zeros(0, 4)])
    return detector.eval()


def test_the_loss_is_the_mean_over_images_of_each_boxs_loss() -> None:
    """Against CIoU by torchvision's operator, on the matches that torchvision makes."""
    torch.manual_seed(0)
    model = build_retinanet().train()
    use_box_loss(model, "ciou")
    head = model.head.regression_head
    anchors = [torch.tensor([[0.0, 0, 4, 4], [4, 4, 9, 9], [20, 20, 30, 30]])] * 2
    offsets = torch.randn(2, 3, 4) * 0.1
    true = torch.tensor([[1.0, 1, 5, 5], [5, 5, 10, 8]])
    targets = [{"boxes": true}, {"boxes": torch.zeros(0, 4)}]
    matched = [torch.tensor([0, 1, -1]), torch.tensor([-1, -1, -1])]
    found = head.compute_loss(targets, {"bbox_regression": offsets}, anchors, matched)
    boxes = head.box_coder.decode_single(offsets[0, :2], anchors[0][:2])
    each = torchvision.ops.complete_box_iou_loss(boxes, true)
    torch.testing.assert_close(found, each.mean() / 2)


def test_a_frame_without_targets_has_a_loss_with_a_gradient() -> None:
    detector = RetinaNetDetector("small", gaussian=True, box_loss="diff").train()
    loss = detector.loss(torch.randn(2, 1, 64, 64), [torch.zeros(0, 4)] * 2)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    gradient = detector.network.backbone.body.conv1.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="body 'huge' is unknown; use small or resnet50"):
        build_retinanet("huge")
    with pytest.raises(ValueError, match="'giou' is unknown; use one of ciou, sdb, diff"):
        use_box_loss(build_retinanet(), "giou")
