"""From frames to the boxes of their targets, with a detector. It computes in PyTorch."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pinglow.backends.device import Device, choose_device
from pinglow.backends.torch import TorchBackend, tf32
from pinglow.errors import FrameError, OptionError
from pinglow.extras import import_extra
from pinglow.inference.batches import memory_guard
from pinglow.inference.ignored import Ignored
from pinglow.inference.probability import as_frame, prepare_input
from pinglow.inference.tiling import (
    MARGIN,
    SMALLEST_SIDE,
    TILE,
    check_tile,
    cut_into_tiles,
    is_untiled,
)
from pinglow.models.card import ModelCard
from pinglow.models.weights import load_network
from pinglow.nn import fold_kernels
from pinglow.preprocess import InputRule
from pinglow.structures import Detections

_SAME: Final = 0.3  # IoU of two boxes, widened, from which on they are taken for one target
_WIDER: Final = 2.0  # pixels at the network's input, on each side
_MOST: Final = 1000  # candidates of a tile that are looked at, the best ones
_LEAST_SCORE: Final = 0.01  # candidates below it are not looked at

_ALONE: Final = threading.Lock()  # ultralytics keeps the grid of the last size in the network


class Detector(Protocol):
    """A network for one kind of target; an nn.Module, too."""

    def __call__(self, images: Tensor) -> Tensor:
        """Every candidate of images (N, 1, H, W): (N, A, 5), corners x0 y0 x1 y1 and score."""

    def loss(self, images: Tensor, boxes: list[Tensor]) -> Tensor:
        """Loss of images (N, 1, H, W) and corners (n, 4) of each image's targets; a scalar."""


class BoxPredictor:
    """A detector with everything around it: counts in, boxes out.

    Args:
        network: In eval mode.
        card: The input rule and the smallest score.
        min_score: A box is a target if its score is above this; the card's by default.
        tile: See `find_boxes`.
        ignore: What is no part of the picture: no box is centered there.

    Raises:
        OptionError: The smallest score is not in [0, 1), or the tile is too small.
    """

    kind: ClassVar = "boxes"
    """What is found in a frame; see `Predictor`."""

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        min_score: float | None = None,
        tile: int | None = TILE,
        ignore: Ignored | None = None,
    ) -> None:
        check_tile(tile)
        self.network = cast(Detector, network)
        self.card = card
        self.min_score = card.choose_score(min_score)
        self.tile = tile
        self.ignore = ignore

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "float32",
        min_score: float | None = None,
        tile: int | None = TILE,
        flips: bool = False,
        large: bool = False,
        ignore: Ignored | None = None,
    ) -> Self:
        """Load a detector's weights file; see `Predictor.load`, which does so by the card.

        Args:
            name_or_path: The file, or its run folder.
            backend: torch, or auto.
            device: cpu, cuda, cuda:N (a card by its index); auto is the first card that PyTorch
                can use, else the CPU.
            precision: float32: coordinates would suffer from less.
            min_score: A box is a target if its score is above this; the card's by default.
            tile: See `find_boxes`.
            flips: Not for boxes.
            large: Not for boxes.
            ignore: See `BoxPredictor`.

        Raises:
            ModelError: It is no detector's, or damaged.
            MissingExtraError: Its library is not installed.
            OptionError: The device cannot be used, the smallest score is not in [0, 1), the tile is
                too small, or an option is not for detectors.
        """
        for option, value, only in (
            ("backend", backend, ("auto", "torch")),
            ("precision", precision, ("float32",)),
            ("flips", flips, (False,)),
            ("large", large, (False,)),
        ):
            if value not in only:
                raise OptionError(
                    f"{option} {value!r} is not for {name_or_path}, which is a detector: leave "
                    f"{option} out"
                )
        chosen = str(choose_device(device, [TorchBackend]))
        network, card = load_network(name_or_path, "boxes")
        return cls(fold_kernels(network).to(chosen), card, min_score, tile, ignore)

    def __call__(self, frame: NDArray[Any]) -> Detections:
        """Find the targets of an (H, W) frame of counts, any number type.

        Raises:
            FrameError: See `find_boxes`.
        """
        found = self._find(frame)
        above = found.scores > self.min_score
        return Detections(found.boxes[above], found.scores[above])

    def many(self, frames: Iterable[NDArray[Any]]) -> Iterator[Detections]:
        """Find the targets of many frames, in their order.

        Raises:
            FrameError: See `find_boxes`; what was before that frame has been given.
        """
        return map(self, frames)

    def candidates(self, frames: Iterable[NDArray[Any]]) -> Iterator[Detections | FrameError]:
        """Boxes of every score in many frames, for average precision, or why one has none."""
        for frame in frames:
            try:
                yield self._find(frame)
            except FrameError as error:
                yield FrameError(str(error))  # without what led to it, which may hold memory

    def _find(self, frame: NDArray[Any]) -> Detections:
        rule, tile = self.card.input_rule, self.tile
        if self.ignore is None:
            return find_boxes(self.network, frame, rule, tile=tile)
        seen = self.ignore.hide(as_frame(frame))
        return self.ignore.clear(find_boxes(self.network, seen, rule, tile=tile), frame.shape)


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
        tf32(Device(device.type, device.index or 0), False),
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
    side = max(height, width) if tile is None or is_untiled(height, width, tile) else tile
    found = []
    for part in cut_into_tiles(height, width, side, MARGIN):
        with _ALONE:
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
