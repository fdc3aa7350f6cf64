"""The Gaussian × pinwheel convolution in torchvision's RetinaNet, and one for tiny targets.

Sources: arXiv 2604.09991 (its convolution in RetinaNet); RetinaNet, https://arxiv.org/abs/1708.02002.
Which layers, the anchors and the small network are ours.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pinglow.extras import import_extra
from pinglow.losses.box import BOX_LOSSES
from pinglow.nn import shape_convolutions

FIRST_LAYERS: Final = r"backbone[.]body[.](conv1|layer1[.].*)"
"""The stem and the first stage of a ResNet."""

_SIZES: Final = (2.0, 64.0)  # sides of the smallest and the largest anchor, pixels
_RATIOS: Final = (0.5, 1.0, 2.0)
_SCALES: Final = 3  # anchors of one shape a level
_WIDTHS: Final = (32, 32, 64, 128, 128)  # stem and four stages of the small body
_MULTIPLE: Final = 64  # pixels; of the strides of all levels
_PYRAMID: Final = 64  # channels of its pyramid and heads


def gaussianize(
    model: nn.Module,
    where: str = FIRST_LAYERS,
    *,
    keep_outputs: bool = True,
    orientation: str = "learned",
    **shape: Any,
) -> list[str]:
    """Put GaussianConv2d into the place of chosen convolutions of a RetinaNet, in place.

    Args:
        model: As ``torchvision.models.detection.retinanet_resnet50_fpn`` makes it, or
            `build_retinanet`.
        where: A regular expression that the whole path of a layer has to match; paths as in
            model.named_modules().
        keep_outputs: See `pinglow.nn.GaussianConv2d.from_conv`.
        orientation: See `pinglow.nn.GaussianConv2d`.
        **shape: arms, clip, sigma of the same.

    Returns:
        The paths of the shaped convolutions.

    Raises:
        ValueError: It is no RetinaNet, no convolution matches, or one cannot be shaped so.
    """
    if not isinstance(getattr(model, "backbone", None), nn.Module):
        raise ValueError(
            f"{type(model).__name__} is no RetinaNet of torchvision; for ultralytics there is "
            "pinglow.integrations.yolo, for any other network pinglow.nn.shape_convolutions"
        )
    return shape_convolutions(
        model, where, keep_outputs=keep_outputs, orientation=orientation, **shape
    )


def use_box_loss(model: Any, name: str) -> None:
    """Train a RetinaNet with another loss for boxes than the distance of their offsets.

    Args:
        model: As `gaussianize` takes it.
        name: A key of `pinglow.losses.box.BOX_LOSSES`: ciou, sdb or diff. Their areas are in
            pixels of the network's input.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in BOX_LOSSES:
        raise ValueError(f"box loss {name!r} is unknown; use one of {', '.join(BOX_LOSSES)}")
    head = model.head.regression_head
    head.compute_loss = partial(_box_loss, head, name)


def _box_loss(
    head: Any,
    name: str,
    targets: list[dict[str, Tensor]],
    head_outputs: dict[str, Tensor],
    anchors: list[Tensor],
    matched_idxs: list[Tensor],
) -> Tensor:
    """Mean over images of the loss of every matched anchor's box, as torchvision's head has it."""
    losses = []
    parts = zip(targets, head_outputs["bbox_regression"], anchors, matched_idxs, strict=True)
    for target, offsets, anchor, matched in parts:
        foreground = matched >= 0
        boxes = head.box_coder.decode_single(offsets[foreground], anchor[foreground])
        true = target["boxes"][matched[foreground]]
        losses.append(BOX_LOSSES[name](boxes, true).sum() / max(1, len(true)))
    return torch.stack(losses).mean()


def build_retinanet(body: str = "small") -> Any:
    """A RetinaNet for one kind of target, with anchors of 2 to 64 pixels on strides from 4.

    torchvision's own starts at stride 8 with anchors of 32 pixels, and enlarges every image to a
    short side of 800; this one takes images as they are, in this library's normalization.

    Args:
        body: "small" (a residual network for gray images that trains on a CPU) or "resnet50"
            (torchvision's, for three equal channels; no weights are downloaded).

    Returns:
        ``torchvision.models.detection.RetinaNet``; its only class is 0.

    Raises:
        ValueError: The body is unknown.
    """
    detection = import_extra("torchvision.models.detection", "detect", "RetinaNet")
    pyramid = import_extra("torchvision.models.detection.backbone_utils", "detect", "RetinaNet")
    retinanet = import_extra("torchvision.models.detection.retinanet", "detect", "RetinaNet")
    if body == "small":
        stages = {f"layer{number}": str(number - 2) for number in (2, 3, 4)}
        backbone = pyramid.BackboneWithFPN(_small_body(), stages, list(_WIDTHS[2:]), _PYRAMID)
    elif body == "resnet50":
        resnet = import_extra("torchvision.models", "detect", "RetinaNet").resnet50()
        stages = {f"layer{number}": str(number - 1) for number in (1, 2, 3, 4)}
        backbone = pyramid.BackboneWithFPN(resnet, stages, [256, 512, 1024, 2048], 256)
    else:
        raise ValueError(f"body {body!r} is unknown; use small or resnet50")
    levels = len(stages) + 1  # BackboneWithFPN adds one by pooling
    anchors = _tiny_anchors(levels)
    head = retinanet.RetinaNetHead(
        backbone.out_channels, _SCALES * len(_RATIOS), 1, norm_layer=partial(nn.GroupNorm, 16)
    )
    model = detection.RetinaNet(
        backbone,
        num_classes=1,
        anchor_generator=anchors,
        head=head,
        image_mean=[0.0],
        image_std=[1.0],
    )
    model.transform.resize = _keep_size
    return model


def _keep_size(image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
    """In the place of torchvision's transform, which has no way to leave a size alone."""
    return image, target


def _tiny_anchors(levels: int) -> Any:
    """Anchors whose sides grow evenly over the levels, from `_SIZES`.

    torchvision rounds them to whole pixels, which is too coarse here, so they are set anew.
    """
    utils = import_extra("torchvision.models.detection.anchor_utils", "detect", "RetinaNet")
    low, high = _SIZES
    steps = levels * _SCALES - 1
    sides = [low * (high / low) ** (step / steps) for step in range(steps + 1)]
    sizes = tuple(tuple(sides[k : k + _SCALES]) for k in range(0, len(sides), _SCALES))
    generator = utils.AnchorGenerator(sizes, (_RATIOS,) * levels)
    generator.cell_anchors = [
        torch.tensor(
            [
                (-side / ratio**0.5, -side * ratio**0.5, side / ratio**0.5, side * ratio**0.5)
                for ratio in _RATIOS
                for side in level
            ]
        )
        / 2
        for level in sizes
    ]
    return generator


def _small_body() -> nn.Module:
    """A stem and four stages of one residual block each, at strides 2, 2, 4, 8 and 16."""
    block = import_extra("torchvision.models.resnet", "detect", "RetinaNet").BasicBlock
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(1, _WIDTHS[0], 3, stride=2, padding=1, bias=False)
    layers["bn1"] = nn.BatchNorm2d(_WIDTHS[0])
    layers["relu"] = nn.ReLU(inplace=True)
    for number, (before, width) in enumerate(itertools.pairwise(_WIDTHS), start=1):
        stride = 1 if number == 1 else 2
        shortcut = None
        if stride > 1 or before != width:
            shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        layers[f"layer{number}"] = block(before, width, stride, shortcut)
    return nn.Sequential(layers)


class RetinaNetDetector(nn.Module):
    """A RetinaNet for one kind of target in gray frames, as `pinglow train` trains it.

    Args:
        body: See `build_retinanet`.
        gaussian: Shape the first layers; see `gaussianize`.
        box_loss: "own", torchvision's, or see `use_box_loss`.
    """

    def __init__(self, body: str, gaussian: bool = False, box_loss: str = "own") -> None:
        super().__init__()
        self.network = build_retinanet(body)
        self.channels = self.network.backbone.body.conv1.in_channels
        if gaussian:
            gaussianize(self.network, keep_outputs=False)
        if box_loss != "own":
            use_box_loss(self.network, box_loss)

    def forward(self, images: Tensor) -> Tensor:
        """Every candidate of images (N, 1, H, W): (N, A, 5), corners x0 y0 x1 y1 and score."""
        lists = import_extra("torchvision.models.detection.image_list", "detect", "RetinaNet")
        height, width = images.shape[-2:]
        # Anchors are spaced by image size // grid size, which is the stride only of whole grids.
        padding = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        images = F.pad(images, padding, mode="replicate")
        size = (images.shape[-2], images.shape[-1])
        batch = lists.ImageList(images, [size] * len(images))
        levels = list(self.network.backbone(self._channelled(images)).values())
        found = self.network.head(levels)
        anchors = torch.stack(self.network.anchor_generator(batch, levels))  # (N, A, 4)
        boxes = self.network.box_coder.decode_single(
            found["bbox_regression"].flatten(0, 1), anchors.flatten(0, 1)
        ).reshape(len(images), -1, 4)
        return torch.cat([boxes, found["cls_logits"].sigmoid()], dim=2)

    def loss(self, images: Tensor, boxes: list[Tensor]) -> Tensor:
        """Loss of images (N, 1, H, W) and corners (n, 4) of each."""
        targets = [
            {"boxes": each, "labels": torch.zeros(len(each), dtype=torch.long, device=each.device)}
            for each in boxes
        ]
        parts = self.network(list(self._channelled(images)), targets)
        return torch.stack(list(parts.values())).sum()

    def _channelled(self, images: Tensor) -> Tensor:
        return images.expand(-1, self.channels, -1, -1)
