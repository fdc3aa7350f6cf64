"""What computes probabilities: torch, ONNX Runtime or OpenVINO, behind one protocol.

A model by name or from a weights file runs on any of them: for the last two it is converted once
and kept in the cache folder (``$XDG_CACHE_HOME/pinglow``). An exported file runs as it is.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import torch
from torch import nn

from pinglow.errors import ModelError, OptionError, PinglowError
from pinglow.extras import import_extra, is_installed
from pinglow.files import cache_folder
from pinglow.inference.conversion import GATES_INPUT, GRAPH, OWN_INPUT, convert_to_onnx
from pinglow.inference.weights import (
    CARD_KEY,
    ModelCard,
    find_model,
    load_network,
    parse_card,
    write_atomically,
)
from pinglow.nn import GatedNetwork, fold_kernels, fold_norms
from pinglow.structures import FloatArray

_logger = logging.getLogger("pinglow")

_REPEATED: Final = 8  # images of one shape after which OpenVINO compiles for it
_MOST_STATIC: Final = 4  # shapes that it does so for


class Backend(Protocol):
    """Maps images to target probabilities.

    Attributes:
        name: As in `BACKENDS`.
    """

    name: str

    def __call__(self, images: FloatArray, gates: FloatArray | None = None) -> FloatArray:
        """(N, 1, H, W) float32, H and W at least 32, to probabilities of the same shape.

        ``gates`` (1, G) fix the channel attention; None: the images' own.
        """

    def gates(self, images: FloatArray) -> FloatArray:
        """The channel attention of images (N, 1, H, W): (N, G) in [0, 1]."""


class TorchBackend:
    """Runs a network as it is; in eval mode."""

    name = "torch"

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @classmethod
    def fastest(cls, network: nn.Module) -> Self:
        """Run a network in the form that is fastest here: folded, channels last."""
        return cls(fold_norms(fold_kernels(network)).to(memory_format=torch.channels_last))

    @torch.inference_mode()
    def __call__(self, images: FloatArray, gates: FloatArray | None = None) -> FloatArray:
        """See `Backend`."""
        batch = self._place(images).contiguous(memory_format=torch.channels_last)
        if gates is None:
            logits = self._network(batch)
        else:
            logits, _ = self._gated(batch, self._place(gates))
        return np.asarray(torch.sigmoid(logits.float()).cpu().contiguous().numpy())

    @torch.inference_mode()
    def gates(self, images: FloatArray) -> FloatArray:
        """See `Backend`."""
        _, seen = self._gated(self._place(images))
        return np.asarray(seen.float().cpu().numpy())

    def _place(self, values: FloatArray) -> torch.Tensor:
        """On the network's device: while it is trained that may be another than the CPU."""
        weights = next(self._network.parameters(), None)
        tensor = torch.from_numpy(values)
        return tensor if weights is None else tensor.to(weights.device)

    @functools.cached_property
    def _gated(self) -> GatedNetwork:
        return GatedNetwork(self._network).eval()


class OnnxRuntimeBackend:
    """Runs an ONNX model in ONNX Runtime, on the CPU.

    Raises:
        ModelError: The content is no model that the installed ONNX Runtime understands.
        MissingExtraError: ONNX Runtime is not installed.
    """

    name = "onnxruntime"

    def __init__(self, content: bytes, source: str) -> None:
        runtime = import_extra("onnxruntime", "export", "the backend onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised as well
        # Its threads would wait by spinning, and take the cores from what comes after.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own exceptions have no common base
            raise _unreadable(source, "ONNX Runtime", error) from error
        session = self._session
        _check_ends(
            source,
            {end.name: list(end.shape) for end in session.get_inputs()},
            {end.name: list(end.shape) for end in session.get_outputs()},
        )

    def __call__(self, images: FloatArray, gates: FloatArray | None = None) -> FloatArray:
        """See `Backend`."""
        feed = {"image": images}
        if gates is not None:
            feed |= {GATES_INPUT: gates, OWN_INPUT: np.zeros((), dtype=np.float32)}
        return np.asarray(self._session.run(["probability"], feed)[0])

    def gates(self, images: FloatArray) -> FloatArray:
        """See `Backend`."""
        return np.asarray(self._session.run(["gates"], {"image": images})[0])

    def card_text(self) -> str | None:
        """The card in the model's metadata."""
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return metadata.get(CARD_KEY)


class OpenVinoBackend:
    """Runs an ONNX model or an OpenVINO model in OpenVINO, on the CPU.

    Raises:
        ModelError: The content is no model that the installed OpenVINO understands.
        MissingExtraError: OpenVINO is not installed.
    """

    name = "openvino"

    def __init__(self, content: bytes | Path, source: str) -> None:
        openvino = import_extra("openvino", "export", "the backend openvino")
        self._core = openvino.Core()
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._static: dict[tuple[int, ...], Any] = {}
        try:
            self._model = self._core.read_model(content)
            self._request = self._compile(self._model)
        except Exception as error:  # RuntimeError, mostly
            raise _unreadable(source, "OpenVINO", error) from error
        outputs = _ends(self._model.outputs)
        _check_ends(source, _ends(self._model.inputs), outputs)
        self._count = outputs["gates"][1] or 0

    def __call__(self, images: FloatArray, gates: FloatArray | None = None) -> FloatArray:
        """See `Backend`."""
        if gates is None:
            request = self._request_for(images.shape)
            return np.array(request.infer({"image": images})["probability"])
        own = np.zeros((), dtype=np.float32)
        feed = {"image": images, GATES_INPUT: gates, OWN_INPUT: own}
        return np.array(self._gated.infer(feed)["probability"])

    def gates(self, images: FloatArray) -> FloatArray:
        """See `Backend`."""
        # By the request that the tiles will need: each holds memory of its own.
        own = np.ones((), dtype=np.float32)
        none = np.zeros((1, self._count), dtype=np.float32)
        feed = {"image": images, GATES_INPUT: none, OWN_INPUT: own}
        return np.array(self._gated.infer(feed)["gates"])

    def card_text(self) -> str | None:
        """The card in the model's metadata."""
        for place in ([CARD_KEY], ["framework", CARD_KEY]):  # its own files; ONNX files
            if self._model.has_rt_info(place):
                return str(self._model.get_rt_info(place).value)
        return None

    def _request_for(self, shape: tuple[int, ...]) -> Any:
        """What computes this shape: compiled for it alone if it comes again and again."""
        self._seen[shape] += 1
        if self._seen[shape] == _REPEATED and len(self._static) < _MOST_STATIC:
            model = self._model.clone()
            model.reshape({"image": list(shape)})
            self._static[shape] = self._compile(model)
        return self._static.get(shape, self._request)

    @functools.cached_property
    def _gated(self) -> Any:
        """The model with the inputs that OpenVINO takes for constants: they have defaults."""
        openvino = import_extra("openvino", "export", "the backend openvino")
        model = self._model.clone()
        parameters = []
        for node in model.get_ops():
            if node.get_friendly_name() in (GATES_INPUT, OWN_INPUT):
                end = node.output(0)
                parameter = openvino.opset13.parameter(end.get_partial_shape(), np.float32)
                parameter.output(0).set_names({node.get_friendly_name()})
                for target in end.get_target_inputs():
                    target.replace_source_output(parameter.output(0))
                parameters.append(parameter)
        model.add_parameters(parameters)
        return self._compile(model)

    def _compile(self, model: Any) -> Any:
        # Exactness first: some processors would compute in 16 bits by default.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        return self._core.compile_model(model, "CPU", settings).create_infer_request()


BACKENDS: Final = ("torch", "onnxruntime", "openvino")
"""Names that `open_model` takes."""

_FASTEST_FIRST: Final = ("openvino", "onnxruntime", "torch")
RUNS: Final = {".onnx": ("openvino", "onnxruntime"), ".xml": ("openvino",)}
"""What runs an exported file, by its suffix, fastest first."""


def open_model(name_or_path: str | Path, backend: str = "auto") -> tuple[Backend, ModelCard]:
    """Load a model of any kind for inference.

    Args:
        name_or_path: A bundled model, or the path of a weights file (.safetensors), an ONNX model
            (.onnx) or an OpenVINO model (.xml, its .bin beside it).
        backend: One of `BACKENDS`, or "auto": the fastest of them that is installed and can run
            the file.

    Raises:
        ModelError: The model is unknown, damaged, not pinglow's, or cannot run on this backend.
        MissingExtraError: The backend is not installed.
        OptionError: The backend is unknown.
    """
    if backend not in ("auto", *BACKENDS):
        raise OptionError(f"backend {backend!r} is unknown: use auto, {', '.join(BACKENDS)}")
    path = find_model(name_or_path)
    runs = RUNS.get(path.suffix.lower())
    if runs:
        return _open_exported(path, backend, runs)
    network, card = load_network(path)
    if backend == "auto":
        try:
            return _open_converted(path, network, card, _choose(path)), card
        except PinglowError as error:
            _logger.warning("running on torch: %s", error)
            backend = "torch"
    return _open_converted(path, network, card, backend), card


def _open_converted(path: Path, network: nn.Module, card: ModelCard, backend: str) -> Backend:
    if backend == "torch":
        return TorchBackend.fastest(network)
    runtime, cached = _RUNTIMES[backend], _cached_path(path)
    if cached is not None and cached.is_file():
        try:
            return runtime(cached.read_bytes(), str(cached))
        except ModelError:  # damaged: make it anew
            cached.unlink(missing_ok=True)
    _logger.warning("preparing %s for this machine's runtime (once)", card.name)
    content = convert_to_onnx(network, card)
    opened = runtime(content, card.name)
    if cached is not None:
        try:
            write_atomically(cached, content)
        except OSError:  # a read-only home: convert again next time
            _logger.warning("%s cannot be written: the next start prepares again", cached.parent)
    return opened


def _open_exported(path: Path, backend: str, runs: tuple[str, ...]) -> tuple[Backend, ModelCard]:
    if backend == "auto":
        backend = next((name for name in runs if is_installed(name)), runs[0])
    if backend not in runs:
        raise ModelError(f"{path} cannot run on {backend}; use {' or '.join(runs)}, or auto")
    content: bytes | Path = path if path.suffix.lower() == ".xml" else path.read_bytes()
    opened = _RUNTIMES[backend](content, str(path))
    text = opened.card_text()
    if text is None:
        raise ModelError(f"{path} has no pinglow card; use a model that pinglow export has written")
    return opened, parse_card(text, path)


def _cached_path(path: Path) -> Path | None:
    """Where a model's conversion is kept; None where there is no home for it."""
    from pinglow import __version__

    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return folder / f"{path.stem}-{digest}-{__version__}-{GRAPH}.onnx"


def _choose(path: Path) -> str:
    """The fastest installed backend; one that needs a conversion only if it can be had."""
    cached = _cached_path(path)
    convertible = is_installed("onnxscript") or (cached is not None and cached.is_file())
    ready = [name for name in _FASTEST_FIRST if is_installed(name)]
    return ready[0] if convertible else "torch"


_RUNTIMES: Final[dict[str, Callable[[Any, str], OnnxRuntimeBackend | OpenVinoBackend]]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
}


def _check_ends(source: str, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> None:
    """See that a model has the ends that `convert_to_onnx` gives it."""
    for name, ends in (("image", inputs), ("probability", outputs)):
        shape = ends.get(name, [])
        if len(shape) != 4 or shape[1] != 1 or "gates" not in outputs:
            raise ModelError(
                f"{source} has inputs {inputs} and outputs {outputs} where image and probability "
                "of (batch, 1, height, width) are needed; use a model that pinglow export has "
                "written"
            )


def _ends(ends: Any) -> dict[str, list[int | None]]:
    """Names and shapes of an OpenVINO model's inputs or outputs; None is any size."""
    shapes = {}
    for end in ends:
        shape = end.get_partial_shape()
        sides = [] if shape.rank.is_dynamic else list(shape)
        name = end.get_any_name() if end.get_names() else ""
        shapes[name] = [None if side.is_dynamic else side.get_length() for side in sides]
    return shapes


def _unreadable(source: str, runtime: str, error: Exception) -> ModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ModelError(
        f"{source} is damaged, or of a kind that the installed {runtime} does not run "
        f"({(lines or [repr(error)])[-1][:150]}); export it again"
    )
