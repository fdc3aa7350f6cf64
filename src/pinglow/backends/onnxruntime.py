"""A converted model in ONNX Runtime: on the CPU, or on a card by CUDA or TensorRT."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from pinglow.backends.base import Backend
from pinglow.backends.device import (
    CPU,
    Device,
    check_process,
    count_cards,
    other_index,
)
from pinglow.errors import MissingExtraError
from pinglow.extras import how_to_install, import_extra, is_installed
from pinglow.files import cache_folder
from pinglow.models.graph import GATES_INPUT, OWN_INPUT, check_ends, last_line, unreadable
from pinglow.process import limit_of_cores
from pinglow.structures import FloatArray

_Provider = tuple[str, dict[str, Any]]
_ON_A_CARD = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


_ON_THE_CARD: Final = (
    "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]', which is the same "
    "modules for cards"
)


class OnnxRuntimeBackend(Backend):
    """Runs an ONNX model.

    Args:
        model: A file, or its content.
        source: Names it in errors.
        device: Where to compute.
        precision: One of `PRECISIONS`; for a card.
        cache: A folder in which TensorRT keeps its engines; None: they are made at every start.

    Raises:
        ModelError: The content is no model that the installed ONNX Runtime understands.
        MissingExtraError: ONNX Runtime is not installed, or does not load what the card needs.
    """

    name = "onnxruntime"
    suffixes = (".onnx",)

    def __init__(
        self,
        model: Path | bytes,
        source: str,
        device: Device = CPU,
        precision: str = "float32",
        cache: Path | None = None,
    ) -> None:
        runtime = import_extra("onnxruntime", "", "the backend onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised as well
        # Its threads would wait by spinning, and take the cores from what comes after.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # It would start a thread for each core of the machine; where fewer may be used they wait.
        options.intra_op_num_threads = limit_of_cores() or 0  # 0: all
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            available = runtime.get_available_providers()
            exact = precision == "float32"
            tensorrt = not exact and _ON_A_CARD[1] in available and is_installed("tensorrt")
            folder = _engine_folder(cache, model) if tensorrt else None
            providers = [*card_providers(device.index, exact, tensorrt, folder), *providers]
            _load_libraries(runtime, tensorrt)
        self._device = device
        self._process = os.getpid()
        # From its file a bundled model finds its weights.
        given = str(model) if isinstance(model, Path) else model
        try:
            # Its own fallback would print, and silently compute elsewhere.
            self._session = runtime.InferenceSession(
                given, options, providers=providers, enable_fallback=0
            )
        except (ValueError, RuntimeError) as error:
            # Of a provider; what is wrong with a model are other classes, without a common base.
            raise _cannot_use(device, last_line(error)) from error
        except Exception as error:
            raise unreadable(source, "ONNX Runtime", error) from error
        session = self._session
        if device.type == "cuda" and not set(_ON_A_CARD) & set(session.get_providers()):
            raise _cannot_use(device, "its CUDA provider does not load")
        check_ends(
            source,
            {end.name: list(end.shape) for end in session.get_inputs()},
            {end.name: list(end.shape) for end in session.get_outputs()},
        )

    @classmethod
    def why_not(cls, device: Device) -> str | None:
        """See `Backend`."""
        if not is_installed("onnxruntime"):
            return f"ONNX Runtime is not installed; {how_to_install('')}"
        if device == CPU:
            return None
        count = count_cards()
        if not count:
            return "the NVIDIA driver shows no CUDA device; see whether nvidia-smi lists one"
        try:
            runtime = import_extra("onnxruntime", "", "the backend onnxruntime")
        except MissingExtraError as error:
            return str(error)
        if _ON_A_CARD[0] not in runtime.get_available_providers():
            return f"the installed ONNX Runtime is built for the CPU only; {_ON_THE_CARD}"
        return other_index("ONNX Runtime", count) if device.index >= count else None

    @classmethod
    def load(cls, model: Path | bytes, source: str, device: Device, precision: str) -> Self:
        """See `Backend`."""
        return cls(model, source, device, precision, cache_folder())

    @property
    def device(self) -> Device:
        """Where it computes."""
        return self._device

    def run(self, images: FloatArray, gates: FloatArray | None) -> FloatArray:
        """See `Backend`."""
        check_process(self._device, self._process)
        feed = {"image": images}
        if gates is not None:
            feed |= {GATES_INPUT: gates, OWN_INPUT: np.zeros((), dtype=np.float32)}
        return np.asarray(self._session.run(["probability"], feed)[0])

    def gates(self, images: FloatArray) -> FloatArray:
        """See `Backend`."""
        check_process(self._device, self._process)
        return np.asarray(self._session.run(["gates"], {"image": images})[0])

    def release_memory(self) -> None:
        """See `Backend`; a card's memory is kept."""
        if self._device != CPU:
            return
        options = import_extra("onnxruntime", "", "the backend onnxruntime").RunOptions()
        # It shrinks at the end of a run, so there is a small one.
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        image = np.zeros((1, 1, 32, 32), dtype=np.float32)
        self._session.run(["probability"], {"image": image}, options)

    def metadata(self, key: str) -> str | None:
        """What the model's metadata has under a key."""
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return metadata.get(key)


def card_providers(
    index: int, exact: bool, tensorrt: bool, engines: Path | None
) -> list[_Provider]:
    """What ONNX Runtime is asked to compute with on a card, the fastest first.

    Args:
        index: Of the card.
        exact: In float32, without TensorFloat-32.
        tensorrt: Whether there is TensorRT; it cannot be told to be exact.
        engines: The folder for TensorRT's engines of this model; None: they are not kept.
    """
    cuda: dict[str, Any] = {
        "device_id": index,
        "use_tf32": int(not exact),
        # The default tries all algorithms anew for every shape that frames come in.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    providers: list[_Provider] = [("CUDAExecutionProvider", cuda)]
    if tensorrt:
        trt: dict[str, Any] = {"device_id": index}
        if engines is not None:
            trt |= {
                "trt_engine_cache_enable": True,
                "trt_engine_cache_path": str(engines),
                "trt_timing_cache_enable": True,
                "trt_timing_cache_path": str(engines.parent),
            }
        providers.insert(0, ("TensorrtExecutionProvider", trt))
    return providers


def _engine_folder(cache: Path | None, model: Path | bytes) -> Path | None:
    """A folder for one model: by their names, engines of other weights could not be told apart."""
    if cache is None:
        return None
    content = model.read_bytes() if isinstance(model, Path) else model
    folder = cache / "tensorrt" / hashlib.sha256(content).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home
        return None
    return folder


def _load_libraries(runtime: Any, tensorrt: bool) -> None:
    """Load CUDA's and TensorRT's libraries from where pip puts them; what fails is told later."""
    runtime.set_default_logger_severity(4)
    with contextlib.redirect_stdout(None), contextlib.suppress(Exception):
        if hasattr(runtime, "preload_dlls"):  # since ONNX Runtime 1.21
            runtime.preload_dlls()
        if tensorrt:
            importlib.import_module("tensorrt")


def _cannot_use(device: Device, reason: str) -> MissingExtraError:
    return MissingExtraError(
        f"ONNX Runtime cannot use {device} ({reason}): install the CUDA and cuDNN that this "
        "onnxruntime-gpu is built for, or use the backend torch"
    )
