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

from pinglow.backends.base import Backend
from pinglow.backends.device import choose_device, describe_device, why_not
from pinglow.backends.opening import BACKENDS, RUNS, open_graph, open_model
from pinglow.backends.torch import TorchBackend
from pinglow.errors import OptionError
from pinglow.extras import is_installed
from pinglow.models.card import ModelCard, find_model
from pinglow.models.conversion import convert_to_onnx
from pinglow.models.registry import build_network
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
        device: As `describe_device` says it.
        parameters: Of the network.
        macs: Multiplications and additions for one image, in pairs.
        median: Seconds an image, of all repetitions.
        p95: Seconds that 95 % of the repetitions stay below.
        peak_memory: Bytes that a process with this model alone takes at most, libraries included;
            on a card, what PyTorch takes there. 0 if it failed, or is not known: what other
            libraries take on a card.
        peak_share: Floating-point operations a second, as a share of what a large matrix product
            in float32 reaches on this device.
    """

    model: str
    backend: str
    device: str
    parameters: int
    macs: int
    median: float
    p95: float
    peak_memory: int
    peak_share: float


def measure_speed(
    models: Sequence[str],
    backends: Sequence[str] | None,
    size: tuple[int, int],
    repeats: int = 30,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    device: str = "auto",
    precision: str = "float32",
) -> list[Timing]:
    """Time every model on every backend that can run it.

    On a card, the copies to it and back count.

    Args:
        models: Names or paths of models, or keys of `FORMS`.
        backends: Names in `BACKENDS`; an exported file is left out where it cannot run. None:
            all that are installed and can use the device.
        size: Height and width at the network's input, pixels, at least 32.
        repeats: Turns; in each a model runs four times, of which the first is not counted.
        on_progress: Called with the number of steps done, and of all.
        device: See `choose_device`; all run on this one.
        precision: One of `PRECISIONS`.

    Raises:
        ModelError: A model is unknown or damaged.
        OptionError: No model runs on any of the backends, or one of them cannot use the device.
        MissingExtraError: A backend is not installed.
    """
    names, place = _choose(backends, device)
    pairs = [(model, name) for model in models for name in names if _runs(model, name)]
    if not pairs:
        raise OptionError(f"none of {', '.join(models)} runs on {', '.join(names)}")
    steps = 2 * len(pairs) + repeats
    opened = []
    for done, pair in enumerate(pairs, start=1):
        opened.append(_open(*pair, place, precision))
        on_progress(done, steps)
    image = np.random.default_rng(0).standard_normal((1, 1, *size), dtype=np.float32)
    times: list[list[float]] = [[] for _ in pairs]
    peaks = []
    for turn in range(_WARM_UP + repeats):
        for taken, (backend, _) in zip(times, opened, strict=True):
            backend(image)  # what ran before has the caches and, for a moment, the cores
            for _ in range(_IN_A_ROW):
                begin = time.perf_counter()
                backend(image)  # its result is in memory: a card has nothing left to do
                if turn >= _WARM_UP:
                    taken.append(time.perf_counter() - begin)
        peaks.append(_matrix_speed(place))
        on_progress(len(pairs) + max(0, turn - _WARM_UP + 1), steps)
    timings = []
    for number, (model, name) in enumerate(pairs):
        backend, network = opened[number]
        macs = count_macs(fold_kernels(network), size)
        middle = float(np.median(times[number]))
        timings.append(
            Timing(
                model=model,
                backend=backend.name,  # not always what was asked for
                device=describe_device(place),
                parameters=sum(each.numel() for each in network.parameters()),
                macs=macs,
                median=middle,
                p95=float(np.percentile(times[number], 95)),
                peak_memory=_memory_of(model, name, place, precision, size),
                peak_share=2 * macs / middle / float(np.max(peaks)),
            )
        )
        on_progress(len(pairs) + repeats + number + 1, steps)
    return timings


def count_macs(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds of the convolutions for one image of (height, width)."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 1, *size))
    return int(counter.get_total_flops()) // 2


def _choose(backends: Sequence[str] | None, device: str) -> tuple[list[str], torch.device]:
    """The backends that are timed, and the device that all of them run on."""
    installed = [name for name in BACKENDS if is_installed(name)]
    place = choose_device(device, backends or installed)
    if place.type == "cpu":
        return list(backends or installed), place
    reasons = {name: why_not(name, place.index) for name in backends or installed}
    for name, reason in reasons.items():
        if backends and reason:
            raise OptionError(f"backend {name} cannot run on {place}: {reason}, or leave it out")
    return [name for name, reason in reasons.items() if reason is None], place


def _runs(model: str, backend: str) -> bool:
    if model in FORMS:
        return True
    return backend in RUNS.get(find_model(model).suffix.lower(), BACKENDS)


def _open(
    model: str, backend: str, device: torch.device, precision: str
) -> tuple[Backend, nn.Module]:
    """A backend, and the network that it runs."""
    if model not in FORMS:
        opened, card = open_model(model, backend, str(device), precision)
        return opened, build_network(card.network).eval()
    network = FORMS[model]().eval()
    if backend == "torch":
        return TorchBackend.fastest(network, device, precision), network
    card = ModelCard(name=model, network={}, parameters=0)
    return open_graph(convert_to_onnx(network, card), model, backend, device, precision), network


def _matrix_speed(device: torch.device) -> float:
    """Floating-point operations a second of a large matrix product, on all cores or on a card."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return float("inf")  # the card is another runtime's
    matrix = torch.ones(_PEAK_SIDE, _PEAK_SIDE, device=device)
    _finish(device)
    begin = time.perf_counter()
    torch.mm(matrix, matrix)
    _finish(device)
    return 2 * _PEAK_SIDE**3 / (time.perf_counter() - begin)


def _finish(device: torch.device) -> None:
    """Wait for what a card has still to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory_of(
    model: str, backend: str, device: torch.device, precision: str, size: tuple[int, int]
) -> int:
    """Peak memory of a process that runs one model, in bytes; on a card, of that."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, model, backend, device, precision, size)
    process = context.Process(target=_report_memory, args=arguments)
    process.start()
    theirs.close()
    try:
        return int(ours.recv())
    except EOFError:
        return 0
    finally:
        process.join()


def _report_memory(
    answer: Any,
    model: str,
    backend: str,
    device: torch.device,
    precision: str,
    size: tuple[int, int],
) -> None:
    opened, _ = _open(model, backend, device, precision)
    image = np.zeros((1, 1, *size), dtype=np.float32)
    for _ in range(_WARM_UP):
        opened(image)
    if device.type == "cpu":
        answer.send(_peak_resident())
    else:
        known = opened.name == "torch"
        answer.send(torch.cuda.max_memory_allocated(device) if known else 0)


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
