"""The Gaussian × pinwheel convolution in ultralytics' YOLOv8 and its relatives.

Source: arXiv 2604.09991, which puts its convolution in the place of YOLOv8's. Which layers is ours:
the first ones, as PConv (https://arxiv.org/abs/2412.16986) has it, because there a tiny target
still is a glow of a few pixels.

ultralytics is AGPL-3.0: it is imported only when a function of this module is called, and what you
make with it is under its license.
"""

from __future__ import annotations

import os
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pinglow.extras import import_extra
from pinglow.losses.box import BOX_LOSSES
from pinglow.nn import GaussianConv2d, shape_convolutions
from pinglow.nn.swap import copy_shapes

FIRST_LAYERS: Final = r"model[.][0-2][.].*"
"""The stem, the second convolution and the first C2f block: strides 2 and 4."""

_START: Final = "on_pretrain_routine_start"
_READY: Final = "on_pretrain_routine_end"


def gaussianize(
    model: Any,
    where: str = FIRST_LAYERS,
    *,
    keep_outputs: bool = True,
    orientation: str = "learned",
    **shape: Any,
) -> list[str]:
    """Put GaussianConv2d into the place of chosen convolutions, in place.

    A YOLO object stays one: train, val, predict, export, and saved checkpoints go on working.
    ultralytics builds its network anew to train it, so on a YOLO object the change is also noted
    for that. A checkpoint is loaded by ``YOLO("best.pt")`` as usual; call this function again to
    train it further or to resume it.

    At 3 × 3 the four arms of the default cover all taps until they have turned, so outputs stay
    what they were. ``yolo.model = pinglow.nn.fold_kernels(yolo.model.fuse())`` gives plain
    convolutions back for use.

    Args:
        model: A YOLO object of ultralytics; or a network of its (yolo.model) for a loop of your
            own. ultralytics' trainer would build a bare network anew without its shapes.
        where: A regular expression that the whole path of a layer has to match, as in
            "model[.]0[.]conv" for the stem alone; paths as in yolo.model.named_modules().
        keep_outputs: See `pinglow.nn.GaussianConv2d.from_conv`.
        orientation: See `pinglow.nn.GaussianConv2d`; not "steered", whose softmax changes when
            ultralytics multiplies the batch normalization into the weights.
        **shape: arms, clip, sigma of the same.

    Returns:
        The paths of the shaped convolutions.

    Raises:
        ValueError: No convolution matches, or one cannot be shaped so.
    """
    if orientation == "steered":
        raise ValueError(
            "orientation 'steered' does not survive ultralytics' fusing; use learned, fixed or max"
        )
    options = {"keep_outputs": keep_outputs, "orientation": orientation, **shape}
    network = _network_of(model)
    paths = shape_convolutions(network, where, **options)
    if network is not model:

        def build_shaped(trainer: Any) -> None:
            trainer.get_model = _shaping(trainer.get_model, where, options)

        model.add_callback(_START, build_shaped)
        model.predictor = None  # a cached one holds the network as it was
    return paths


def _shaping(build: Any, where: str, options: dict[str, Any]) -> Any:
    """Ultralytics' ``trainer.get_model``, whose networks have shaped convolutions."""

    def get_model(cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        shaped = weights is not None and any(
            isinstance(layer, GaussianConv2d) for layer in weights.modules()
        )
        # Shaped weights must not get into plain layers, where they would mean something else.
        network = build(cfg=cfg, weights=None if shaped else weights, verbose=verbose)
        if shaped:
            copy_shapes(network, weights)
            network.load(weights)
        else:
            shape_convolutions(network, where, **options)
        return network

    return get_model


def use_box_loss(model: Any, name: str) -> None:
    """Train with another loss for boxes than CIoU; class and distribution losses stay.

    A checkpoint does not keep it: call this again to train one further or to resume it.

    Args:
        model: A YOLO object of ultralytics; or a network of its with ``args`` set, for a loop of
            your own.
        name: A key of `pinglow.losses.box.BOX_LOSSES`: ciou, sdb or diff. Their areas are in
            pixels of the level's grid.

    Raises:
        ValueError: The name is unknown, or the network does not end in YOLOv8's box head.
    """
    if name not in BOX_LOSSES:
        raise ValueError(f"box loss {name!r} is unknown; use one of {', '.join(BOX_LOSSES)}")
    network = _network_of(model)
    head = network.model[-1]
    plain = import_extra("ultralytics.nn.modules", "detect", "YOLO").Detect
    if type(head) is not plain or getattr(head, "one2one_cv2", None) is not None:
        raise ValueError(
            f"a network that ends in {type(head).__name__} has a loss of its own; use a YOLOv8 or "
            "YOLO11 model that finds boxes"
        )
    if network is model:
        network.criterion = _criterion(network, name)
        return

    def replace(trainer: Any) -> None:
        for trained in (trainer.model, trainer.ema.ema):
            trained.criterion = _criterion(trained, name)

    model.add_callback(_READY, replace)


def _criterion(network: Any, name: str) -> Any:
    """Ultralytics' loss of a network, with the named loss for boxes."""
    losses = import_extra("ultralytics.utils.loss", "detect", "YOLO")

    class BoxLoss(losses.BboxLoss):  # type: ignore[misc, name-defined]
        def forward(
            self,
            distances: Tensor,
            boxes: Tensor,
            anchors: Tensor,
            true_boxes: Tensor,
            true_scores: Tensor,
            total_score: Tensor,
            foreground: Tensor,
            *rest: Any,
        ) -> tuple[Tensor, Tensor]:
            _, distribution = super().forward(
                distances, boxes, anchors, true_boxes, true_scores, total_score, foreground, *rest
            )
            weight = true_scores[foreground].sum(-1)
            loss = BOX_LOSSES[name](boxes[foreground], true_boxes[foreground])
            return (loss * weight).sum() / total_score, distribution

    criterion = losses.v8DetectionLoss(network)
    criterion.bbox_loss = BoxLoss(criterion.reg_max).to(criterion.device)
    return criterion


def _network_of(model: Any) -> Any:
    """The network of a YOLO object, or the network given."""
    tasks = import_extra("ultralytics.nn.tasks", "detect", "YOLO")
    network = model if isinstance(model, tasks.BaseModel) else getattr(model, "model", None)
    if not isinstance(network, tasks.BaseModel):
        raise ValueError(
            f"{type(model).__name__} holds no network of ultralytics; pass YOLO('yolov8n.yaml') or "
            "a .pt model, not an exported one"
        )
    return network


class YoloDetector(nn.Module):
    """A YOLOv8 network for one kind of target in gray frames, as `pinglow train` trains it.

    Args:
        layout: One of ultralytics' layouts, as in yolov8n-p2; p2 adds a level of stride 4.
        gaussian: Shape the first layers; see `gaussianize`.
        box_loss: "own", ultralytics', or see `use_box_loss`.
    """

    def __init__(self, layout: str, gaussian: bool = False, box_loss: str = "own") -> None:
        super().__init__()
        # ultralytics looks for the network when it is imported, and speaks of its settings.
        os.environ.setdefault("YOLO_OFFLINE", "true")
        os.environ.setdefault("YOLO_VERBOSE", "false")
        tasks = import_extra("ultralytics.nn.tasks", "detect", "YOLO")
        settings = import_extra("ultralytics.cfg", "detect", "YOLO").get_cfg()
        content = tasks.yaml_model_load(f"{layout}.yaml") | {"nc": 1}
        self.network = tasks.DetectionModel(content, ch=1, verbose=False)
        self.network.args = settings  # the gains of its losses
        if gaussian:
            gaussianize(self.network, keep_outputs=False)
        self._box_loss = box_loss
        if box_loss not in ("own", *BOX_LOSSES):
            raise ValueError(f"box_loss is {box_loss!r}; use own, {', '.join(BOX_LOSSES)}")
        self.multiple = int(self.network.stride.max())

    def forward(self, images: Tensor) -> Tensor:
        """Every candidate of images (N, 1, H, W): (N, A, 5), corners x0 y0 x1 y1 and score."""
        self.network.model[-1].shape = None  # its cached grid may be of an export's tracing
        height, width = images.shape[-2:]
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        found, _ = self.network(F.pad(images, padding, mode="replicate"))  # (N, 5, A)
        center, size, score = found.transpose(1, 2).split((2, 2, 1), dim=2)
        return torch.cat([center - size / 2, center + size / 2, score], dim=2)

    def loss(self, images: Tensor, boxes: list[Tensor]) -> Tensor:
        """Loss of images (N, 1, H, W), sides multiples of 32, and corners (n, 4) of each."""
        if self._box_loss != "own" and getattr(self.network, "criterion", None) is None:
            use_box_loss(self.network, self._box_loss)  # now that it is on its device
        height, width = images.shape[-2:]
        corners = torch.cat(boxes) / images.new_tensor([width, height, width, height])
        number = torch.repeat_interleave(torch.tensor([len(each) for each in boxes]))
        batch = {
            "img": images,
            "batch_idx": number.to(images),
            "cls": torch.zeros_like(number).to(images),
            "bboxes": torch.cat(
                [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1
            ),
        }
        total, _ = self.network(batch)
        loss: Tensor = total.sum() / len(images)
        return loss
