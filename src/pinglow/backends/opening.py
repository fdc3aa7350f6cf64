"""Which backend runs a model, and on which device.

A model by name or from a weights file runs on any backend: for ONNX Runtime and OpenVINO it is
converted once and kept in the cache folder (``$XDG_CACHE_HOME/pinglow``). An exported file runs as
it is.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Final

import torch
from torch import nn

from pinglow.backends.base import CPU, PRECISIONS, Backend
from pinglow.backends.device import choose_device, why_not
from pinglow.backends.onnxruntime import OnnxRuntimeBackend
from pinglow.backends.openvino import OpenVinoBackend
from pinglow.backends.torch import TorchBackend
from pinglow.errors import ModelError, OptionError, PinglowError
from pinglow.extras import is_installed
from pinglow.files import cache_folder, write_whole
from pinglow.models.card import CARD_KEY, ModelCard, find_model, parse_card
from pinglow.models.conversion import GRAPH, convert_to_onnx
from pinglow.models.weights import load_network

__all__ = ["BACKENDS", "RUNS", "TorchBackend", "open_graph", "open_model"]

_logger = logging.getLogger("pinglow")

BACKENDS: Final = ("torch", "onnxruntime", "openvino")
"""Names that `open_model` takes."""

_FASTEST_FIRST: Final[tuple[str, ...]] = ("openvino", "onnxruntime", "torch")
RUNS: Final = {".onnx": ("openvino", "onnxruntime"), ".xml": ("openvino",)}
"""What runs an exported file, by its suffix, fastest first."""


def open_model(
    name_or_path: str | Path,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "float32",
) -> tuple[Backend, ModelCard]:
    """Load a model of any kind for inference.

    What is chosen here and then does not load is replaced, with a warning: another backend on the
    same device, and the CPU if the device was "auto".

    Args:
        name_or_path: A bundled model, or the path of a weights file (.safetensors), an ONNX model
            (.onnx) or an OpenVINO model (.xml, its .bin beside it).
        backend: One of `BACKENDS`, or "auto": the fastest of them that is installed and can run
            the file on the device.
        device: See `choose_device`.
        precision: One of `PRECISIONS`; the CPU always computes in float32.

    Raises:
        ModelError: The model is unknown, damaged, not pinglow's, or cannot run on this backend.
        MissingExtraError: The backend is not installed.
        OptionError: The backend or the precision is unknown, or the device cannot be used.
    """
    if backend not in ("auto", *BACKENDS):
        raise OptionError(f"backend {backend!r} is unknown: use auto, {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r} is unknown: use {' or '.join(PRECISIONS)}")
    path = find_model(name_or_path)
    runs = RUNS.get(path.suffix.lower(), BACKENDS)
    if backend not in ("auto", *runs):
        raise ModelError(f"{path} cannot run on {backend}; use {' or '.join(runs)}, or auto")
    loaded = None if path.suffix.lower() in RUNS else load_network(path)
    plan = _plan(path, runs, backend, device)
    for (kind, place), following in zip(plan, [*plan[1:], None], strict=True):
        try:
            if loaded is None:
                return _open_exported(path, kind, place, precision)
            return _open_weights(path, *loaded, kind, place, precision), loaded[1]
        except PinglowError as error:
            if following is None:
                raise
            on = following[0] if following[1] == place else " on ".join(map(str, following))
            _logger.warning("running on %s: %s", on, error)
    raise AssertionError("there is always something to try")


def open_graph(
    content: bytes | Path,
    source: str,
    backend: str,
    device: torch.device = CPU,
    precision: str = "float32",
) -> OnnxRuntimeBackend | OpenVinoBackend:
    """Load what `convert_to_onnx` or an export has made; ``source`` names it in errors.

    Raises:
        ModelError: The backend does not understand it.
        MissingExtraError: The backend is not installed, or not for this device.
    """
    if backend == "openvino":
        return OpenVinoBackend(content, source)
    graph = content.read_bytes() if isinstance(content, Path) else content
    return OnnxRuntimeBackend(graph, source, device, precision, cache_folder())


def _plan(
    path: Path, runs: tuple[str, ...], backend: str, device: str
) -> list[tuple[str, torch.device]]:
    """Backends and devices to try, the fastest first; ``runs`` are the backends that could."""
    names = [backend] if backend != "auto" else _ready(path, runs) or [runs[0]]
    chosen = choose_device(device, names)
    plan = []
    if chosen.type == "cuda":
        able = names if "torch" in names or "torch" not in runs else [*names, "torch"]
        plan = [(name, chosen) for name in able if why_not(name, chosen.index) is None]
    if chosen.type == "cpu" or device == "auto":
        plan.append((names[0], CPU))
        if backend == "auto" and "torch" in runs and names[0] != "torch":
            plan.append(("torch", CPU))
    return plan


def _ready(path: Path, runs: tuple[str, ...]) -> list[str]:
    """Backends that are installed, and the conversion that they may need with them."""
    installed = [name for name in _FASTEST_FIRST if name in runs and is_installed(name)]
    if path.suffix.lower() in RUNS:
        return installed
    cached = _cached_path(path)
    convertible = is_installed("onnxscript") or (cached is not None and cached.is_file())
    return installed if convertible else ["torch"]


def _open_weights(
    path: Path,
    network: nn.Module,
    card: ModelCard,
    backend: str,
    device: torch.device,
    precision: str,
) -> Backend:
    if backend == "torch":
        return TorchBackend.fastest(network, device, precision)
    cached = _cached_path(path)
    if cached is not None and cached.is_file():
        try:
            return open_graph(cached.read_bytes(), str(cached), backend, device, precision)
        except ModelError:  # damaged: make it anew
            cached.unlink(missing_ok=True)
    _logger.warning("preparing %s for this machine's runtime (once)", card.name)
    content = convert_to_onnx(network, card)
    opened = open_graph(content, card.name, backend, device, precision)
    if cached is not None:
        try:
            write_whole(cached, content)
        except OSError:  # a read-only home: convert again next time
            _logger.warning("%s cannot be written: the next start prepares again", cached.parent)
    return opened


def _open_exported(
    path: Path, backend: str, device: torch.device, precision: str
) -> tuple[Backend, ModelCard]:
    content = path if path.suffix.lower() == ".xml" else path.read_bytes()
    opened = open_graph(content, str(path), backend, device, precision)
    text = opened.metadata(CARD_KEY)
    if text is None:
        raise ModelError(f"{path} has no pinglow card; use a model that pinglow export has written")
    return opened, parse_card(text, path)


def _cached_path(path: Path) -> Path | None:
    """Where a model's conversion is kept."""
    from pinglow._version import __version__

    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return folder / f"{path.stem}-{digest}-{__version__}-{GRAPH}.onnx"
