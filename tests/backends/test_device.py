from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pinglow.backends.torch
from pinglow.backends import device, onnxruntime
from pinglow.backends.device import CPU, Device, choose_device
from pinglow.backends.onnxruntime import OnnxRuntimeBackend
from pinglow.backends.openvino import OpenVinoBackend
from pinglow.backends.torch import TorchBackend
from pinglow.deploy.benchmark import describe_device
from pinglow.errors import OptionError

TORCH, ONNXRUNTIME, OPENVINO = TorchBackend, OnnxRuntimeBackend, OpenVinoBackend
HaveCards = Callable[[int], None]


def test_auto_is_the_first_card_and_without_one_the_cpu(have_cards: HaveCards) -> None:
    have_cards(2)
    assert choose_device("auto", [TORCH]) == choose_device("cuda", [TORCH]) == Device("cuda", 0)
    assert choose_device("cuda:1", [TORCH]) == Device("cuda", 1)
    assert choose_device("cpu", [TORCH]) == CPU
    have_cards(0)
    assert choose_device("auto", [TORCH]) == CPU


@pytest.mark.parametrize("name", ["tpu", "", "CUDA", "cuda:", "cuda:-1", "cuda:1 ", "cuda0", "gpu"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"is unknown: use cpu, cuda, cuda:N or auto$"):
        choose_device(name, [TORCH])


@pytest.mark.parametrize(
    ("count", "name", "there"),
    [
        (1, "cuda:1", "cuda:0 and no more; use that"),
        (3, "cuda:3", "cuda:0 to cuda:2 and no more; use one of them"),
        (2, "cuda:99999999999999999999", "cuda:0 to cuda:1 and no more"),
    ],
)
def test_an_index_too_high_says_what_there_is(
    have_cards: HaveCards, count: int, name: str, there: str
) -> None:
    have_cards(count)
    with pytest.raises(OptionError) as caught:
        choose_device(name, [TORCH])
    assert f"device {name!r} cannot be used: PyTorch finds {there}" in str(caught.value)
    assert str(caught.value).endswith("or use cpu")


def test_no_card_is_one_sentence(have_cards: HaveCards) -> None:
    have_cards(0)
    with pytest.raises(OptionError, match="'cuda' cannot be used: PyTorch finds no CUDA device"):
        choose_device("cuda", [TORCH])


def test_a_pytorch_without_cuda_is_one_sentence(
    have_cards: HaveCards, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_cards(0)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(OptionError, match=r"built for the CPU only; install one with CUDA .*, or"):
        choose_device("cuda", [TORCH])
    assert choose_device("auto", [TORCH]) == CPU


def test_a_driver_that_is_too_old_is_told_once_and_in_one_line(
    have_cards: HaveCards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn() -> bool:
        warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found version "
            "11040). Please update your GPU driver by downloading\na new one. (Triggered at ...)",
            stacklevel=1,
        )
        return False

    have_cards(0)
    monkeypatch.setattr(torch.cuda, "is_available", warn)
    with pytest.raises(OptionError) as caught:
        choose_device("cuda", [TORCH])
    assert str(caught.value) == (
        "device 'cuda' cannot be used: PyTorch cannot use it (The NVIDIA driver on your system is "
        "too old (found version 11040)); update the driver, or use cpu"
    )
    assert choose_device("auto", [TORCH]) == CPU


def test_a_card_on_which_nothing_runs_is_none(
    have_cards: HaveCards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Device) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might be")

    have_cards(1)
    monkeypatch.setattr(pinglow.backends.torch, "_compute_on", fail)
    with pytest.raises(OptionError, match=r"\(CUDA error: no kernel image is available\); free it"):
        choose_device("cuda", [TORCH])
    assert choose_device("auto", [TORCH]) == CPU


def test_a_card_of_onnx_runtime_alone_counts_for_it_alone(
    have_cards: HaveCards, card_runtime: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_cards(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", [TORCH, ONNXRUNTIME]) == Device("cuda", 0)
    assert choose_device("cuda:1", [ONNXRUNTIME, TORCH]) == Device("cuda", 1)
    assert choose_device("auto", [TORCH]) == CPU
    with pytest.raises(OptionError, match="ONNX Runtime finds cuda:0 to cuda:1 and no more"):
        choose_device("cuda:2", [OPENVINO, ONNXRUNTIME])
    with pytest.raises(OptionError, match="PyTorch finds no CUDA device"):
        choose_device("cuda:2", [TORCH, ONNXRUNTIME, OPENVINO])


def test_an_onnx_runtime_that_cannot_use_a_card_says_why(
    have_cards: HaveCards, card_runtime: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_cards(0)
    assert "no CUDA device" in str(ONNXRUNTIME.why_not(Device("cuda", 0)))
    have_cards(1)
    assert ONNXRUNTIME.why_not(Device("cuda", 0)) is None
    card_runtime.available = ["AzureExecutionProvider", "CPUExecutionProvider"]
    assert "pip uninstall onnxruntime" in str(ONNXRUNTIME.why_not(Device("cuda", 0)))
    monkeypatch.setattr(onnxruntime, "is_installed", lambda name: False)
    assert "not installed; pip install ." in str(ONNXRUNTIME.why_not(Device("cuda", 0)))


def test_openvino_is_for_the_cpu(have_cards: HaveCards) -> None:
    have_cards(1)
    assert choose_device("auto", [OPENVINO]) == CPU
    with pytest.raises(OptionError, match="OpenVINO computes on the CPU only; use the backend"):
        choose_device("cuda", [OPENVINO])


@pytest.mark.parametrize(("fault", "expected"), [(0, 2), (100, 0)])
def test_the_driver_counts_the_cards(
    monkeypatch: pytest.MonkeyPatch, fault: int, expected: int
) -> None:
    def count(reference: Any) -> int:
        reference._obj.value = 2
        return 0

    driver = SimpleNamespace(cuInit=lambda flags: fault, cuDeviceGetCount=count)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert device.count_cards() == expected


def test_without_a_driver_there_are_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert device.count_cards() == 0


def test_a_device_is_called_by_its_name(
    have_cards: HaveCards, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_cards(1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: "NVIDIA H100")
    assert describe_device(CPU) == "cpu"
    assert describe_device(Device("cuda", 0)) == "cuda:0 (NVIDIA H100)"
    have_cards(0)
    assert describe_device(Device("cuda", 0)) == "cuda:0"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_card_is_found_and_computes() -> None:
    assert choose_device("cuda", [TORCH]) == Device("cuda", 0)
    assert TORCH.why_not(Device("cuda", 0)) is None
    assert TORCH.why_not(Device("cuda", torch.cuda.device_count())) is not None
