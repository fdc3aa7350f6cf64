"""Write a model as an ONNX or OpenVINO file that runs without pinglow, checked first.

The card goes into the file's metadata: normalization, input rule, threshold, data and scores.
docs/guides/export.md says how to use the file from another program.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.backends.base import Backend
from pinglow.backends.device import CPU
from pinglow.backends.opening import BACKENDS, backends_for, open_model
from pinglow.backends.openvino import shared_core
from pinglow.backends.torch import TorchBackend
from pinglow.data.folder import find_mask, fit_mask, read_image
from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError, ModelError, OptionError
from pinglow.evaluation.pixels import Pair, evaluate_model
from pinglow.extras import import_extra
from pinglow.inference.predictor import Predictor, prepare_input
from pinglow.inference.tiling import TILE
from pinglow.io.frames import find_frames, read_only_frame
from pinglow.metrics import PROTOCOLS
from pinglow.models.card import CARD_KEY, EXPORTED, ModelCard, find_model
from pinglow.models.conversion import convert_to_onnx
from pinglow.models.weights import load_network
from pinglow.structures import BoolArray, FloatArray, binarize_mask

FORMATS: Final = {"onnx": "model.onnx", "openvino": "model.xml"}
"""What can be written, and the name of the file in the folder."""

TOLERANCE: Final = 1e-4
_CHECKED_BATCHES: Final = (1, 3, 8)
_CHECKED_SIZES: Final = ((32, 32), (33, 47), (71, 83), (130, 97), (256, 256))
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


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: The file.
        size: Bytes, its .bin included.
        difference: Largest difference of a probability from the original; None for int8.
        accuracy: Of int8; otherwise None.
    """

    path: Path
    size: int
    difference: float | None
    accuracy: Accuracy | None


def export_model(
    name_or_path: str | Path, form: str, folder: Path, calibration: Path | None = None
) -> ExportReport:
    """Export a bundled model or a weights file.

    The file appears in the folder only after it has passed its check.

    Args:
        name_or_path: The model.
        form: A key of `FORMATS`.
        folder: Where the file goes; made if need be.
        calibration: For int8: a folder of frames like those that the model will see, or one with
            ``images/`` and ``masks/`` in it. Every other frame calibrates, the others measure
            what int8 costs. None: float32.

    Raises:
        ModelError: The model cannot be exported, or what was written differs from it.
        OptionError: The format is unknown.
        DataError: There are not enough frames to calibrate with.
        FrameError: One of them is broken.
        MissingExtraError: The export extra is not installed.
    """
    if form not in FORMATS:
        raise OptionError(f"format {form!r} is unknown: use {' or '.join(FORMATS)}")
    if find_model(name_or_path).suffix.lower() in EXPORTED:
        raise ModelError(f"{name_or_path} is exported already; name the weights that it came from")
    runtime, extra = ("onnxruntime", "") if form == "onnx" else ("openvino", "openvino")
    import_extra(runtime, extra, f"exporting to {form}")
    frames = None if calibration is None else _Calibration(calibration)
    network, card = load_network(name_or_path)
    if frames is not None:
        card = card.model_copy(update={"precision": "int8"})
    original = TorchBackend(network)
    content = convert_to_onnx(network, card)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
        path = Path(temporary) / FORMATS[form]
        if form == "onnx":
            _write_onnx(path, content, card, frames)
        else:
            _write_openvino(path, content, card, frames)
        runtimes = [name for name in backends_for(path) if BACKENDS[name].why_not(CPU) is None]
        exported, _ = open_model(path, device="cpu")
        if frames is None:
            checks = [open_model(path, name, "cpu")[0] for name in runtimes]
            difference = max(check_parity(original, each) for each in checks)
            accuracy = None
        else:
            difference = None
            reference = Predictor(*open_model(name_or_path, device="cpu"))
            accuracy = _measure(reference, Predictor(exported, card), frames)
        files = sorted(Path(temporary).iterdir())
        size = sum(file.stat().st_size for file in files)
        for file in files:
            os.replace(file, folder / file.name)
    return ExportReport(folder / FORMATS[form], size, difference, accuracy)


def check_parity(original: Backend, exported: Backend) -> float:
    """Compare two backends on noise with bright spots: odd sizes, batches of 1 to 8.

    Returns:
        The largest difference of a probability. Targets can differ by no more than pixels whose
        probability is that close to the threshold.

    Raises:
        ModelError: It is above 1e-4.
    """
    random = np.random.default_rng(0)
    largest = 0.0
    for batch, (height, width) in itertools.product(_CHECKED_BATCHES, _CHECKED_SIZES):
        images = random.standard_normal((batch, 1, height, width), dtype=np.float32)
        for image in images[:, 0]:
            y, x = random.integers(4, (height - 8, width - 8))
            image[y : y + 3, x : x + 3] += 5
        gates = original.gates(images)
        given = np.full((1, gates.shape[1]), 0.5, dtype=np.float32)
        pairs = [
            (exported(images), original(images)),
            (exported.gates(images), gates),
            (exported(images, given), original(images, given)),
        ]
        difference = float(np.max([np.abs(a - b).max(initial=0) for a, b in pairs]))
        if not difference <= TOLERANCE:  # nor if it is NaN
            raise ModelError(
                f"the exported model differs from the original (by {difference:.2g} at {batch} x "
                f"{width} x {height}; {TOLERANCE:g} is allowed), so it was not kept; use another "
                "format, or the torch backend"
            )
        largest = max(largest, difference)
    return largest


class _Calibration:
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
        return fit_mask(path, binarize_mask(read_only_frame(path)), frame.shape)


def _write_onnx(path: Path, content: bytes, card: ModelCard, frames: _Calibration | None) -> None:
    if frames is not None:
        onnx = import_extra("onnx", "export", "int8")
        model = _quantize(onnx.load_from_string(content), content, card, frames)
        content = bytes(model.SerializeToString())
    path.write_bytes(content)


def _write_openvino(
    path: Path, content: bytes, card: ModelCard, frames: _Calibration | None
) -> None:
    openvino = import_extra("openvino", "openvino", "exporting to openvino")
    model = shared_core().read_model(content)
    if frames is not None:
        model = _quantize(model, content, card, frames)
    model.set_rt_info(card.model_dump_json(), [CARD_KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def _quantize(model: Any, content: bytes, card: ModelCard, frames: _Calibration) -> Any:
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


def _measure(original: Predictor, exported: Predictor, frames: _Calibration) -> Accuracy:
    scores = {}
    for name, predictor in (("float32", original), ("int8", exported)):
        (report,) = evaluate_model(
            frames.pairs(original),
            predictor.probabilities,
            [PROTOCOLS["strict"]],
            original.threshold,
        )
        scores[name] = {key: getattr(report, key) for key in ("iou", "pd", "fa")}
    return Accuracy(len(frames.measuring), scores, frames.with_masks)
