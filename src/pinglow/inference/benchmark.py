"""Time models on backends: all take turns, so that a busy machine is busy for all of them."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pinglow.errors import OptionError
from pinglow.extras import is_installed
from pinglow.inference.backends import (
    BACKENDS,
    RUNS,
    Backend,
    OnnxRuntimeBackend,
    OpenVinoBackend,
    TorchBackend,
    open_model,
)
from pinglow.inference.conversion import convert_to_onnx
from pinglow.inference.weights import ModelCard, build_network, find_model
from pinglow.nn import PinwheelUNet, fold_kernels

FORMS: Final[dict[str, Callable[[], PinwheelUNet]]] = {
    "mshnet": PinwheelUNet.mshnet,
    "paper": PinwheelUNet.paper,
}
"""Networks without weights, for comparison: speed does not depend on the weights."""

_WARM_UP: Final = 3  # turns; a backend may compile for a shape that repeats
_IN_A_ROW: Final = 3
_PEAK_SIDE: Final = 2048  # of the matrices whose product measures the machine


@dataclass(frozen=True)
class Timing:
    """How fast a model is on a backend, at batch 1.

    Attributes:
        model: As it was named.
        backend: As in `BACKENDS`.
        parameters: Of the network.
        macs: Multiplications and additions for one image, in pairs.
        median: Seconds an image, of all repetitions.
        p95: Seconds that 95 % of the repetitions stay below.
        peak_memory: Bytes that a process with this model alone takes at most, libraries included;
            0 if it failed.
        peak_share: Floating-point operations a second, as a share of what a large matrix product
            reaches on this machine.
    """

    model: str
    backend: str
    parameters: int
    macs: int
    median: float
    p95: float
    peak_memory: int
    peak_share: float


def measure_speed(
    models: Sequence[str],
    backends: Sequence[str],
    size: tuple[int, int],
    repeats: int = 30,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Timing]:
    """Time every model on every backend that can run it.

    Args:
        models: Names or paths of models, or keys of `FORMS`.
        backends: Names in `BACKENDS`; an exported file is left out where it cannot run.
        size: Height and width at the network's input, pixels, at least 32.
        repeats: Turns; in each a model runs four times, of which the first is not counted.
        on_progress: Called with the number of steps done, and of all.

    Raises:
        ModelError: A model is unknown or damaged.
        OptionError: No model runs on any of the backends.
        MissingExtraError: A backend is not installed.
    """
    pairs = [(model, backend) for model in models for backend in backends if _runs(model, backend)]
    if not pairs:
        raise OptionError(f"none of {', '.join(models)} runs on {', '.join(backends)}")
    steps = 2 * len(pairs) + repeats
    opened = []
    for done, pair in enumerate(pairs, start=1):
        opened.append(_open(*pair))
        on_progress(done, steps)
    image = np.random.default_rng(0).standard_normal((1, 1, *size), dtype=np.float32)
    times: list[list[float]] = [[] for _ in pairs]
    peaks = []
    for turn in range(_WARM_UP + repeats):
        for place, (backend, _) in enumerate(opened):
            backend(image)  # what ran before has the caches and, for a moment, the cores
            for _ in range(_IN_A_ROW):
                begin = time.perf_counter()
                backend(image)
                if turn >= _WARM_UP:
                    times[place].append(time.perf_counter() - begin)
        peaks.append(_matrix_speed())
        on_progress(len(pairs) + max(0, turn - _WARM_UP + 1), steps)
    timings = []
    for place, (model, backend_name) in enumerate(pairs):
        network = opened[place][1]
        macs = count_macs(fold_kernels(network), size)
        middle = float(np.median(times[place]))
        timings.append(
            Timing(
                model=model,
                backend=backend_name,
                parameters=sum(each.numel() for each in network.parameters()),
                macs=macs,
                median=middle,
                p95=float(np.percentile(times[place], 95)),
                peak_memory=_memory_of(model, backend_name, size),
                peak_share=2 * macs / middle / float(np.max(peaks)),
            )
        )
        on_progress(len(pairs) + repeats + place + 1, steps)
    return timings


def count_macs(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds of the convolutions for one image of (height, width)."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 1, *size))
    return int(counter.get_total_flops()) // 2


def installed_backends() -> list[str]:
    """The backends that can run here."""
    return [name for name in BACKENDS if is_installed(name)]


def _runs(model: str, backend: str) -> bool:
    if model in FORMS:
        return True
    return backend in RUNS.get(find_model(model).suffix.lower(), BACKENDS)


def _open(model: str, backend: str) -> tuple[Backend, nn.Module]:
    """A backend, and the network that it runs."""
    if model not in FORMS:
        opened, card = open_model(model, backend)
        return opened, build_network(card.network).eval()
    network = FORMS[model]().eval()
    if backend == "torch":
        return TorchBackend.fastest(network), network
    card = ModelCard(name=model, network={}, parameters=0)
    content = convert_to_onnx(network, card)
    runtime = OnnxRuntimeBackend if backend == "onnxruntime" else OpenVinoBackend
    return runtime(content, model), network


def _matrix_speed() -> float:
    """Floating-point operations a second of a large matrix product, on all cores."""
    matrix = torch.ones(_PEAK_SIDE, _PEAK_SIDE)
    begin = time.perf_counter()
    torch.mm(matrix, matrix)
    return 2 * _PEAK_SIDE**3 / (time.perf_counter() - begin)


def _memory_of(model: str, backend: str, size: tuple[int, int]) -> int:
    """Largest resident size of a process that runs one model, in bytes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report_memory, args=(theirs, model, backend, size))
    process.start()
    theirs.close()
    try:
        return int(ours.recv())
    except EOFError:
        return 0
    finally:
        process.join()


def _report_memory(answer: Any, model: str, backend: str, size: tuple[int, int]) -> None:
    opened, _ = _open(model, backend)
    image = np.zeros((1, 1, *size), dtype=np.float32)
    for _ in range(_WARM_UP):
        opened(image)
    answer.send(_peak_resident())


def _peak_resident() -> int:
    """Largest resident size of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, getrusage would tell the parent's size if that is larger
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def draw_timings(timings: Sequence[Timing], path: Path) -> None:
    """Draw median and p95 latencies as bars into a PNG or SVG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.8 + 0.4 * len(timings)), layout="constrained")
    axes = figure.add_subplot()
    labels = [f"{each.model}, {each.backend}" for each in timings]
    medians = np.array([1e3 * each.median for each in timings])
    beyond = np.array([1e3 * each.p95 for each in timings]) - medians
    axes.barh(labels, medians, xerr=[np.zeros_like(beyond), beyond], color="#f0a000")
    axes.invert_yaxis()
    axes.set_xlabel("ms an image (bar: median, line: to the 95th percentile)")
    figure.savefig(path, dpi=120)
