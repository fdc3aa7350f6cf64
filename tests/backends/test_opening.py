from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pinglow.backends import opening as backends
from pinglow.backends import openvino
from pinglow.backends.opening import BACKENDS, open_model
from pinglow.deploy.export import check_parity
from pinglow.errors import MissingExtraError, ModelError, OptionError
from pinglow.models.card import bundled_models, read_card
from pinglow.models.registry import build_network
from pinglow.models.weights import load_network, save_model

RUNTIMES = [name for name in BACKENDS if name != "torch"]


def images(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize(
    "shape", [(1, 1, 32, 32), (8, 1, 33, 47), (2, 1, 64, 128), (3, 1, 131, 35)]
)
def test_every_backend_is_the_network(
    small_model: Path, name: str, shape: tuple[int, int, int, int]
) -> None:
    torch_backend, card = open_model(small_model, "torch")
    backend, same_card = open_model(small_model, name)
    assert (backend.name, same_card) == (name, card)
    batch = images(*shape)
    expected = torch_backend(batch)
    assert expected.std() > 0.1
    np.testing.assert_allclose(backend(batch), expected, atol=1e-5)
    gates = torch_backend.gates(batch)
    assert gates.shape == (shape[0], 48)
    np.testing.assert_allclose(backend.gates(batch), gates, atol=1e-5)


@pytest.mark.parametrize("name", BACKENDS)
def test_gates_from_elsewhere_are_used(small_model: Path, name: str) -> None:
    backend, _ = open_model(small_model, name)
    batch = images(2, 1, 48, 48)
    plain = backend(batch)
    single = backend.gates(batch[:1])
    assert single.shape == (1, 48)
    np.testing.assert_allclose(backend(batch[:1], single), plain[:1], atol=1e-5)
    reference, _ = open_model(small_model, "torch")
    other = np.full((1, 48), 0.3, dtype=np.float32)
    fixed = backend(batch, other)
    np.testing.assert_allclose(fixed, reference(batch, other), atol=1e-5)
    assert np.abs(fixed - plain).max() > 1e-3
    np.testing.assert_array_equal(backend(batch), plain)


def test_auto_takes_the_fastest_that_is_installed(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"openvino", "onnxruntime", "torch", "onnxscript"}
    for module in ("opening", "openvino", "onnxruntime", "torch"):
        monkeypatch.setattr(f"pinglow.backends.{module}.is_installed", lambda name: name in there)
    assert open_model(small_model)[0].name == "openvino"
    there.remove("openvino")
    assert open_model(small_model)[0].name == "onnxruntime"
    there.remove("onnxscript")  # what was converted before needs it no more
    assert open_model(small_model)[0].name == "onnxruntime"
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    assert open_model(small_model)[0].name == "torch"
    there |= {"onnxscript"}
    there.remove("onnxruntime")
    assert open_model(small_model)[0].name == "torch"


def test_a_conversion_is_kept(
    small_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_model(small_model, "onnxruntime")
    monkeypatch.setattr("pinglow.models.conversion.convert_to_onnx", None)
    caplog.clear()
    open_model(small_model, "onnxruntime")
    assert not [record for record in caplog.records if record.name == "pinglow"]


def test_a_cache_that_cannot_be_written_is_said(
    small_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    backend, _ = open_model(small_model, "onnxruntime")
    assert backend(images(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    said = [record.message for record in caplog.records if record.name == "pinglow"]
    assert len(said) == 2
    assert said[0] == "preparing small for this machine's runtime (once)"
    assert "cannot be written" in said[1]


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_missing_runtime_is_one_sentence(
    small_model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    open_model(small_model, name)  # converted
    monkeypatch.setitem(sys.modules, name, None)
    # As in a process that has no core yet.
    monkeypatch.setattr(openvino, "shared_core", openvino.shared_core.__wrapped__)
    with pytest.raises(MissingExtraError, match=rf"the backend {name} needs {name}.*pip install"):
        open_model(small_model, name)


def test_an_unknown_backend_is_refused(small_model: Path) -> None:
    with pytest.raises(
        OptionError, match="'tpu' is unknown: use auto, openvino, onnxruntime, torch"
    ):
        open_model(small_model, "tpu")


def test_a_network_that_cannot_be_converted_is_refused(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr("torch.onnx.export", fail)
    network, card = load_network(small_model)
    other = tmp_path / "other.safetensors"
    save_model(other, network, card.model_copy(update={"name": "other"}))
    with pytest.raises(ModelError, match=r"other cannot be converted.*\(no such\).*torch backend"):
        open_model(other, "openvino")
    assert open_model(other)[0].name == "torch"  # auto makes do


def test_a_network_that_pools_too_far_is_refused_by_all_but_torch(
    small_model: Path, tmp_path: Path
) -> None:
    _, card = load_network(small_model)
    config = card.network | {"widths": [4] * 6, "depths": [1] * 6}
    path = tmp_path / "deep.safetensors"
    save_model(path, build_network(config), card.model_copy(update={"network": config}))
    with pytest.raises(ModelError, match="pools over more than 32 pixels"):
        open_model(path, "onnxruntime")
    assert open_model(path)[0](images(1, 1, 40, 40)).shape == (1, 1, 40, 40)


def test_a_damaged_conversion_is_made_anew(small_model: Path, cache: Path) -> None:
    open_model(small_model, "onnxruntime")
    (kept,) = (cache / "pinglow").glob("small-*.onnx")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:1000])
    backend, _ = open_model(small_model, "onnxruntime")
    assert backend(images(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    assert kept.read_bytes() == whole


def test_without_a_home_nothing_is_kept(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    assert open_model(small_model)[0].name == "openvino"


def test_openvino_compiles_for_a_shape_that_repeats(small_model: Path) -> None:
    backend, _ = open_model(small_model, "openvino")
    batch = images(1, 1, 41, 75)
    results = [backend(batch) for _ in range(12)]
    for result in results:
        np.testing.assert_allclose(result, results[0], atol=1e-5)
    assert list(backend._static) == [(1, 1, 41, 75)]  # type: ignore[attr-defined]
    np.testing.assert_allclose(
        backend(images(1, 1, 64, 64)),
        open_model(small_model, "torch")[0](images(1, 1, 64, 64)),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", bundled_models())
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_bundled_graph_is_the_weights_beside_it(name: str, runtime: str) -> None:
    weights = bundled_models()[name]
    graph = weights.with_suffix(".onnx")
    backend, card = open_model(graph, runtime, "cpu")
    assert card == read_card(weights)
    network, _ = load_network(weights)
    assert check_parity(backends.TorchBackend(network), backend) < 1e-4


def test_another_package_adds_a_backend_and_a_broken_one_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Other(backends.OnnxRuntimeBackend):
        name = "other"

    entry = SimpleNamespace(name="other", load=lambda: Other)
    broken = EntryPoint("broken", "no_such_package:Backend", "pinglow.backends")
    monkeypatch.setattr(backends, "entry_points", lambda group: [broken, entry])
    monkeypatch.setattr(backends, "BACKENDS", backends._find_backends())
    backend, card = open_model("pinglow-fast", "other", "cpu")
    assert (backend.name, card.name) == ("other", "pinglow-fast")
    assert backend(images(1, 1, 32, 32)).shape == (1, 1, 32, 32)


# --- on a card -----------------------------------------------------------------------------------

Opened = list[tuple[str, str, str]]


@pytest.fixture
def opened(
    small_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    card_runtime: SimpleNamespace,
    have_cards: Callable[[int], None],
) -> Opened:
    """Let there be two cards; return where PyTorch's backends were put, which stay on the CPU."""
    open_model(small_model, "onnxruntime", "cpu")  # PyTorch's exporter would look at the cards
    card_runtime.asked.clear()
    seen: Opened = []
    fastest = backends.TorchBackend.fastest

    def note(network: Any, device: torch.device, precision: str) -> backends.TorchBackend:
        seen.append(("torch", str(device), precision))
        return fastest(network)

    monkeypatch.setattr(backends.TorchBackend, "fastest", note)
    have_cards(2)
    return seen


def said_by(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.message for record in caplog.records if record.name == "pinglow"]
    caplog.clear()
    return [message for message in said if not message.startswith("preparing")]


def test_on_a_card_auto_takes_onnx_runtime_else_torch(
    small_model: Path, opened: Opened, card_runtime: SimpleNamespace
) -> None:
    backend, _ = open_model(small_model)
    assert (backend.name, str(backend.device)) == ("onnxruntime", "cuda:0")
    backend, _ = open_model(small_model, device="cuda:1", precision="tf32")
    assert str(backend.device) == "cuda:1"
    assert card_runtime.asked[-1][0][1]["device_id"] == 1
    assert card_runtime.asked[-1][0][1]["use_tf32"] == 1
    card_runtime.available = ["CPUExecutionProvider"]
    assert open_model(small_model, device="cuda:1", precision="tf32")[0].name == "torch"
    assert opened == [("torch", "cuda:1", "tf32")]


def test_the_cpu_can_be_asked_for_where_there_is_a_card(
    small_model: Path, opened: Opened, card_runtime: SimpleNamespace
) -> None:
    assert open_model(small_model, device="cpu")[0].name == "openvino"
    assert str(open_model(small_model, "onnxruntime", "cpu")[0].device) == "cpu"
    assert card_runtime.asked == [["CPUExecutionProvider"]]


def test_openvino_stays_on_the_cpu(small_model: Path, opened: Opened) -> None:
    backend, _ = open_model(small_model, "openvino")
    assert (backend.name, str(backend.device)) == ("openvino", "cpu")
    with pytest.raises(OptionError, match="device 'cuda' cannot be used: OpenVINO computes on the"):
        open_model(small_model, "openvino", "cuda")


@pytest.mark.parametrize("asked", ["auto", "onnxruntime"])
def test_a_provider_that_does_not_load_gives_way_to_torch_with_one_warning(
    small_model: Path,
    opened: Opened,
    card_runtime: SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
    asked: str,
) -> None:
    card_runtime.missing = {"CUDAExecutionProvider"}
    assert open_model(small_model, asked, "cuda:1")[0].name == "torch"
    assert opened == [("torch", "cuda:1", "float32")]
    (said,) = said_by(caplog)
    assert said.startswith("running on torch: ONNX Runtime cannot use cuda:1 (its CUDA provider")


def test_where_torch_cannot_use_the_card_either_auto_is_the_cpu(
    small_model: Path,
    opened: Opened,
    card_runtime: SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card_runtime.missing = {"CUDAExecutionProvider"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_model(small_model)[0].name == "openvino"
    (said,) = said_by(caplog)
    assert said.startswith("running on openvino on cpu: ONNX Runtime cannot use cuda:0")
    with pytest.raises(MissingExtraError, match="cannot use cuda:0"):
        open_model(small_model, device="cuda")
    assert opened == []


def test_an_exported_graph_runs_on_a_card_by_onnx_runtime(
    cache: Path, opened: Opened, card_runtime: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = (cache / "pinglow").glob("small-*.onnx")
    backend, _ = open_model(path)
    assert (backend.name, str(backend.device)) == ("onnxruntime", "cuda:0")
    card_runtime.missing = {"CUDAExecutionProvider"}
    with pytest.raises(MissingExtraError, match="cannot use cuda:1"):
        open_model(path, device="cuda:1")
    backend, _ = open_model(path)
    assert (backend.name, str(backend.device)) == ("openvino", "cpu")
    assert len(said_by(caplog)) == 1
    with pytest.raises(ModelError, match="cannot run on torch"):
        open_model(path, "torch", "cuda")


def test_a_broken_provider_leaves_the_kept_conversion_alone(
    small_model: Path, opened: Opened, card_runtime: SimpleNamespace, cache: Path
) -> None:
    (kept,) = (cache / "pinglow").glob("small-*.onnx")
    before = kept.stat().st_mtime_ns, kept.read_bytes()
    card_runtime.fault = RuntimeError("no libcudnn.so.9")
    assert open_model(small_model, "onnxruntime", "cuda")[0].name == "torch"
    assert (kept.stat().st_mtime_ns, kept.read_bytes()) == before


@pytest.mark.parametrize("content", [b"no graph", b"\x08\x08no graph"])
def test_a_broken_graph_is_said_once_though_several_runtimes_try(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx is damaged"):
        open_model(path, device="cpu")
    assert said_by(caplog) == []


@pytest.mark.usefixtures("cache")
def test_a_graph_that_one_runtime_does_not_read_runs_on_another_with_one_warning(
    small_model: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("openvino")

    def refuse(*_: object) -> None:
        raise ModelError("an operation is missing")

    monkeypatch.setattr(backends.BACKENDS["openvino"], "load", refuse)
    backend, _ = open_model(small_model, device="cpu")
    assert backend.name == "torch"
    assert "running on torch: an operation is missing" in said_by(caplog)


def test_an_unknown_precision_is_refused(small_model: Path) -> None:
    with pytest.raises(OptionError, match="precision 'fp16' is unknown: use float32 or tf32"):
        open_model(small_model, precision="fp16")
