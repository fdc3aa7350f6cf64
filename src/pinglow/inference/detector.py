"""The detectors by name, and what they find in a frame."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, Self, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pinglow.backends.device import choose_device
from pinglow.backends.torch import TorchBackend, tf32
from pinglow.errors import ModelError, OptionError
from pinglow.extras import import_extra
from pinglow.inference.predictor import (
    SMALLEST_SIDE,
    TILE,
    as_frame,
    check_tile,
    memory_guard,
    prepare_input,
)
from pinglow.inference.tiling import cut_into_tiles
from pinglow.integrations.retinanet import RetinaNetDetector
from pinglow.integrations.yolo import YoloDetector
from pinglow.models.card import ModelCard, find_model, read_card
from pinglow.models.weights import fill_network
from pinglow.nn import fold_kernels
from pinglow.preprocess import InputRule
from pinglow.structures import Detections

_SAME: Final = 0.3  # IoU of two boxes, widened, from which on they are taken for one target
_WIDER: Final = 2.0  # pixels at the network's input, on each side
_MOST: Final = 1000  # candidates of a tile that are looked at, the best ones
_LEAST_SCORE: Final = 0.01  # candidates below it are not looked at
_MARGIN: Final = 64  # pixels at the network's input that a tile sees around its core


class Detector(Protocol):
    """A network for one kind of target; an nn.Module, too."""

    def __call__(self, images: Tensor) -> Tensor:
        """Every candidate of images (N, 1, H, W): (N, A, 5), corners x0 y0 x1 y1 and score."""

    def loss(self, images: Tensor, boxes: list[Tensor]) -> Tensor:
        """Loss of images (N, 1, H, W) and corners (n, 4) of each image's targets; a scalar."""


DETECTORS: Final[dict[str, Callable[..., nn.Module]]] = {
    "yolov8n": partial(YoloDetector, "yolov8n"),
    "yolov8n-p2": partial(YoloDetector, "yolov8n-p2"),
    "yolov8s-p2": partial(YoloDetector, "yolov8s-p2"),
    "retinanet-small": partial(RetinaNetDetector, "small"),
    "retinanet-resnet50": partial(RetinaNetDetector, "resnet50"),
}
"""Detectors by the name that recipes and weights use."""


def build_detector(config: dict[str, Any]) -> nn.Module:
    """A new detector from {"type": a key of DETECTORS, **arguments}.

    Raises:
        ModelError: The type is unknown or its arguments do not fit.
        MissingExtraError: Its library is not installed.
    """
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if kind not in DETECTORS:
        raise ModelError(f"detector {kind!r} is unknown; use one of {', '.join(DETECTORS)}")
    try:
        return DETECTORS[kind](**arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"detector {kind} cannot be built: {error}") from error


def load_detector(name_or_path: str | Path) -> tuple[nn.Module, ModelCard]:
    """The detector of a weights file, in eval mode with plain convolutions, and its card.

    Raises:
        ModelError: The file is no detector's, or damaged.
        MissingExtraError: Its library is not installed.
    """
    card = read_card(name_or_path)
    if card.network.get("type") not in DETECTORS:
        raise ModelError(f"{name_or_path} is not a detector; use pinglow predict for it")
    network = build_detector(card.network)
    fill_network(network, find_model(name_or_path))
    return fold_kernels(network.eval()), card


def find_boxes(
    detector: Detector,
    frame: NDArray[Any],
    rule: InputRule,
    *,
    least_score: float = _LEAST_SCORE,
    tile: int | None = TILE,
) -> Detections:
    """Normalize, enlarge by the rule, run the detector, and keep one box a target.

    A frame that is larger at the network's input than four tiles' area is computed in tiles; a
    box belongs to the tile whose core holds its center.

    Args:
        detector: In eval mode.
        frame: (H, W) counts, any number type.
        rule: How much to enlarge.
        least_score: Boxes with a lower score are left out.
        tile: Side of a tile at the network's input, pixels; None: never in tiles.

    Returns:
        Boxes in pixels of the frame, cut to it.

    Raises:
        FrameError: See `as_frame`; or the frame does not fit into memory.
    """
    frame = as_frame(frame)
    device = next(cast(nn.Module, detector).parameters(), torch.empty(0)).device
    # In half precision, coordinates would be rounded to whole pixels and more.
    with (
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
        tf32(False),
        memory_guard(frame),
    ):
        return _find_boxes(detector, frame, rule, least_score, tile, device)


def _find_boxes(
    detector: Detector,
    frame: NDArray[Any],
    rule: InputRule,
    least_score: float,
    tile: int | None,
    device: torch.device,
) -> Detections:
    image = torch.from_numpy(prepare_input(frame, rule)).to(device)  # (1, 1, h, w)
    height, width = image.shape[-2:]
    tiled = tile is not None and height * width > 4 * tile**2
    side = tile if tile is not None and tiled else max(height, width)
    found = []
    for part in cut_into_tiles(height, width, side, _MARGIN):
        boxes = detector(image[..., part.rows, part.columns])[0]  # (A, 5)
        boxes = boxes[boxes[:, 4].topk(min(_MOST, len(boxes))).indices]
        boxes = boxes[boxes[:, 4] >= least_score]
        boxes[:, :4] += boxes.new_tensor([part.columns.start, part.rows.start] * 2)
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        found.append(
            boxes[_inside(x, part.core_columns, width) & _inside(y, part.core_rows, height)]
        )
    kept = _suppress(torch.cat(found).cpu().double())
    sides = kept.new_tensor([frame.shape[1], frame.shape[0]] * 2)
    # A tiny frame is first continued up to the smallest side that a network takes.
    factors = kept.new_tensor([width, height] * 2) / sides.clamp(min=SMALLEST_SIDE)
    corners = torch.minimum((kept[:, :4] / factors).clamp(min=0), sides)
    rows = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    real = (rows[:, 2:] > 0).all(dim=1)  # not wholly in what a tiny frame was padded by
    return Detections(rows[real].numpy(), kept[real, 4].numpy())


def _inside(center: Tensor, core: slice, length: int) -> Tensor:
    """Whether centers lie in a core; the outermost ones reach beyond the frame."""
    low = -torch.inf if core.start == 0 else core.start
    high = torch.inf if core.stop == length else core.stop
    return (center >= low) & (center < high)


def _suppress(boxes: Tensor) -> Tensor:
    """(n, 5) boxes without those that overlap a better one, best first.

    They are widened for that: two boxes of a few pixels on one target may share next to nothing.
    """
    nms = import_extra("torchvision.ops", "detect", "a detector").nms
    wider = boxes[:, :4] + boxes.new_tensor([-_WIDER, -_WIDER, _WIDER, _WIDER])
    kept: Tensor = boxes[nms(wider, boxes[:, 4], _SAME)]
    return kept


class DetectorPredictor:
    """A detector with everything around it: counts in, boxes out.

    Args:
        network: In eval mode.
        card: The input rule and the threshold.
        threshold: A box is a target if its score is above this; the card's by default.
        tile: See `find_boxes`.

    Raises:
        OptionError: The threshold is not in [0, 1), or the tile is too small.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        threshold: float | None = None,
        tile: int | None = TILE,
    ) -> None:
        check_tile(tile)
        if threshold is not None and not 0 <= threshold < 1:
            raise OptionError(f"threshold is {threshold}; use a value from 0 to below 1")
        self.network = cast(Detector, network)
        self.card = card
        self.threshold = card.threshold if threshold is None else threshold
        self.tile = tile

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        device: str = "auto",
        threshold: float | None = None,
        tile: int | None = TILE,
    ) -> Self:
        """Load a weights file that `pinglow detect train` has written.

        Args:
            name_or_path: The file, or its run folder.
            device: cpu, cuda, cuda:N (a card by its index); auto is the first card that PyTorch
                can use, else the CPU.
            threshold: A box is a target if its score is above this; the card's by default.
            tile: See `find_boxes`.

        Raises:
            ModelError: It is no detector's, or damaged.
            MissingExtraError: Its library is not installed.
            OptionError: The device cannot be used, the threshold is not in [0, 1), or the tile is
                too small.
        """
        chosen = str(choose_device(device, [TorchBackend]))
        network, card = load_detector(name_or_path)
        return cls(network.to(chosen), card, threshold, tile)

    def __call__(self, frame: NDArray[Any]) -> Detections:
        """Find the targets of an (H, W) frame of counts, any number type.

        Raises:
            FrameError: See `pinglow.inference.predictor.as_frame`.
        """
        found = self.candidates(frame)
        above = found.scores > self.threshold
        return Detections(found.boxes[above], found.scores[above])

    def candidates(self, frame: NDArray[Any]) -> Detections:
        """Boxes of every score, for average precision."""
        return find_boxes(self.network, frame, self.card.input_rule, tile=self.tile)
