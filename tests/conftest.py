"""Fixtures shared by all tests."""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer.main
import typer.testing

from pinglow.files import write_whole
from recipes import tiny_recipe

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_finish() -> None:
    """Let collecting garbage pass over all modules: they take a third of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real frames beside the checkout; skip where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("needs the real frames in ../shared/data, which are not part of the project")
    return _SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep converted models in a folder of this run, for all its processes."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def _one_command_line() -> Iterator[None]:
    """Let typer build the commands once, not at each call."""
    build = functools.cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", build)
        patch.setattr(typer.testing, "_get_command", build)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread: training runs repeat bit for bit on one only."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what a run draws: it takes longer than a tiny run, and is tested elsewhere."""
    monkeypatch.setattr("pinglow.training.run.draw_curves", lambda run, figure: None)
    monkeypatch.setattr("pinglow.training.run.draw_validation", lambda task, frames, path: None)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of a small network whose probabilities are spread over 0 to 1."""
    # Loaded here, so that tests of what importing pinglow loads stay light.
    import torch

    from pinglow.models.card import ModelCard
    from pinglow.models.registry import build_network
    from pinglow.models.weights import save_model

    config = {"type": "PinwheelUNet", "widths": [8, 8, 16], "depths": [1, 1, 1], "patch": 2}
    torch.manual_seed(0)
    network = build_network(config).train()
    with torch.no_grad():
        for _ in range(5):  # settle BatchNorm
            network(torch.randn(4, 1, 64, 64))
        network.eval()
        logits = network(torch.randn(4, 1, 64, 64))
        factor = 2 / logits.std()
        fuse = network.get_submodule("fuse")
        fuse.bias -= logits.mean()
        fuse.bias *= factor
        fuse.weight *= factor
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    card = ModelCard.model_validate({"name": "small", "network": config, "parameters": 1})
    save_model(path, network, card)
    return path


@pytest.fixture(scope="session")
def exported(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the small model in each format of a file."""
    from pinglow.deploy.export import FORMATS, export_model

    folder = tmp_path_factory.mktemp("exported")
    forms = ("onnx", "openvino")
    reports = {form: export_model(small_model, form, folder / form) for form in forms}
    for form, report in reports.items():
        assert report.path == folder / form / FORMATS[form]
        assert report.size == sum(file.stat().st_size for file in (folder / form).iterdir())
        assert report.difference is not None
        assert 0 < report.difference < 1e-5
        assert report.accuracy is None
    return {form: report.path for form, report in reports.items()}


@pytest.fixture
def save_clip() -> Callable[..., Path]:
    """Return what saves a video of 40 x 32 pixels, in which a bright spot moves a pixel a frame."""
    import av
    import numpy as np

    def save(path: Path, count: int = 20, rate: int = 10) -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=rate)
            stream.width, stream.height, stream.pix_fmt = 40, 32, "gray"
            for number in range(count):
                frame = np.full((32, 40), 50, dtype=np.uint8)
                frame[10:12, 5 + number : 7 + number] = 200
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
            container.mux(stream.encode())
        return path

    return save


@pytest.fixture(autouse=True)
def _auto_is_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let auto be the CPU where there is a card, too, but for tests that make up cards."""
    device = sys.modules.get("pinglow.backends.device")  # not imported for tests without it
    if device is not None and "have_cards" not in request.fixturenames:
        monkeypatch.setattr(device, "_first_card", lambda backends: device.CPU)


@pytest.fixture(scope="session", autouse=True)
def _trace_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the graphs of our own networks, for all workers: to trace one takes half a minute."""
    if importlib.util.find_spec("torch") is None:
        yield
        return
    import torch

    from pinglow.models import conversion
    from pinglow.nn import PinwheelUNet

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "graphs"
    folder.mkdir(exist_ok=True)
    trace, export = conversion._trace, torch.onnx.export

    def trace_once(whole: Any, defaults: Any) -> Any:
        import onnx

        ours = isinstance(whole.network.network, PinwheelUNet)
        if not ours or torch.onnx.export is not export:  # a test has an exporter of its own
            return trace(whole, defaults)
        weights = [value.numpy().tobytes() for value in whole.state_dict().values()]
        key = hashlib.sha256(b"".join([repr(whole).encode(), *weights])).hexdigest()
        graph = folder / f"{key}.onnx"
        with (folder / f"{key}.lock").open("w") as lock:
            if fcntl is not None:  # the other worker waits for this one
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not graph.exists():
                write_whole(graph, trace(whole, defaults).SerializeToString(), durable=False)
        return onnx.load_from_string(graph.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "_trace", trace_once)
        yield


@pytest.fixture
def have_cards(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return what makes PyTorch and the driver show so many cards; nothing can compute on them."""
    import torch

    import pinglow.backends.torch
    from pinglow.backends import device, onnxruntime

    def set_up(count: int) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(pinglow.backends.torch, "_compute_on", lambda place: None)
        monkeypatch.setattr(device, "_has_driver", lambda: count > 0)
        monkeypatch.setattr(onnxruntime, "count_cards", lambda: count)

    return set_up


@pytest.fixture
def card_runtime(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return an ONNX Runtime for cards, which computes on the CPU.

    ``available`` are its providers, ``missing`` those that do not load, ``fault`` what a session
    raises, ``asked`` the providers that sessions were made with.
    """
    import onnxruntime

    state = SimpleNamespace(
        available=["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
        missing=set(),
        fault=None,
        asked=[],
    )

    def make_session(model: Any, options: Any, providers: Any, enable_fallback: int) -> Any:
        state.asked.append(providers)
        assert not enable_fallback
        if state.fault is not None:
            raise state.fault
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        session.get_providers = lambda: [name for name in names if name not in state.missing]
        return session

    runtime = SimpleNamespace(
        __spec__=onnxruntime.__spec__,
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=make_session,
        get_available_providers=lambda: state.available,
        set_default_logger_severity=lambda level: None,
        preload_dlls=lambda: print("Failed to load libcudnn.so.9"),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    return state


@pytest.fixture(scope="session")
def offline_detectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep ultralytics off the network and out of the user's settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_OFFLINE", "true")
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))
        patch.setenv("YOLO_AUTOINSTALL", "false")
        yield


@pytest.fixture(scope="session")
def detector_weights(tmp_path_factory: pytest.TempPathFactory, offline_detectors: None) -> Path:
    """Return the weights of a small detector that is not trained, and finds boxes everywhere."""
    pytest.importorskip("torchvision", reason="needs torchvision: pip install '.[detect]'")
    import torch

    from pinglow.models.card import ModelCard
    from pinglow.models.registry import build_network
    from pinglow.models.weights import save_model

    config = {"type": "retinanet-small"}
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("detector") / "weights.safetensors"
    save_model(path, build_network(config), ModelCard(name="d", network=config, parameters=1))
    return path


@pytest.fixture(scope="session")
def box_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder of forty small 14-bit scenes with bright targets."""
    from pinglow.data.synthetic.scenes import SceneSpec, write_dataset

    folder = tmp_path_factory.mktemp("boxes") / "scenes"
    spec = SceneSpec(width=64, height=64, targets=(1, 2), snr=(20, 30), length=(2, 6))
    write_dataset(folder, 40, spec, kinds=("gradient",), seed=1)
    return folder


@pytest.fixture(scope="session")
def make_detector_recipe(box_scenes: Path) -> Callable[..., Any]:
    """Return a function from changes, section by section, to a tiny recipe of a detector."""
    base = {
        "steps": 4,
        "validate_every": 2,
        "network": {"type": "retinanet-small"},
        "optimizer": {"warmup_steps": 1},
    }
    return lambda **changes: tiny_recipe(box_scenes, base, changes)


@pytest.fixture(scope="session")
def on_card() -> Callable[..., Any]:
    """Return what makes a backend of a network that says it is on a card, and notes batches."""
    import torch
    from torch import Tensor, nn

    from pinglow.backends.device import Device
    from pinglow.backends.torch import TorchBackend

    class Card(TorchBackend):
        def __init__(self, network: nn.Module) -> None:
            super().__init__(network)
            self.batches: list[tuple[int, ...]] = []

        @property
        def device(self) -> Device:
            return Device("cuda", 0)

        def _place(self, values: Any) -> Tensor:
            return torch.from_numpy(values)

        def __call__(self, images: Any, *rest: Any, **named: Any) -> Any:
            self.batches.append((*images.shape[:2], *named.get("size", images.shape[2:])))
            return super().__call__(images, *rest, **named)

    return Card
