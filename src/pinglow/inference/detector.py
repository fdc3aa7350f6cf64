"""The detectors by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from torch import Tensor, nn

from pinglow.errors import ModelError
from pinglow.integrations.retinanet import RetinaNetDetector
from pinglow.integrations.yolo import YoloDetector
from pinglow.models.card import ModelCard, find_model, read_card
from pinglow.models.weights import fill_network
from pinglow.nn import fold_kernels


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
        raise ModelError(f"{name_or_path} is not a detector")
    network = build_detector(card.network)
    fill_network(network, find_model(name_or_path))
    return fold_kernels(network.eval()), card
