"""Which backend runs a model, and on which device.

Weights run on any backend. Those that take ONNX are given the graph beside a bundled model, or for
other weights one that is converted once and kept in the cache folder (``$XDG_CACHE_HOME/pinglow``).
An exported file runs as it is.
"""

from __future__ import annotations

import hashlib
import logging
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import numpy as np

from pinglow._version import __version__
from pinglow.backends.base import PRECISIONS, Backend
from pinglow.backends.device import CPU, Device, choose_device
from pinglow.backends.onnxruntime import OnnxRuntimeBackend
from pinglow.backends.openvino import OpenVinoBackend
from pinglow.backends.torch import TorchBackend
from pinglow.errors import ModelError, OptionError, PinglowError
from pinglow.extras import import_extra, is_installed
from pinglow.files import cache_folder, remove_parts, write_whole
from pinglow.models.card import (
    CARD_KEY,
    EXPORTED,
    ModelCard,
    bundled_graph,
    find_model,
    parse_card,
    read_card,
)
from pinglow.models.checksum import check_whole, is_whole
from pinglow.models.graph import GRAPH, no_numbers

_logger = logging.getLogger("pinglow")


def _find_backends() -> dict[str, type[Backend]]:
    ours = (OpenVinoBackend, OnnxRuntimeBackend, TorchBackend)
    found: dict[str, type[Backend]] = {backend.name: backend for backend in ours}
    for entry in entry_points(group="pinglow.backends"):
        try:
            found.setdefault(entry.name, entry.load())
        except (ImportError, AttributeError) as error:  # the others go on
            _logger.warning("backend %s does not load and is left out: %s", entry.name, error)
    return found


BACKENDS: Final = _find_backends()
"""Backends by name, fastest first, then those of other packages."""


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
        backend: A name in `BACKENDS`, or "auto": the first of them that is installed and can run
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
    runs = backends_for(path)
    if backend not in ("auto", *runs):
        raise ModelError(f"{path} cannot run on {backend}; use {' or '.join(runs)}, or auto")
    graph = _Graph(path)
    graph.check()
    plan = _plan(graph, runs, backend, device)
    of_model: list[str] = []  # said once another one runs it: what none runs is one error
    for (name, place), following in zip(plan, [*plan[1:], None], strict=True):
        try:
            opened = _open(graph, name, place, precision)
        except PinglowError as error:
            if following is None:
                raise
            on = following[0] if following[1] == place else " on ".join(map(str, following))
            reason = f"running on {on}: {error}"
            if isinstance(error, ModelError):
                of_model.append(reason)
            else:
                _logger.warning(reason)
        else:
            for reason in of_model:
                _logger.warning(reason)
            return opened
    raise AssertionError("there is always something to try")


def backends_for(path: Path) -> list[str]:
    """Names of the backends that could run a file, fastest first."""
    suffix = path.suffix.lower()
    able = {suffix} if suffix in EXPORTED else {".safetensors", ".onnx"}
    return [name for name, backend in BACKENDS.items() if able & set(backend.suffixes)]


class _Graph:
    """The ONNX graph of a model: its own file, that beside a bundled one, or a conversion."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exported = path.suffix.lower() in EXPORTED
        self.ready = path if self.exported else bundled_graph(path)
        self.kept: Path | None = None
        if self.ready is None:
            self.kept = _place_in_cache(path)
            if self.kept is not None and _is_kept(self.kept):
                self.ready = self.kept

    @property
    def obtainable(self) -> bool:
        """Whether there is one, or what it takes to make it."""
        return self.ready is not None or (is_installed("torch") and is_installed("onnxscript"))

    def check(self) -> None:
        """See that there is a whole graph or network, before a backend is blamed for it.

        Raises:
            ModelError: The file is damaged, or of another kind.
        """
        if self.ready is not None and self.ready != self.kept:
            check_whole(self.ready)
        elif self.ready is None and is_installed("torch"):
            from pinglow.models.weights import load_network

            load_network(self.path)

    def open(
        self, backend: type[Backend], card: ModelCard, place: Device, precision: str
    ) -> Backend:
        """Load it, made before if need be."""
        if self.ready is not None:
            try:
                return backend.load(self.ready, str(self.ready), place, precision)
            except ModelError:
                if self.ready != self.kept:
                    raise
                self.kept.unlink(missing_ok=True)  # damaged: make it anew
        _logger.warning("preparing %s for this machine's runtime (once)", card.name)
        import_extra("torch", "train,export", f"converting {self.path} for {backend.name}")
        from pinglow.models.conversion import convert_to_onnx
        from pinglow.models.weights import load_network

        content = convert_to_onnx(*load_network(self.path))
        opened = backend.load(content, card.name, place, precision)
        if self.kept is not None:
            try:
                write_whole(self.kept, content)
                remove_parts(self.kept.parent)
            except OSError:  # a read-only home: convert again next time
                _logger.warning(
                    "%s cannot be written: the next start prepares again", self.kept.parent
                )
        return opened


def _plan(graph: _Graph, runs: list[str], backend: str, device: str) -> list[tuple[str, Device]]:
    """Backends and devices to try, the fastest first; ``runs`` are the backends that could."""
    names = [backend] if backend != "auto" else _ready(graph, runs) or [runs[-1]]
    chosen = choose_device(device, [BACKENDS[name] for name in names])
    plan: list[tuple[str, Device]] = []
    if chosen != CPU:
        able = names if "torch" in names or "torch" not in runs else [*names, "torch"]
        plan = [(name, chosen) for name in able if BACKENDS[name].why_not(chosen) is None]
    if chosen == CPU or device == "auto":
        # What a conversion fails at, PyTorch does, which comes last of ours.
        plan += [(name, CPU) for name in dict.fromkeys((names[0], names[-1]))]
    return plan


def _ready(graph: _Graph, runs: list[str]) -> list[str]:
    """Backends that are installed, with what the model needs for them."""
    suffix = graph.path.suffix.lower()
    return [
        name
        for name in runs
        if BACKENDS[name].why_not(CPU) is None
        and (suffix in BACKENDS[name].suffixes or graph.obtainable)
    ]


def _open(graph: _Graph, name: str, place: Device, precision: str) -> tuple[Backend, ModelCard]:
    backend, path = BACKENDS[name], graph.path
    if graph.exported:
        opened = backend.load(path, str(path), place, precision)
        text = opened.metadata(CARD_KEY)
        if text is None:
            raise ModelError(
                f"{path} has no pinglow card; use a model that pinglow export has written"
            )
        if is_whole(path) is None:
            _check_numbers(opened, path)
        return opened, parse_card(text, path)
    card = read_card(path)
    if path.suffix.lower() in backend.suffixes:
        return backend.load(path, str(path), place, precision), card
    return graph.open(backend, card, place, precision), card


def _check_numbers(backend: Backend, path: Path) -> None:
    """See that a model without a checksum computes numbers.

    Raises:
        ModelError: It does not.
    """
    image = np.random.default_rng(0).standard_normal((1, 1, 32, 32), dtype=np.float32)
    if not np.isfinite(backend(image)).all():
        raise no_numbers(str(path))


def _is_kept(path: Path) -> bool:
    """Whether a conversion is there and whole; otherwise it is made anew."""
    try:
        return path.is_file() and is_whole(path) is True
    except OSError:
        return False


def _place_in_cache(path: Path) -> Path | None:
    """Where a model's conversion is kept."""
    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return folder / f"{path.stem}-{digest}-{__version__}-{GRAPH}.onnx"
