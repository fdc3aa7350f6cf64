"""8-bit integers: which frames calibrate, what becomes of the network, and what it costs."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from pinglow.data.folder import MaskReader, find_mask, fit_mask, read_image
from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError
from pinglow.evaluation.pixels import Pair, evaluate_model
from pinglow.extras import import_extra
from pinglow.inference.predictor import Predictor
from pinglow.inference.probability import prepare_input
from pinglow.inference.tiling import TILE
from pinglow.io.frames import find_frames
from pinglow.metrics import PROTOCOLS
from pinglow.models.card import ModelCard
from pinglow.structures import BoolArray, FloatArray

_FEWEST_FRAMES: Final = 4
_MOST_CALIBRATING: Final = 300
_FEWEST_CHANNELS: Final = 8
_KEPT_FLOAT: Final = (
    *("Add", "Multiply", "Mul", "Sigmoid", "ReduceMean", "ReduceMax", "MaxPool", "Interpolate"),
    *("Resize", "Concat", "Pad", "Reshape", "Transpose"),
)


@dataclass(frozen=True)
class Accuracy:
    """What int8 costs, on frames that it was not calibrated on.

    Attributes:
        frames: Number of them.
        scores: IoU, Pd and Fa under the strict protocol by precision ("float32", "int8"); against
            the frames' masks, or where there are none, of int8 against float32's own targets.
        with_masks: Whether there were masks.
    """

    frames: int
    scores: dict[str, dict[str, float | None]]
    with_masks: bool


class Calibration:
    """Frames of a folder, every other one for calibration; with masks where there are some."""

    def __init__(self, folder: Path) -> None:
        folder = open_data(folder)
        images = folder / "images" if (folder / "images").is_dir() else folder
        files = find_frames([images])
        if len(files) < _FEWEST_FRAMES:
            raise DataError(
                f"{folder} holds {len(files)} frames; calibration needs at least {_FEWEST_FRAMES}, "
                "better a few hundred of different scenes"
            )
        self.folder = folder
        self._open_mask = MaskReader()
        self.calibrating, self.measuring = files[::2], files[1::2]
        self.with_masks = images != folder and (folder / "masks").is_dir()
        for number, file in enumerate(files):  # what is wrong with them is said before the work
            frame = read_image(file)
            if self.with_masks and number % 2:
                self._mask(file, frame)

    def pairs(self, reference: Predictor) -> Iterator[Pair]:
        """Measuring frames with their masks, or with what a predictor finds in them."""
        for file in self.measuring:
            frame = read_image(file)
            if not self.with_masks:
                yield file.stem, frame, reference(frame).mask
                continue
            yield file.stem, frame, self._mask(file, frame)

    def _mask(self, file: Path, frame: NDArray[Any]) -> BoolArray:
        path = find_mask(self.folder, file.stem)
        if path is None:
            raise DataError(f"{file} has no mask in {self.folder / 'masks'}; add it")
        return fit_mask(path, self._open_mask(path), frame.shape)


def quantize(model: Any, content: bytes, card: ModelCard, frames: Calibration) -> Any:
    """Wide 3 x 3 convolutions in int8, where the time goes; all else stays float32.

    A target is an outlier in everything that the network computes, so ranges are the largest
    values seen; nncf's default, which clips outliers, costs 12 points of IoU.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a GPU
    nncf = import_extra("nncf", "export", "int8")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    ranges = importlib.import_module("nncf.quantization.range_estimator")
    import_extra("onnxruntime", "", "int8").set_default_logger_severity(3)

    def read(file: Path) -> dict[str, FloatArray]:
        image = prepare_input(read_image(file), card.input_rule)
        return {"image": image[..., :TILE, :TILE]}

    with contextlib.redirect_stdout(sys.stderr):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(frames.calibrating, read),
            subset_size=min(_MOST_CALIBRATING, len(frames.calibrating)),
            ignored_scope=nncf.IgnoredScope(
                names=_narrow_convolutions(content), types=list(_KEPT_FLOAT), validate=False
            ),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX
            ),
        )


def _narrow_convolutions(content: bytes) -> list[str]:
    """Names of the convolutions that stay float32, as ONNX and as OpenVINO call them."""
    onnx = import_extra("onnx", "export", "int8")
    graph = onnx.load_from_string(content).graph
    shapes = {value.name: list(value.dims) for value in graph.initializer}
    names = []
    for node in graph.node:
        if node.op_type == "Conv":
            outputs, inputs, height, _ = shapes[node.input[1]]
            if height != 3 or min(outputs, inputs) < _FEWEST_CHANNELS:
                names += [node.name, f"{node.name}/WithoutBiases"]
    return names


def measure_cost(original: Predictor, exported: Predictor, frames: Calibration) -> Accuracy:
    """IoU, Pd and Fa before and after, on the frames that did not calibrate."""
    scores = {}
    for name, predictor in (("float32", original), ("int8", exported)):
        (report,) = evaluate_model(
            frames.pairs(original),
            predictor.probabilities,
            [PROTOCOLS["strict"]],
            original.card.threshold,
        )
        scores[name] = {key: getattr(report, key) for key in ("iou", "pd", "fa")}
    return Accuracy(len(frames.measuring), scores, frames.with_masks)
