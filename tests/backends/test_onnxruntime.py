"""ONNX Runtime on a card, with a stand-in for the runtime; tests/inference has it on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pinglow.backends import onnxruntime
from pinglow.backends.device import Device
from pinglow.backends.onnxruntime import OnnxRuntimeBackend
from pinglow.backends.torch import TorchBackend
from pinglow.errors import MissingExtraError, ModelError
from pinglow.models.conversion import convert_to_onnx
from pinglow.models.weights import load_network

CARD = Device("cuda", 1)


@pytest.fixture(scope="module")
def graph(small_model: Path) -> bytes:
    """Return the small network, converted."""
    return convert_to_onnx(*load_network(small_model))


@pytest.fixture
def on_card(
    graph: bytes, card_runtime: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Any]]:
    """Return what opens the graph on a card and says what providers were asked for."""
    monkeypatch.setattr(onnxruntime, "is_installed", lambda name: name == "tensorrt")

    def providers(*arguments: Any, content: bytes = graph) -> list[Any]:
        OnnxRuntimeBackend(content, "small", CARD, *arguments)
        return list(card_runtime.asked[-1])

    return providers


def test_float32_is_asked_of_cuda_alone(on_card: Callable[..., list[Any]], tmp_path: Path) -> None:
    (name, options), last = on_card("float32", tmp_path)
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert (options["device_id"], options["use_tf32"]) == (1, 0)
    assert list(tmp_path.iterdir()) == []


def test_tf32_is_asked_of_tensorrt_first_whose_engines_are_kept(
    on_card: Callable[..., list[Any]], graph: bytes, tmp_path: Path
) -> None:
    (first, options), (second, cuda), _ = on_card("tf32", tmp_path)
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert (options["device_id"], cuda["device_id"], cuda["use_tf32"]) == (1, 1, 1)
    engines = Path(options["trt_engine_cache_path"])
    assert engines.is_dir()
    assert engines.parent == Path(options["trt_timing_cache_path"]) == tmp_path / "tensorrt"
    assert options["trt_engine_cache_enable"]
    assert options["trt_timing_cache_enable"]
    # TensorRT names engines by the graph: those of other weights need a folder of their own.
    (_, same), *_ = on_card("tf32", tmp_path)
    assert same == options
    other = graph.replace(b"small", b"SMALL")
    assert other != graph
    (_, different), *_ = on_card("tf32", tmp_path, content=other)
    assert different["trt_engine_cache_path"] != options["trt_engine_cache_path"]


def test_without_tensorrt_tf32_is_cudas(
    on_card: Callable[..., list[Any]],
    card_runtime: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card_runtime.available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert [name for name, _ in on_card("tf32")[:-1]] == ["CUDAExecutionProvider"]
    card_runtime.available.insert(0, "TensorrtExecutionProvider")
    monkeypatch.setattr(onnxruntime, "is_installed", lambda name: False)
    assert [name for name, _ in on_card("tf32")[:-1]] == ["CUDAExecutionProvider"]


@pytest.mark.parametrize("there", [False, True])
def test_engines_that_cannot_be_kept_are_not(
    on_card: Callable[..., list[Any]], tmp_path: Path, there: bool
) -> None:
    (tmp_path / "file").write_text("")
    (_, options), *_ = on_card("tf32", *([tmp_path / "file"] if there else []))
    assert options == {"device_id": 1}


def test_a_provider_that_does_not_load_is_one_sentence(
    on_card: Callable[..., list[Any]],
    card_runtime: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card_runtime.missing = {"CUDAExecutionProvider"}
    with pytest.raises(MissingExtraError, match=r"cannot use cuda:1 \(its CUDA provider does not"):
        on_card("float32")
    card_runtime.fault = RuntimeError("/src/provider.cc:505\nPlease install TensorRT libraries")
    with pytest.raises(MissingExtraError, match=r"\(Please install TensorRT libraries\): install"):
        on_card("float32")
    assert capsys.readouterr() == ("", "")


def test_a_damaged_model_is_not_taken_for_a_broken_card(on_card: Callable[..., list[Any]]) -> None:
    with pytest.raises(ModelError, match="small is damaged"):
        on_card("float32", content=b"damaged")


def test_it_computes_what_the_network_does(
    graph: bytes, small_model: Path, card_runtime: SimpleNamespace
) -> None:
    images = np.random.default_rng(0).standard_normal((3, 1, 40, 56), dtype=np.float32)
    backend = OnnxRuntimeBackend(graph, "small", CARD)
    assert backend.device == CARD
    expected = TorchBackend(load_network(small_model)[0])
    np.testing.assert_allclose(backend(images), expected(images), atol=1e-5)
    gates = expected.gates(images[:1])
    np.testing.assert_allclose(backend.gates(images[:1]), gates, atol=1e-5)
    np.testing.assert_allclose(
        backend(images, gates, (80, 112)), expected(images, gates, (80, 112)), atol=1e-5
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("tf32", 5e-2)])
def test_a_real_card_computes_what_the_cpu_does(
    graph: bytes, precision: str, tolerance: float
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    images = np.random.default_rng(0).standard_normal((2, 1, 96, 128), dtype=np.float32)
    card = OnnxRuntimeBackend(graph, "small", Device("cuda", 0), precision)
    cpu = OnnxRuntimeBackend(graph, "small")
    for size in (None, (192, 256)):
        np.testing.assert_allclose(card(images, size=size), cpu(images, size=size), atol=tolerance)
    np.testing.assert_allclose(card.gates(images), cpu.gates(images), atol=tolerance)
