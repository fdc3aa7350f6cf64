from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F  # noqa: N812

from pinglow.backends.device import Device
from pinglow.backends.torch import TorchBackend, tf32
from pinglow.models.registry import build_network
from pinglow.models.weights import load_network

needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def cudnn_precision() -> str:
    """How cuDNN's convolutions multiply now, as PyTorch 2.9 and newer say it."""
    cudnn: Any = torch.backends.cudnn
    return str(cudnn.conv.fp32_precision)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


class Watching(nn.Module):
    """Notes the precision that it is run with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(cudnn_precision())
        return x


@pytest.mark.parametrize(("precision", "expected"), [("float32", "ieee"), ("tf32", "tf32")])
def test_the_network_runs_in_its_precision_and_others_keep_theirs(
    precision: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchBackend, "device", Device("cuda"))
    monkeypatch.setattr(TorchBackend, "_place", lambda _, values: torch.from_numpy(values))
    before = cudnn_precision()
    network = Watching()
    backend = TorchBackend(network, precision)
    backend(images(1, 1, 32, 32))
    backend.gates(images(1, 1, 32, 32))
    assert set(network.seen) == {expected}
    assert cudnn_precision() == before


@pytest.mark.parametrize("allowed", [False, True])
def test_the_precision_is_set_back_after_an_error(allowed: bool) -> None:
    before = cudnn_precision()
    with pytest.raises(RuntimeError, match="out of memory"), tf32(Device("cuda"), allowed):
        raise RuntimeError("CUDA out of memory")
    assert cudnn_precision() == before
    assert torch.backends.cudnn.allow_tf32  # the older name can still be read


def test_images_are_enlarged_for_the_network_and_brought_back(small_model: Path) -> None:
    network, _ = load_network(small_model)
    batch = images(2, 1, 37, 50)
    found = TorchBackend(network)(batch, size=(74, 100))
    with torch.inference_mode():
        large = F.interpolate(torch.from_numpy(batch), scale_factor=2, mode="bilinear")
        back = F.interpolate(network(large).sigmoid(), (37, 50), mode="bilinear", antialias=True)
    assert found.shape == batch.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, back.numpy(), atol=1e-6)
    assert np.abs(found - TorchBackend(network)(batch)).max() > 1e-2


def test_the_fastest_form_leaves_the_network_as_it_is(small_model: Path) -> None:
    network, _ = load_network(small_model)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    TorchBackend.fastest(network)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_on_a_card_nothing_is_left_on_the_cpu(small_model: Path) -> None:
    config = load_network(small_model)[1].network
    with FakeTensorMode(), torch.no_grad():  # shapes and devices, without numbers
        with torch.device("cuda"):
            network = build_network(config).eval()
        batch = torch.empty(2, 1, 37, 50, device="cuda")
        found = TorchBackend(network).compute(batch, None, (74, 100))
    assert (found.device.type, found.shape) == ("cuda", (2, 1, 37, 50))


@needs_card
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("tf32", 5e-2)])
def test_a_card_computes_what_the_cpu_does(
    small_model: Path, precision: str, tolerance: float
) -> None:
    network, _ = load_network(small_model)
    cpu = TorchBackend.fastest(network)
    card = TorchBackend.fastest(network, Device("cuda", 0), precision)
    assert card.device == Device("cuda", 0)
    batch = images(3, 1, 97, 130)
    gates = cpu.gates(batch[:1])
    np.testing.assert_allclose(card.gates(batch[:1]), gates, atol=tolerance)
    for size in (None, (194, 260)):
        np.testing.assert_allclose(card(batch, size=size), cpu(batch, size=size), atol=tolerance)
        np.testing.assert_allclose(
            card(batch, gates, size), cpu(batch, gates, size), atol=tolerance
        )


@needs_card
def test_a_network_that_is_trained_on_a_card_is_run_there(small_model: Path) -> None:
    network, _ = load_network(small_model)
    expected = TorchBackend(network)(images(1, 1, 64, 64))
    backend = TorchBackend(network.cuda())
    np.testing.assert_allclose(backend(images(1, 1, 64, 64)), expected, atol=1e-4)
