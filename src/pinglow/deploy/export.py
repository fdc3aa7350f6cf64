"""Write a model as an ONNX or OpenVINO file that runs without pinglow, checked first.

The card goes into the file's metadata: normalization, input rule, threshold, data and scores.
docs/guides/export.md says how to use the file from another program.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pinglow.backends.base import Backend
from pinglow.backends.device import CPU
from pinglow.backends.opening import BACKENDS, backends_for, open_model
from pinglow.backends.openvino import shared_core
from pinglow.backends.torch import TorchBackend
from pinglow.deploy.quantize import Accuracy, Calibration, measure_cost, quantize
from pinglow.deploy.triton import CONFIG, VERSION, describe_model, folder_name
from pinglow.errors import ModelError, OptionError
from pinglow.extras import import_extra
from pinglow.files import claim, naming_below, remove_parts, write_whole
from pinglow.inference.predictor import Predictor
from pinglow.models.card import CARD_KEY, EXPORTED, ModelCard, find_model
from pinglow.models.checksum import OPENVINO_KEY, UNSEALED, seal
from pinglow.models.conversion import convert_to_onnx
from pinglow.models.graph import last_line
from pinglow.models.weights import load_network

FORMATS: Final = {"onnx": "model.onnx", "openvino": "model.xml", "triton": "model.onnx"}
"""What can be written, and the name of the model's file."""

TOLERANCE: Final = 1e-4
_BESIDE: Final = ".export-"
_LOCK: Final = ".lock"
_CHECKED_BATCHES: Final = (1, 3, 8)
_CHECKED_SIZES: Final = ((32, 32), (33, 47), (71, 83), (130, 97), (256, 256))


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
        folder: Where the file goes; made if need be. For triton it is a model repository, in which
            the model gets a folder of its own.
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
    runtime, extra = ("openvino", "openvino") if form == "openvino" else ("onnxruntime", "")
    import_extra(runtime, extra, f"exporting to {form}")
    frames = None if calibration is None else Calibration(calibration)
    network, card = load_network(name_or_path)
    if frames is not None:
        card = card.model_copy(update={"precision": "int8"})
    original = TorchBackend(network)
    content = convert_to_onnx(network, card)
    if form == "triton":
        folder = folder / folder_name(card.name) / VERSION
    with _folder_beside(folder) as temporary, naming_below(temporary, folder):
        path = temporary / FORMATS[form]
        if form == "openvino":
            _write_openvino(path, content, card, frames)
        else:
            _write_onnx(path, content, card, frames)
        runtimes = [name for name in backends_for(path) if BACKENDS[name].why_not(CPU) is None]
        exported, _ = open_model(path, device="cpu")
        if frames is None:
            checks = [open_model(path, name, "cpu")[0] for name in runtimes]
            difference = max(check_parity(original, each) for each in checks)
            accuracy = None
        else:
            difference = None
            reference = Predictor(*open_model(name_or_path, device="cpu"))
            accuracy = measure_cost(reference, Predictor(exported, card), frames)
        files = sorted(each for each in temporary.iterdir() if not each.name.startswith("."))
        size = sum(file.stat().st_size for file in files)
        for file in files:
            os.replace(file, folder / file.name)
    if form == "triton":
        write_whole(folder.parent / CONFIG, describe_model(folder.parent.name).encode())
    return ExportReport(folder / FORMATS[form], size, difference, accuracy)


@contextmanager
def _folder_beside(folder: Path) -> Iterator[Path]:
    """A folder in the one where files are to go, from which they are moved when they are checked.

    One that a killed export has left there is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_parts(folder)
    for left in folder.glob(f"{_BESIDE}*"):
        with claim(left / _LOCK) as unused:
            if unused:
                shutil.rmtree(left, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=_BESIDE, dir=folder) as temporary,
        claim(Path(temporary) / _LOCK),
    ):
        yield Path(temporary)


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


def _write_onnx(path: Path, content: bytes, card: ModelCard, frames: Calibration | None) -> None:
    if frames is not None:
        onnx = import_extra("onnx", "export", "int8")
        model = quantize(onnx.load_from_string(content), content, card, frames)
        content = seal(model.SerializeToString(), ".onnx")
    write_whole(path, content)


def _write_openvino(
    path: Path, content: bytes, card: ModelCard, frames: Calibration | None
) -> None:
    openvino = import_extra("openvino", "openvino", "exporting to openvino")
    model = shared_core().read_model(content)
    if frames is not None:
        model = quantize(model, content, card, frames)
    model.set_rt_info(card.model_dump_json(), [CARD_KEY])
    model.set_rt_info(UNSEALED, [OPENVINO_KEY])
    weights = path.with_suffix(".bin")
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        # It does not say why. Writing as many bytes does, if there is no room for them.
        write_whole(weights, content)
        raise ModelError(f"OpenVINO cannot write {path.name} ({last_line(error)})") from error
    write_whole(path, seal(path.read_bytes(), ".xml", weights.read_bytes()))
