"""A converted model in OpenVINO, on the CPU."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from pinglow.backends.base import Backend
from pinglow.backends.device import CPU, Device
from pinglow.extras import how_to_install, import_extra, is_installed
from pinglow.models.graph import GATES_INPUT, OWN_INPUT, check_ends, no_numbers, unreadable
from pinglow.process import limit_of_cores
from pinglow.structures import FloatArray

_REPEATED: Final = 8  # images of one shape after which OpenVINO compiles for it
_MOST_STATIC: Final = 4  # shapes that it does so for
_ONNX_START: Final = b"\x08"  # the tag of the version, which comes first


@functools.cache
def shared_core() -> Any:
    """OpenVINO's core, one for the whole process, with its CPU plug-in loaded.

    The plug-in gives the thread that loads it a stack for signals, and puts the one before back
    when it goes. Of two that go in the order in which they came, the second puts back the
    first's, which is gone, and the next signal that Python handles crashes the process.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    core = import_extra("openvino", "openvino", "the backend openvino").Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return core


class _Requests:
    """A compiled model, with as many requests as threads compute with it at once."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free = [compiled.create_infer_request()]

    def infer(self, feed: dict[str, Any], output: str) -> FloatArray:
        """One output for what is fed; each request holds memory of its own and computes alone."""
        try:
            request = self._free.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            return np.array(request.infer(feed)[output])
        finally:
            self._free.append(request)

    def release_memory(self) -> None:
        """Give back what the runtime keeps for the next image."""
        self._compiled.release_memory()


class OpenVinoBackend(Backend):
    """Runs an ONNX model or an OpenVINO model.

    Args:
        model: A file, or the content of an ONNX model.
        source: Names it in errors.

    Raises:
        ModelError: The content is no model that the installed OpenVINO understands.
        MissingExtraError: OpenVINO is not installed.
    """

    name = "openvino"
    suffixes = (".onnx", ".xml")

    def __init__(self, model: Path | bytes, source: str) -> None:
        self._core = shared_core()
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._static: dict[tuple[int, ...], _Requests] = {}
        self._lock = threading.RLock()
        self._after = _REPEATED
        try:
            if isinstance(model, Path) and model.suffix == ".onnx":
                with model.open("rb") as file:  # else TensorFlow's reader, too, has its say
                    if file.read(1) != _ONNX_START:
                        raise ValueError("it does not begin as ONNX does")
            self._model = self._core.read_model(model)
            self._dynamic = self._compile(self._model)
        except Exception as error:  # RuntimeError, mostly
            raise unreadable(source, "OpenVINO", error) from error
        outputs = _ends(self._model.outputs)
        check_ends(source, _ends(self._model.inputs), outputs)
        # OpenVINO's ReLU makes 0 of NaN, so that no answer would tell.
        constants = [op.data for op in self._model.get_ops() if op.get_type_name() == "Constant"]
        weights = [each for each in constants if each.dtype.kind == "f" and each.ndim > 1]
        if not all(np.isfinite(each).all() for each in weights):
            raise no_numbers(source)
        self._count = outputs["gates"][1] or 0

    @classmethod
    def why_not(cls, device: Device) -> str | None:
        """See `Backend`."""
        if not is_installed("openvino"):
            return f"OpenVINO is not installed; {how_to_install('openvino')}"
        if device != CPU:
            return "OpenVINO computes on the CPU only; use the backend torch or onnxruntime"
        return None

    @classmethod
    def load(cls, model: Path | bytes, source: str, device: Device, precision: str) -> Self:
        """See `Backend`."""
        return cls(model, source)

    @property
    def device(self) -> Device:
        """The CPU."""
        return CPU

    def run(self, images: FloatArray, gates: FloatArray | None) -> FloatArray:
        """See `Backend`."""
        feed: dict[str, Any] = {"image": images}
        if gates is None or not self._count:
            requests = self._requests_for(tuple(images.shape))
        else:
            requests = self._gated
            feed |= {GATES_INPUT: gates, OWN_INPUT: np.zeros((), dtype=np.float32)}
        return requests.infer(feed, "probability")

    def gates(self, images: FloatArray) -> FloatArray:
        """See `Backend`."""
        if not self._count:  # a network without channel attention
            return np.zeros((len(images), 0), dtype=np.float32)
        # By the model that the tiles will need: each compiled one holds memory of its own.
        own = np.ones((), dtype=np.float32)
        none = np.zeros((1, self._count), dtype=np.float32)
        feed = {"image": images, GATES_INPUT: none, OWN_INPUT: own}
        return self._gated.infer(feed, "gates")

    def release_memory(self) -> None:
        """See `Backend`."""
        with self._lock:
            gated = self.__dict__.get("_compiled_gated")
            for each in (self._dynamic, *self._static.values(), *([gated] if gated else [])):
                each.release_memory()

    def metadata(self, key: str) -> str | None:
        """What the model's metadata has under a key."""
        for place in ([key], ["framework", key]):  # its own files; ONNX files
            if self._model.has_rt_info(place):
                return str(self._model.get_rt_info(place).value)
        return None

    def make_repeatable(self) -> None:
        """See `Backend`: each shape is compiled for, where it matters to the last bits."""
        self._after = 1

    def _requests_for(self, shape: tuple[int, ...]) -> _Requests:
        """What computes this shape: compiled for it alone if it comes again and again."""
        with self._lock:
            self._seen[shape] += 1
            if self._after == 1 and shape not in self._static:
                self._seen[shape] = 1
                if len(self._static) == _MOST_STATIC:  # the oldest makes room
                    self._static.pop(next(iter(self._static)))
            if self._seen[shape] == self._after and len(self._static) < _MOST_STATIC:
                model = self._model.clone()
                model.reshape({"image": list(shape)})
                self._static[shape] = self._compile(model)
        return self._static.get(shape, self._dynamic)

    @property
    def _gated(self) -> _Requests:
        """What computes with gates from elsewhere; compiled when it is first needed."""
        with self._lock:
            return self._compiled_gated

    @functools.cached_property
    def _compiled_gated(self) -> _Requests:
        """The model with the inputs that OpenVINO takes for constants: they have defaults."""
        openvino = import_extra("openvino", "openvino", "the backend openvino")
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

    def _compile(self, model: Any) -> _Requests:
        settings = {"PERFORMANCE_HINT": "LATENCY"}
        # Exactness first: some processors would compute in 16 bits by default.
        settings["INFERENCE_PRECISION_HINT"] = "f32"
        # Processes with a thread each would all take the first core.
        settings["ENABLE_CPU_PINNING"] = "NO"
        if (cores := limit_of_cores()) is not None:
            settings["INFERENCE_NUM_THREADS"] = str(cores)
        return _Requests(self._core.compile_model(model, "CPU", settings))


def _ends(ends: Any) -> dict[str, list[int | None]]:
    """Names and shapes of an OpenVINO model's inputs or outputs; None is any size."""
    shapes = {}
    for end in ends:
        shape = end.get_partial_shape()
        sides = [] if shape.rank.is_dynamic else list(shape)
        name = end.get_any_name() if end.get_names() else ""
        shapes[name] = [None if side.is_dynamic else side.get_length() for side in sides]
    return shapes
